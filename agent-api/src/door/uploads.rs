//! What is uploaded, and what becomes of it: load balancers, UDP and SCTP listeners, their
//! certificates, and VRRP.

use hyper::StatusCode;
use hyper::body::Bytes;
use tracing::warn;

use super::objects::{Kind, Part};
use super::{Answer, Door};
use crate::amphora::{Action, Amphora, Failed, Haproxy};
use crate::config::Topology;
use crate::names::{BadName, CertificateName, ObjectId};
use crate::store;
use crate::{haproxy, lvs, peer, vrrp};

impl<A: Amphora> Door<A> {
    pub(super) async fn put_haproxy(&self, id: &str, body: &Bytes) -> Answer {
        let Ok(id) = ObjectId::try_from(id.to_owned()) else {
            return no_load_balancer(id);
        };
        let _turn = self.turn.lock().await;
        let (text, part) = match self.haproxy_fits(&id, body).await {
            Ok(fits) => fits,
            Err(why) => {
                if let Err(error) = self.store().keep_rejected_haproxy(&id, body) {
                    warn!("{error}");
                }
                return Answer::invalid("Invalid request", &why);
            }
        };
        let stored = self.store().put_haproxy(&id, &text);
        match stored {
            Ok(()) => self.added(&id, part).accepted().with_etag(&store::md5_hex(body)),
            Err(error) => Answer::failed("Error storing the configuration", &error.to_string()),
        }
    }

    /// The text, if it is one of ours, serves beside what is served, and HAProxy takes it.
    async fn haproxy_fits(&self, id: &ObjectId, body: &[u8]) -> Result<(String, Part), String> {
        let text = str::from_utf8(body).map_err(|error| not_text(body, error.valid_up_to()))?;
        let whole = self.haproxy(id, text)?;
        let part = Part::of_load_balancer(&whole);
        self.fits(id, &part)?;
        self.amphora.check(&whole).await.map_err(|Failed(why)| why)?;
        Ok((text.to_owned(), part))
    }

    pub(super) async fn get_haproxy(&self, id: &str) -> Answer {
        let Ok(object) = ObjectId::try_from(id.to_owned()) else {
            return no_load_balancer(id);
        };
        match self.store().haproxy(&object) {
            Ok(Some(text)) => {
                let etag = store::md5_hex(text.as_bytes());
                Answer::text(text).with_etag(&etag)
            }
            Ok(None) => no_load_balancer(id),
            Err(error) => Answer::failed("Error reading the configuration", &error.to_string()),
        }
    }

    pub(super) async fn put_lvs(&self, id: &str, body: &Bytes) -> Answer {
        let Ok(id) = ObjectId::try_from(id.to_owned()) else {
            return no_udp_listener(id);
        };
        let _turn = self.turn.lock().await;
        let (text, part) = match self.lvs_fits(&id, body) {
            Ok(fits) => fits,
            Err(why) => return Answer::invalid("Invalid request", &why),
        };
        let stored = self.store().put_lvs(&id, text);
        match stored {
            Ok(()) => self.added(&id, part).with_etag(&store::md5_hex(body)),
            Err(error) => Answer::failed("Error storing the configuration", &error.to_string()),
        }
    }

