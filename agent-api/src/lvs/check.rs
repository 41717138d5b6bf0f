//! What keepalived would do to a real server to see whether it is well, as a [`Probe`].

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::keepalived::{COUNT_MAX, Lines, Value};
use crate::monitor::{HttpProbe, Probe};
use crate::paths::Paths;
use crate::refused::Refused;

#[derive(PartialEq)]
pub(super) struct Check {
    pub probe: Probe,
    pub timeout_s: u32,
}

/// The check of a real server and where it goes; `None` if there is none.
pub(super) fn read(
    lines: &mut Lines<'_>,
    paths: &Paths,
) -> Result<Option<(Check, SocketAddr)>, Refused> {
    // Octavia 4 says again for each what it said for all.
    if let Some([again]) = lines.when("delay_before_retry <delay_before_retry>") {
        let _: u32 = again.number(1..=COUNT_MAX)?;
    }
    if let Some([retry]) = lines.when("retry <retry>") {
        let _: u16 = retry.number(1..=u16::MAX)?;
    }
    if let Some([]) = lines.when("MISC_CHECK {") {
        return program(lines, paths).map(Some);
    }
    if let Some([]) = lines.when("TCP_CHECK {") {
        return connection(lines, Probe::Tcp).map(Some);
    }
    if let Some([]) = lines.when("HTTP_GET {") {
        let http = http(lines)?;
        return connection(lines, Probe::Http(http)).map(Some);
    }
    Ok(None)
}

/// A command that is to be run. There are two, and their arguments are all that may vary.
fn program(lines: &mut Lines<'_>, paths: &Paths) -> Result<(Check, SocketAddr), Refused> {
    let [command] = lines.need("misc_path <misc_path>")?;
    let command = Value { text: command.text.trim_matches('"'), ..command };
    let words: Vec<&str> = command.text.split(' ').collect();
    let word = |name, text| Value { name, text, ..command };
    let (probe, own_timeout_s, at) = match words[..] {
        [program, address, port] if paths.udp_check().to_str() == Some(program) => {
            (Probe::UdpConnect, None, (address, port))
        }
        ["amphora-health-checker", "sctp", "-t", timeout, address, port] => {
            let timeout_s = word("-t", timeout).number(1..=COUNT_MAX)?;
            (Probe::Sctp, Some(timeout_s), (address, port))
        }
        [..] => return Err(command.refused("is not a check of Octavia's")),
    };
    let at = socket(word("address", at.0), word("port", at.1))?;
    let [timeout] = lines.need("misc_timeout <misc_timeout>")?;
    let timeout_s = timeout.number(1..=COUNT_MAX)?;
    // The SCTP checker is stopped a second after it should have ended by itself.
    if let Some(own) = own_timeout_s.filter(|own| own + 1 != timeout_s) {
        return Err(timeout.refused(format_args!("is not a second more than -t {own}")));
    }
    let [] = lines.need("}")?;
    Ok((Check { probe, timeout_s: own_timeout_s.unwrap_or(timeout_s) }, at))
}

/// keepalived would want every one of these pages, which no server can give if the codes differ. The
/// API promises that any of them will do.
fn http(lines: &mut Lines<'_>) -> Result<HttpProbe, Refused> {
    let [] = lines.need("url {")?;
    let (first, code) = url(lines)?;
    let mut codes = BTreeSet::from([code]);
    while let Some([]) = lines.when("url {") {
        let (path, code) = url(lines)?;
        if path.text != first.text {
            return Err(path.refused(format_args!("is not {:?}, as before", first.text)));
        }
        codes.insert(code);
    }
    let path = unescaped(first.text);
    Ok(HttpProbe { method: "GET".into(), path, version: None, host: None, codes })
}

fn url<'a>(lines: &mut Lines<'a>) -> Result<(Value<'a>, u16), Refused> {
    let [path] = lines.need("path <path>")?;
    if !path.text.starts_with('/') {
        return Err(path.refused("does not start with a slash"));
    }
    let [code] = lines.need("status_code <status_code>")?;
    let code = code.number(100..=599)?;
    let [] = lines.need("}")?;
    Ok((path, code))
}

/// The templates escape for HTML, where nobody ever reads it back, and a path may well have an `&`.
/// Quotes are not here: with what they become, `&#39;`, a comment begins.
fn unescaped(path: &str) -> String {
    path.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

fn connection(lines: &mut Lines<'_>, probe: Probe) -> Result<(Check, SocketAddr), Refused> {
    let [address] = lines.need("connect_ip <connect_ip>")?;
    let [port] = lines.need("connect_port <connect_port>")?;
    let at = socket(address, port)?;
    let [timeout] = lines.need("connect_timeout <connect_timeout>")?;
    let timeout_s = timeout.number(1..=COUNT_MAX)?;
    let [] = lines.need("}")?;
    Ok((Check { probe, timeout_s }, at))
}

fn socket(address: Value<'_>, port: Value<'_>) -> Result<SocketAddr, Refused> {
    Ok(SocketAddr::new(address.address()?, port.port()?))
}
