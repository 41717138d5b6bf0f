//! A pool, as one listener uses it.

use std::collections::{BTreeSet, HashSet};

use super::Scope;
use super::frontend::{Mode, mode, timeout};
use super::preamble::{once, unknown};
use super::server::{Check, Server, server};
use super::values::{Target, Value};
use super::words::Line;
use crate::desired::{self, Algorithm};
use crate::monitor::{HttpProbe, Monitor, OnMarkedDown, Probe};
use crate::refused::Refused;
use crate::understood::Persistence;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub name: Target,
    pub mode: Mode,
    pub reuses_connections: bool,
    pub algorithm: Algorithm,
    pub persistence: Option<Persistence>,
    pub keeps_state: bool,
    pub monitor: Option<Monitor>,
    /// Lines that add headers, in their order.
    pub headers: Vec<Vec<String>>,
    pub fullconn: Option<u32>,
    pub connect_timeout_ms: u32,
    pub server_timeout_ms: u32,
    pub servers: Vec<Server>,
}

/// What is asked of a server, as far as the backend says.
#[derive(Default)]
struct Asked {
    timeout_s: Option<u32>,
    http: Option<HttpProbe>,
    host: Option<String>,
    codes: Option<BTreeSet<u16>>,
    external: bool,
    command: bool,
    hello: bool,
}

/// Octavia's wrapper of `ping`; its path is the same in every amphora.
const PING: &str = "/var/lib/octavia/ping-wrapper.sh";

pub fn backend(head: &Line, lines: &[Line], scope: &Scope<'_>) -> Result<Backend, Refused> {
    let name = match &head.words()[..] {
        [_, name] => Value::of(head, name).target()?,
        _ => return Err(unknown(head, "backend")),
    };
    let (mut mode_said, mut algorithm, mut fullconn) = (None, None, None);
    let (mut connect, mut idle, mut table, mut stick) = (None, None, None, None);
    let (mut reuses_connections, mut keeps_state, mut cookie) = (false, false, false);
    let (mut asked, mut headers, mut servers) = (Asked::default(), Vec::new(), Vec::new());
    let mut lines_of_servers = Vec::new();
    for line in lines {
        match &line.words()[..] {
            ["mode", word] => once(&mut mode_said, mode(line, word)?, line)?,
            ["http-reuse", "safe"] => reuses_connections = true,
            ["balance", word] => once(&mut algorithm, self::algorithm(line, word)?, line)?,
            ["stick-table", "type", "ip" | "ipv6", "size", size, peers @ ..] => {
                Value::of(line, size).size()?;
                scope.peers(line, peers)?;
                once(&mut table, true, line)?;
            }
            ["stick-table", "type", "string", "len", "64", "size", size, peers @ ..] => {
                Value::of(line, size).size()?;
                scope.peers(line, peers)?;
                once(&mut table, false, line)?;
            }
            ["stick", "on", "src"] => once(&mut stick, source_ip(), line)?,
            ["stick", "store-response", fetch] => {
                let name = Value::of(line, fetch).argument("res.cook")?;
                once(&mut stick, Persistence::AppCookie { name }, line)?;
            }
            ["stick", "match", fetch] => {
                let name = Value::of(line, fetch).argument("req.cook")?;
                if stick != Some(Persistence::AppCookie { name }) {
                    return Err(line.refused("it does not match what is stored"));
                }
            }
            ["cookie", "SRV", "insert", "indirect", "nocache"] => cookie = true,
            ["load-server-state-from-file", "global"] => keeps_state = true,
            ["option", "forwardfor"] => headers.push(owned(line)),
            ["http-request", "set-header", name, value] if is_header(name, value) => {
                headers.push(owned(line));
            }
            ["fullconn", number] => {
                once(&mut fullconn, Value::of(line, number).number(1, u32::MAX)?, line)?;
            }
            ["option", "allbackups"] => {}
            ["timeout", "connect", ms] => once(&mut connect, timeout(line, ms)?, line)?,
            ["timeout", "server", ms] => once(&mut idle, timeout(line, ms)?, line)?,
            ["server", ..] => {
                servers.push(server(line, scope)?);
                lines_of_servers.push(line);
            }
            _ if asked.takes(line)? => {}
            _ => return Err(unknown(line, "backend")),
        }
    }
    let mut seen = HashSet::new();
    if let Some(at) = servers.iter().position(|server| !seen.insert(&server.id[..])) {
        return Err(lines_of_servers[at].refused("this server is there twice"));
    }
    let missing = |what: &str| head.refused(format!("the backend has no `{what}`"));
    if stick.is_some() != table.is_some() {
        return Err(missing(if stick.is_some() { "stick-table" } else { "stick" }));
    }
    let unlike = |at: usize| lines_of_servers[at].refused("it is checked unlike the one before");
    let monitor = asked.monitor(head, &servers, unlike)?;
    Ok(Backend {
        name,
        mode: mode_said.ok_or_else(|| missing("mode"))?,
        reuses_connections,
        algorithm: algorithm.ok_or_else(|| missing("balance"))?,
        persistence: stick.or(cookie.then_some(Persistence::HttpCookie)),
        keeps_state,
        monitor,
        headers,
        fullconn,
        connect_timeout_ms: connect.ok_or_else(|| missing("timeout connect"))?,
        server_timeout_ms: idle.ok_or_else(|| missing("timeout server"))?,
        servers,
    })
}