    fn lvs_fits<'a>(&self, id: &ObjectId, body: &'a [u8]) -> Result<(&'a str, Part), String> {
        let text = str::from_utf8(body).map_err(|error| not_text(body, error.valid_up_to()))?;
        let part = self.lvs_part(id, text)?;
        self.fits(id, &part)?;
        Ok((text, part))
    }

    /// Stored; it is served from the next start or reload on.
    fn added(&self, id: &ObjectId, part: Part) -> Answer {
        let mut objects = self.objects();
        objects.add(id, part);
        self.set_objects(objects);
        Answer::ok()
    }

    pub(super) async fn get_lvs(&self, id: &str) -> Answer {
        let Ok(object) = ObjectId::try_from(id.to_owned()) else {
            return no_udp_listener(id);
        };
        match self.store().lvs(&object) {
            Ok(Some(text)) => Answer::text(text),
            Ok(None) => no_udp_listener(id),
            Err(error) => Answer::failed("Error reading the configuration", &error.to_string()),
        }
    }

    /// Starts, stops or reloads a load balancer, or a UDP or SCTP listener: whichever has the id.
    pub(super) async fn act(&self, id: &str, action: &str) -> Answer {
        let Some(wanted) = action_of(action) else {
            return unknown_action(action);
        };
        let Ok(object) = ObjectId::try_from(id.to_owned()) else {
            return no_load_balancer(id);
        };
        let _turn = self.turn.lock().await;
        let kind = self.kind(&object);
        let Some(kind) = kind else {
            return no_load_balancer(id);
        };
        match self.carry_out(&object, wanted).await {
            Ok(()) => Answer::done(&kind.done(id, wanted)).accepted(),
            Err(why) => Answer::failed(&kind.failed(id, wanted), &why),
        }
    }

    async fn carry_out(&self, id: &ObjectId, action: Action) -> Result<(), String> {
        let mut objects = self.objects();
        let mut announce = Vec::new();
        match action {
            Action::Start | Action::Reload => {
                let part = self.part(id)?.ok_or("its configuration is gone")?;
                if self.config.borrow().loadbalancer_topology == Topology::Single {
                    announce = part.vips();
                }
                objects.start(id, part);
            }
            Action::Stop => objects.stop(id),
        }
        self.commit(objects, &announce).await.map_err(|Failed(why)| why)?;
        let stopped = action == Action::Stop;
        if stopped != self.store().document().stopped.contains(id) {
            self.store().note_stopped(id, stopped).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    pub(super) async fn delete(&self, id: &str) -> Answer {
        // What cannot be is not there, and that is what is wanted.
        let Ok(object) = ObjectId::try_from(id.to_owned()) else {
            return Answer::ok();
        };
        let _turn = self.turn.lock().await;
        let Some(kind) = self.kind(&object) else {
            return Answer::ok();
        };
        let mut objects = self.objects();
        objects.remove(&object);
        if let Err(Failed(why)) = self.commit(objects, &[]).await {
            return Answer::failed(kind.not_stopped(), &why);
        }
        let removed = match kind {
            Kind::LoadBalancer => self.store().remove_load_balancer(&object),
            Kind::UdpListener => self.store().remove_lvs(&object),
        };
        match removed {
            Ok(()) => Answer::ok(),
            Err(error) => Answer::failed(kind.not_stopped(), &error.to_string()),
        }
    }

    pub(super) async fn put_certificate(&self, id: &str, file: &str, body: &Bytes) -> Answer {
        let Ok((id, file)) = certificate_name(id, file) else {
            return wrong_file_name();
        };
        let _turn = self.turn.lock().await;
        match self.store().put_certificate(&id, &file, body) {
            Ok(()) => Answer::ok().with_etag(&store::md5_hex(body)),
            Err(error) => Answer::failed("Error storing the certificate", &error.to_string()),
        }
    }

    pub(super) async fn get_certificate(&self, id: &str, name: &str) -> Answer {
        let Ok((id, file)) = certificate_name(id, name) else {
            return wrong_file_name();
        };
        match self.store().certificate_md5(&id, &file) {
            Ok(Some(md5)) => Answer::json(&serde_json::json!({ "md5sum": md5 })).with_etag(&md5),
            Ok(None) => {
                let details = format!("No certificate with filename: {name}");
                Answer::not_found("Certificate Not Found", &details)
            }
            Err(error) => Answer::failed("Error reading the certificate", &error.to_string()),
        }
    }

    pub(super) async fn delete_certificate(&self, id: &str, file: &str) -> Answer {
        let Ok((id, file)) = certificate_name(id, file) else {
            return wrong_file_name();
        };
        let _turn = self.turn.lock().await;
        match self.store().remove_certificate(&id, &file) {
            Ok(()) => Answer::ok(),
            Err(error) => Answer::failed("Error removing the certificate", &error.to_string()),
        }
    }

    pub(super) async fn put_vrrp(&self, body: &Bytes) -> Answer {
        let text = match str::from_utf8(body) {
            Ok(text) => text.to_owned(),
            Err(error) => {
                return Answer::invalid("Invalid request", &not_text(body, error.valid_up_to()));
            }
        };
        if let Err(refused) = vrrp::parse(&text, &self.config.borrow().paths()) {
            return Answer::invalid("Invalid request", &refused.to_string());
        }
        let _turn = self.turn.lock().await;
        match self.store().put_vrrp(&text) {
            Ok(()) => Answer::ok().with_etag(&store::md5_hex(body)),
            Err(error) => {
                Answer::failed("Error enabling octavia-keepalived service", &error.to_string())
            }
        }
    }

    pub(super) async fn act_vrrp(&self, action: &str) -> Answer {
        let Some(wanted) = action_of(action) else {
            return unknown_action(action);
        };
        let action = action.to_lowercase();
        let _turn = self.turn.lock().await;
        match self.amphora.vrrp(wanted).await {
            Ok(()) => Answer::done(&format!("keepalived {action}ed")).accepted(),
            Err(Failed(why)) => {
                Answer::failed(&format!("Failed to {action} octavia-keepalived service"), &why)
            }
        }
    }

    /// Whether this would fit beside what is applied.
    fn fits(&self, id: &ObjectId, part: &Part) -> Result<(), String> {
        let mut objects = self.objects();
        objects.start(id, part.clone());
        objects.wanted().map(drop).map_err(|error| error.to_string())
    }

    /// What is stored of an object, understood. None if it is not there.
    pub(super) fn part(&self, id: &ObjectId) -> Result<Option<Part>, String> {
        let unread = |error: store::Error| error.to_string();
        let (lvs, haproxy) = {
            let store = self.store();
            (store.lvs(id).map_err(unread)?, store.haproxy(id).map_err(unread)?)
        };
        match (lvs, haproxy) {
            (Some(text), _) => self.lvs_part(id, &text).map(Some),
            (None, Some(text)) => Ok(Some(Part::of_load_balancer(&self.haproxy(id, &text)?))),
            (None, None) => Ok(None),
        }
    }

    /// All of it, also what HAProxy need not serve.
    fn haproxy(&self, id: &ObjectId, text: &str) -> Result<Haproxy, String> {
        let paths = self.config.borrow().paths();
        let config = haproxy::parse(text, &paths).map_err(|refused| refused.to_string())?;
        if config.load_balancer != id.as_str() {
            return Err(format!("line 1: it is for load balancer {}", config.load_balancer));
        }
        let peer = peer::name(self.config.borrow().amphora_id.as_str());
        let certificates = self.store().certificates(id).map_err(|error| error.to_string())?;
        Ok(Haproxy { peer, config, certificates })
    }

    fn lvs_part(&self, id: &ObjectId, text: &str) -> Result<Part, String> {
        let paths = self.config.borrow().paths();
        let config = lvs::parse(text, &paths).map_err(|refused| refused.to_string())?;
        Ok(Part::of_udp_listener(id, &config))
    }

    fn kind(&self, id: &ObjectId) -> Option<Kind> {
        let store = self.store();
        if store.has_lvs(id) {
            Some(Kind::UdpListener)
        } else {
            store.has_haproxy(id).then_some(Kind::LoadBalancer)
        }
    }
}

impl Kind {
    /// The words of the stock agent, its spelling too.
    fn done(self, id: &str, action: Action) -> String {
        match (self, action) {
            (Self::LoadBalancer, Action::Start) => format!("haproxy daemon for {id} started"),
            (Self::LoadBalancer, Action::Stop) => format!("Listener {id} stoped"),
            (Self::LoadBalancer, Action::Reload) => format!("Listener {id} reloaded"),
            (Self::UdpListener, Action::Start) => format!("keepalivedlvs listener {id} started"),
            (Self::UdpListener, Action::Stop) => format!("keepalivedlvs listener {id} stoped"),
            (Self::UdpListener, Action::Reload) => format!("keepalivedlvs listener {id} restarted"),
        }
    }

    fn failed(self, id: &str, action: Action) -> String {
        let udp = |verb| format!("Failed to {verb} keepalivedlvs listener {id}");
        match (self, action) {
            (Self::LoadBalancer, Action::Start) => "Error starting haproxy".to_owned(),
            (Self::LoadBalancer, Action::Stop) => "Error stopping haproxy".to_owned(),
            (Self::LoadBalancer, Action::Reload) => "Error reloading haproxy".to_owned(),
            (Self::UdpListener, Action::Start) => udp("start"),
            (Self::UdpListener, Action::Stop) => udp("stop"),
            (Self::UdpListener, Action::Reload) => udp("restart"),
        }
    }

    fn not_stopped(self) -> &'static str {
        match self {
            Self::LoadBalancer => "Error stopping haproxy",
            Self::UdpListener => "Error stopping keepalivedlvs",
        }
    }
}

