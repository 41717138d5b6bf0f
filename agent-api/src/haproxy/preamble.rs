//! The sections before the listeners: `global`, `defaults`, `peers`, and the exporter of metrics.
//!
//! Of all that could be said there, only what Octavia says, and no path or socket but its own.

use std::net::IpAddr;

use super::values::Value;
use super::words::Line;
use crate::paths::Paths;
use crate::refused::Refused;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    pub user_facility: Option<u32>,
    pub administrative_facility: Option<u32>,
    pub maxconn: Option<u32>,
    pub state_file: bool,
    pub ssl_cache: Option<u32>,
    pub threads: Option<u32>,
    pub external_check: bool,
}

/// Own name and address of each amphora of the load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(pub Vec<(String, IpAddr)>);

/// Where the stock amphora's rsyslog listens, and where any does.
const LOG_SOCKETS: [&str; 2] = ["/run/rsyslog/octavia/log", "/dev/log"];
const PEER_PORT: u16 = 1025;

pub fn global(lines: &[Line], load_balancer: &str, paths: &Paths) -> Result<Global, Refused> {
    let mut global = Global::default();
    let socket = paths.haproxy_socket(load_balancer);
    let state = paths.haproxy_state(load_balancer);
    for line in lines {
        match &line.words()[..] {
            ["daemon"] | ["user", "nobody"] | ["insecure-fork-wanted"] => {}
            ["log", target, facility] => {
                log_target(line, target)?;
                once(&mut global.user_facility, Value::of(line, facility).facility()?, line)?;
            }
            ["log", target, facility, "notice"] => {
                log_target(line, target)?;
                let facility = Value::of(line, facility).facility()?;
                once(&mut global.administrative_facility, facility, line)?;
            }
            ["stats", "socket", path, "mode", "0666", "level", "user"] => {
                only(line, path, &socket.to_string_lossy())?;
            }
            ["server-state-file", path] => {
                only(line, path, &state.to_string_lossy())?;
                global.state_file = true;
            }
            ["maxconn", number] => {
                once(&mut global.maxconn, Value::of(line, number).number(0, u32::MAX)?, line)?;
            }
            ["tune.ssl.cachesize", number] => {
                once(&mut global.ssl_cache, Value::of(line, number).number(0, u32::MAX)?, line)?;
            }
            ["nbthread", number] => {
                once(&mut global.threads, Value::of(line, number).number(1, 4096)?, line)?;
            }
            ["cpu-map", threads, cpus] => cpu_map(line, threads, cpus, global.threads)?,
            ["external-check"] => global.external_check = true,
            _ => return Err(unknown(line, "global")),
        }
    }
    Ok(global)
}

/// Whether connections are logged.
pub fn defaults(lines: &[Line]) -> Result<bool, Refused> {
    let mut logs = None;
    for line in lines {
        match &line.words()[..] {
            ["log", "global"] => once(&mut logs, true, line)?,
            ["no", "log"] => once(&mut logs, false, line)?,
            ["retries", "3"]
            | ["option", "redispatch" | "splice-request" | "splice-response"]
            | ["option", "http-keep-alive" | "http-use-htx"] => {}
            _ => return Err(unknown(line, "defaults")),
        }
    }
    Ok(logs.unwrap_or_default())
}

pub fn peers(lines: &[Line]) -> Result<Peers, Refused> {
    let mut peers = Peers::default();
    for line in lines {
        match &line.words()[..] {
            ["peer", name, socket] => {
                let known = |next: char| next.is_ascii_alphanumeric() || "-_".contains(next);
                let name = Value::of(line, name).of_characters("the name of a peer", known)?;
                let (address, port) = Value::of(line, socket).socket()?;
                if port != PEER_PORT {
                    return Err(line.refused(format!("the port of a peer is {PEER_PORT}")));
                }
                peers.0.push((name, address));
            }
            _ => return Err(unknown(line, "peers")),
        }
    }
    Ok(peers)
}

/// The exporter's frontend and backend are always the same, but for an option of Octavia 11.
pub fn exporter(kind: &str, lines: &[Line]) -> Result<(), Refused> {
    let known: &[&[&str]] = match kind {
        "frontend" => &[
            &["bind", "127.0.0.1:9101"],
            &["mode", "http"],
            &["no", "log"],
            &["option", "http-use-htx"],
            &[
                "http-request",
                "use-service",
                "prometheus-exporter",
                "if",
                "{",
                "path",
                "/metrics",
                "}",
            ],
            &["http-request", "reject"],
            &["timeout", "http-request", "5s"],
            &["timeout", "client", "5s"],
        ],
        _ => &[
            &["mode", "http"],
            &["no", "log"],
            &["balance", "first"],
            &["timeout", "connect", "5s"],
            &["timeout", "server", "5s"],
            &["server", "prometheus-internal", "127.0.0.1:9102"],
        ],
    };
    for line in lines {
        if !known.contains(&&line.words()[..]) {
            return Err(line.refused("it is not a line of the exporter of metrics"));
        }
    }
    Ok(())
}

pub fn unknown(line: &Line, section: &str) -> Refused {
    let said = line.words().join(" ");
    line.refused(format!("{} is not a directive of `{section}`", crate::grammar::shown(&said)))
}

/// A directive that is there twice is not Octavia's.
pub fn once<T>(slot: &mut Option<T>, value: T, line: &Line) -> Result<(), Refused> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(line.refused(format!("`{}` is there twice", line.first()))),
    }
}

fn only(line: &Line, path: &str, known: &str) -> Result<(), Refused> {
    if path == known { Ok(()) } else { Err(line.refused(format!("the path must be {known}"))) }
}

fn log_target(line: &Line, target: &str) -> Result<(), Refused> {
    let value = Value::of(line, target);
    let known = LOG_SOCKETS.contains(&target) || value.address().is_ok() || value.socket().is_ok();
    if known {
        Ok(())
    } else {
        Err(line.refused("logs go to the socket of rsyslog, or an address"))
    }
}

/// `auto:1/1-N 1-N`, one CPU to a thread.
fn cpu_map(line: &Line, threads: &str, cpus: &str, count: Option<u32>) -> Result<(), Refused> {
    let count = count.unwrap_or_default();
    if threads == format!("auto:1/1-{count}") && cpus == format!("1-{count}") {
        Ok(())
    } else {
        Err(line.refused("`cpu-map` is of all threads, one to a CPU"))
    }
}
