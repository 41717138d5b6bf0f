//! Interfaces: plugged, found by address, and guarded.

use std::net::IpAddr;

use hyper::StatusCode;
use tracing::info;

use super::answer::Framework;
use super::{Answer, Door, Request};
use crate::amphora::{Amphora, Failed, PlugError, Plugged};
use crate::document::Plugs;
use crate::plug::{self, NetworkPlug, VipPlug};
use crate::rules;

impl<A: Amphora> Door<A> {
    pub(super) async fn plug_vip(&self, vip: &str, request: &Request) -> Answer {
        const FORM: &str = "Invalid subnet information";
        if !is_json(request) {
            return Answer::framework(Framework::BadRequest(FORM));
        }
        let plug = match VipPlug::from_json(vip, &request.body) {
            Ok(plug) => plug,
            Err(refused) => return refused_plug(&refused, FORM),
        };
        let _turn = self.turn.lock().await;
        match self.amphora.plug_vip(&plug).await {
            Ok(Plugged::New(interface) | Plugged::Updated(interface)) => {
                let vips: Vec<String> = plug.vips.iter().map(|vip| exploded(vip.address)).collect();
                let details = format!("VIPs plugged on interface {interface}: {}", vips.join(", "));
                let kept = self.keep_plugs(|plugs| plugs.vip = Some(plug));
                kept.unwrap_or_else(|| Answer::done(&details).accepted())
            }
            Err(PlugError::NotFound) => Answer::no_interface_yet(),
            Err(PlugError::Exists) => {
                // Plugged, and then the agent died or the disk was full: the controller has come again.
                let noted = self.store().document().plugs.vip.is_some();
                let kept =
                    if noted { None } else { self.keep_plugs(|plugs| plugs.vip = Some(plug)) };
                kept.unwrap_or_else(|| Answer::exists("Interface already exists"))
            }
            Err(PlugError::Failed(Failed(why))) => Answer::failed("Error plugging VIP", &why),
        }
    }

    pub(super) async fn plug_network(&self, request: &Request) -> Answer {
        const FORM: &str = "Invalid port information";
        if !is_json(request) {
            return Answer::framework(Framework::BadRequest(FORM));
        }
        let plug = match NetworkPlug::from_json(&request.body) {
            Ok(plug) => plug,
            Err(refused) => return refused_plug(&refused, FORM),
        };
        let _turn = self.turn.lock().await;
        let before = self.store().document().plugs.vip.clone();
        let plug = plug.remembering(before.as_ref());
        let details = match self.amphora.plug_network(&plug).await {
            Ok(Plugged::New(interface)) => format!("Plugged on interface {interface}"),
            Ok(Plugged::Updated(interface)) => format!("Updated existing interface {interface}"),
            Err(PlugError::NotFound) => return Answer::no_interface_yet(),
            Err(PlugError::Exists) => return Answer::exists("Interface already exists"),
            Err(PlugError::Failed(Failed(why))) => {
                return Answer::failed("Error plugging network", &why);
            }
        };
        let kept = self.keep_plugs(|plugs| {
            if let Some(vip) = &plug.vip {
                plugs.vip = Some(vip.clone());
            }
            plugs.networks.insert(plug.mac, plug);
        });
        kept.unwrap_or_else(|| Answer::done(&details).accepted())
    }

    pub(super) async fn interface(&self, ip: &str) -> Answer {
        match self.interface_of(ip).await {
            Ok(interface) => {
                Answer::json(&serde_json::json!({ "message": "OK", "interface": interface }))
            }
            Err(answer) => answer,
        }
    }

    async fn interface_of(&self, ip: &str) -> Result<String, Answer> {
        // Python's `ipaddress`, which the stock agent asks, knows zones.
        let (ip, _zone) = ip.split_once('%').unwrap_or((ip, ""));
        let Ok(ip) = ip.parse() else {
            return Err(Answer::message(StatusCode::BAD_REQUEST, "Invalid IP address"));
        };
        match self.amphora.interface(ip).await {
            Ok(Some(interface)) => Ok(interface),
            Ok(None) => {
                let message = "Error interface not found for IP address";
                Err(Answer::message(StatusCode::NOT_FOUND, message))
            }
            Err(Failed(why)) => Err(Answer::failed("Error reading interfaces", &why)),
        }
    }

    pub(super) async fn put_rules(&self, ip: &str, request: &Request) -> Answer {
        let invalid = || Answer::framework(Framework::BadRequest("Invalid rules information"));
        let interface = match self.interface_of(ip).await {
            Ok(interface) => interface,
            Err(answer) => return answer,
        };
        if !is_json(request) {
            return invalid();
        }
        let rules = match rules::from_json(&request.body) {
            Ok(rules) => rules,
            Err(error) => {
                info!("rules for {interface}: {error}");
                return invalid();
            }
        };
        let _turn = self.turn.lock().await;
        match self.amphora.guard(&interface, &rules).await {
            Ok(()) => {
                let kept = self.keep_plugs(|plugs| plugs.rules = Some(rules));
                kept.unwrap_or_else(Answer::ok)
            }
            Err(Failed(why)) => Answer::failed("Error setting rules", &why),
        }
    }

    /// Notes what was plugged; an answer if that fails.
    fn keep_plugs(&self, change: impl FnOnce(&mut Plugs)) -> Option<Answer> {
        let kept = self.store().update(|document| change(&mut document.plugs));
        kept.err().map(|error| Answer::failed("Error storing what was plugged", &error.to_string()))
    }
}

/// The stock agent wants JSON to be called so.
fn is_json(request: &Request) -> bool {
    let kind = request.content_type.as_deref().unwrap_or_default();
    let (kind, _parameters) = kind.split_once(';').unwrap_or((kind, ""));
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn refused_plug(refused: &plug::Refused, form: &'static str) -> Answer {
    let message = match refused {
        plug::Refused::Form(why) => {
            info!("{form}: {why}");
            return Answer::framework(Framework::BadRequest(form));
        }
        plug::Refused::Vip(why) => format!("Invalid VIP: {why}"),
        plug::Refused::Vrrp(why) => format!("Invalid VRRP Address: {why}"),
        plug::Refused::Port(why) => {
            info!("Invalid network port: {why}");
            "Invalid network port".to_owned()
        }
    };
    Answer::message(StatusCode::BAD_REQUEST, &message)
}

/// All eight groups of an IPv6 address, as the stock agent writes them.
fn exploded(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|group| format!("{group:04x}")).join(":"),
    }
}
