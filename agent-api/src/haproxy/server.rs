//! A member.

use std::net::IpAddr;

use super::Scope;
use super::preamble::once;
use super::tls::{Tls, is_list};
use super::values::Value;
use super::words::Line;
use crate::refused::Refused;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub id: String,
    pub address: IpAddr,
    pub port: u16,
    pub weight: u16,
    pub check: Option<Check>,
    /// Clients are held to it by a cookie of its id.
    pub cookie: bool,
    /// `send-proxy` and its kin.
    pub proxy: Option<String>,
    pub backup: bool,
    pub disabled: bool,
    pub tls: Tls,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub by_tls: bool,
    pub alpn: Option<String>,
    pub delay_s: u32,
    pub fall: u16,
    pub rise: u16,
    /// Where it goes, if not to the server.
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
}

impl Check {
    /// But for where it goes.
    pub fn is_like(&self, other: &Self) -> bool {
        let bare = |check: &Self| Self { address: None, port: None, ..check.clone() };
        bare(self) == bare(other)
    }
}

pub fn server(line: &Line, scope: &Scope<'_>) -> Result<Server, Refused> {
    let words = line.words();
    let [_, id, socket, "weight", weight, options @ ..] = &words[..] else {
        return Err(line.refused("a server has an id, an address and a weight"));
    };
    let (address, port) = Value::of(line, socket).socket()?;
    let weight = Value::of(line, weight).number(0, 256)?;
    let mut server = Server {
        id: Value::of(line, id).uuid()?,
        address,
        port,
        weight: u16::try_from(weight).unwrap_or(256),
        check: None,
        cookie: false,
        proxy: None,
        backup: false,
        disabled: false,
        tls: Tls::default(),
    };
    let (mut check, mut by_tls, mut alpn) = (false, false, None);
    let (mut delay, mut fall, mut rise) = (None, None, None);
    let (mut check_address, mut check_port) = (None, None);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || {
            let text =
                options.next().ok_or_else(|| line.refused(format!("`{option}` has no value")))?;
            Ok::<_, Refused>(Value::of(line, text))
        };
        match *option {
            "check" => check = true,
            "check-ssl" => {
                // What is checked by TLS is not verified; written behind it, and not an option of the server.
                let (verify, none) = (value()?.text, value()?.text);
                if (verify, none) != ("verify", "none") {
                    return Err(line.refused("behind `check-ssl` comes `verify none`"));
                }
                by_tls = true;
            }
            "check-alpn" => {
                once(&mut alpn, value()?.of_characters("a list of protocols", is_list)?, line)?;
            }
            "inter" => once(&mut delay, value()?.seconds()?, line)?,
            "fall" => once(&mut fall, value()?.times()?, line)?,
            "rise" => once(&mut rise, value()?.times()?, line)?,
            "addr" => once(&mut check_address, value()?.address()?, line)?,
            "port" => once(&mut check_port, value()?.port()?, line)?,
            "cookie" => {
                if value()?.text != server.id {
                    return Err(line.refused("the cookie of a server is its id"));
                }
                server.cookie = true;
            }
            "send-proxy" | "send-proxy-v2" | "send-proxy-v2-ssl-cn" => {
                once(&mut server.proxy, (*option).to_owned(), line)?;
            }
            "backup" => server.backup = true,
            "disabled" => server.disabled = true,
            // What a `bind` has and a server has not.
            "crt-list" => return Err(line.refused("`crt-list` is not an option of a server")),
            option => {
                if !server.tls.option(option, &mut options, line, scope.files())? {
                    return Err(line.refused(format!("`{option}` is not an option of a server")));
                }
            }
        }
    }
    let missing = || line.refused("a check has `inter`, `fall` and `rise`");
    server.check = match (check, delay, fall, rise) {
        (true, Some(delay_s), Some(fall), Some(rise)) => Some(Check {
            by_tls,
            alpn,
            delay_s,
            fall,
            rise,
            address: check_address,
            port: check_port,
        }),
        (false, None, None, None) if !by_tls && alpn.is_none() => None,
        _ => return Err(missing()),
    };
    Ok(server)
}