impl Asked {
    fn takes(&mut self, line: &Line) -> Result<bool, Refused> {
        match &line.words()[..] {
            ["timeout", "check", time] => {
                once(&mut self.timeout_s, Value::of(line, time).seconds()?, line)?;
            }
            ["option", "httpchk", method, path] => {
                once(&mut self.http, http(line, method, path, None)?, line)?;
            }
            // Octavia 11 ends the version with a line break, and has the Host behind it.
            ["option", "httpchk", method, path, version] => {
                let (version, host) = version.split_once("\r\n").unwrap_or((version, ""));
                once(&mut self.http, http(line, method, path, Some(version))?, line)?;
                if !host.is_empty() {
                    let host = host.strip_prefix("Host: ").unwrap_or_default();
                    once(&mut self.host, self::host(line, host)?, line)?;
                }
            }
            ["http-check", "send", "hdr", "Host", host] => {
                once(&mut self.host, self::host(line, host)?, line)?;
            }
            ["http-check", "expect", "rstatus", codes] => {
                let codes = codes.split('|').map(|code| {
                    let code = Value::of(line, code).number(100, 599)?;
                    Ok(u16::try_from(code).unwrap_or_default())
                });
                once(&mut self.codes, codes.collect::<Result<_, Refused>>()?, line)?;
            }
            ["option", "external-check"] => self.external = true,
            ["external-check", "command", command] => {
                if *command != PING {
                    return Err(line.refused(format!("the command must be {PING}")));
                }
                self.command = true;
            }
            ["option", "ssl-hello-chk"] => self.hello = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// All servers that are checked are checked alike, as they are of one health monitor. Without one
    /// that is, nobody knows how often.
    fn monitor(
        self,
        head: &Line,
        servers: &[Server],
        unlike: impl Fn(usize) -> Refused,
    ) -> Result<Option<Monitor>, Refused> {
        let checks: Vec<(usize, &Check)> = servers
            .iter()
            .enumerate()
            .filter_map(|(at, server)| Some((at, server.check.as_ref()?)))
            .collect();
        let Some((_, first)) = checks.first() else {
            return Ok(None);
        };
        if let Some((at, _)) = checks.iter().find(|(_, check)| !check.is_like(first)) {
            return Err(unlike(*at));
        }
        let missing = |what: &str| head.refused(format!("the backend has no `{what}`"));
        let timeout_s = self.timeout_s.ok_or_else(|| missing("timeout check"))?;
        let probe = match (self.http, self.external && self.command, self.hello) {
            (Some(http), false, false) => {
                let codes = self.codes.ok_or_else(|| missing("http-check expect"))?;
                let http = HttpProbe { host: self.host, codes, ..http };
                if first.by_tls { Probe::Https(http) } else { Probe::Http(http) }
            }
            (None, true, false) => Probe::Ping,
            (None, false, true) => Probe::TlsHello,
            (None, false, false) => Probe::Tcp,
            _ => return Err(head.refused("the backend is checked in more than one way")),
        };
        let Check { delay_s, rise, fall, .. } = **first;
        let on_marked_down = OnMarkedDown::default();
        Ok(Some(Monitor { probe, delay_s, timeout_s, rise, fall, on_marked_down }))
    }
}

fn http(
    line: &Line,
    method: &str,
    path: &str,
    version: Option<&str>,
) -> Result<HttpProbe, Refused> {
    let version = match version {
        None => None,
        Some("HTTP/1.0") => Some(0),
        Some("HTTP/1.1") => Some(1),
        Some(_) => return Err(line.refused("a version is HTTP/1.0 or HTTP/1.1")),
    };
    let method =
        Value::of(line, method).of_characters("a method", |next| next.is_ascii_uppercase())?;
    let path = Value::of(line, path).of_characters("a path", |next| next.is_ascii_graphic())?;
    if !path.starts_with('/') {
        return Err(line.refused("a path begins with a slash"));
    }
    Ok(HttpProbe { method, path, version, host: None, codes: BTreeSet::new() })
}

fn host(line: &Line, host: &str) -> Result<String, Refused> {
    let known = |next: char| next.is_ascii_alphanumeric() || ".-_".contains(next);
    Value::of(line, host).of_characters("a host name", known)
}

fn algorithm(line: &Line, word: &str) -> Result<Algorithm, Refused> {
    match word {
        "roundrobin" => Ok(Algorithm::RoundRobin),
        "leastconn" => Ok(Algorithm::LeastConnections),
        "source" => Ok(Algorithm::SourceIp),
        _ => Err(line.refused("`balance` is roundrobin, leastconn or source")),
    }
}

/// HAProxy's table forgets the least recent client when it is full, and none for its age.
fn source_ip() -> Persistence {
    Persistence::SourceIp(desired::Persistence { timeout_s: u32::MAX, ..Default::default() })
}

/// Those that Octavia inserts (`insert_headers`).
fn is_header(name: &str, value: &str) -> bool {
    const HEADERS: [(&str, &str); 11] = [
        ("X-Forwarded-Port", "%[dst_port]"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Proto", "https"),
        ("X-SSL-Client-Verify", "%[ssl_c_verify]"),
        ("X-SSL-Client-Has-Cert", "%[ssl_c_used]"),
        ("X-SSL-Client-DN", "%{+Q}[ssl_c_s_dn]"),
        ("X-SSL-Client-CN", "%{+Q}[ssl_c_s_dn(cn)]"),
        ("X-SSL-Issuer", "%{+Q}[ssl_c_i_dn]"),
        ("X-SSL-Client-SHA1", "%{+Q}[ssl_c_sha1,hex]"),
        ("X-SSL-Client-Not-Before", "%{+Q}[ssl_c_notbefore]"),
        ("X-SSL-Client-Not-After", "%{+Q}[ssl_c_notafter]"),
    ];
    HEADERS.contains(&(name, value))
}

fn owned(line: &Line) -> Vec<String> {
    line.words().into_iter().map(str::to_owned).collect()
}