/// In whatever case, as the stock agent takes it.
fn action_of(text: &str) -> Option<Action> {
    match &text.to_lowercase()[..] {
        "start" => Some(Action::Start),
        "stop" => Some(Action::Stop),
        "reload" => Some(Action::Reload),
        _ => None,
    }
}

fn certificate_name(id: &str, file: &str) -> Result<(ObjectId, CertificateName), BadName> {
    Ok((id.to_owned().try_into()?, file.to_owned().try_into()?))
}

fn no_load_balancer(id: &str) -> Answer {
    Answer::not_found("Loadbalancer Not Found", &format!("No loadbalancer with UUID: {id}"))
}

fn no_udp_listener(id: &str) -> Answer {
    Answer::not_found("UDP Listener Not Found", &format!("No UDP listener with UUID: {id}"))
}

fn unknown_action(action: &str) -> Answer {
    Answer::invalid("Invalid Request", &format!("Unknown action: {action}"))
}

fn wrong_file_name() -> Answer {
    Answer::message(StatusCode::BAD_REQUEST, "Filename has wrong format")
}

fn not_text(body: &[u8], valid: usize) -> String {
    let line = 1 + body.iter().take(valid).filter(|byte| **byte == b'\n').count();
    format!("line {line}: not UTF-8")
}
