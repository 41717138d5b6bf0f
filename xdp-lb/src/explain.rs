//! `xdp-lb explain`: who serves each listener, why, and what would change it. Of a load balancer that has
//! been started ([`running()`]); or of the configurations that Octavia uploads, which needs no amphora.

mod running;
mod servers;

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use agent_api::understood::{self, Engine, Persistence, Understood, Unserved};
use agent_api::{Algorithm, Paths, Probe, Refused, haproxy, lvs};
use serde::Serialize;

use crate::observe::{or_dash, row, table};
pub use running::{Running, running};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", .file.display())]
    Read { file: PathBuf, error: io::Error },
    #[error("{}: {refused}", .file.display())]
    Refused { file: PathBuf, refused: Refused },
    #[error("{}: it is of load balancer {found}, and the ones before of {first}", .file.display())]
    OtherLoadBalancer { file: PathBuf, found: String, first: String },
    #[error("together they cannot be served: {0}")]
    Unserved(#[from] Unserved),
}

/// Reads HAProxy and keepalived configurations of one load balancer, in any order.
pub fn explain(files: &[PathBuf], paths: &Paths) -> Result<Explained, Error> {
    let mut understood = None;
    for file in files {
        let text =
            fs::read_to_string(file).map_err(|error| Error::Read { file: file.clone(), error })?;
        let (found, listeners) = listeners(&text, paths)
            .map_err(|refused| Error::Refused { file: file.clone(), refused })?;
        let all = understood.get_or_insert_with(|| Understood {
            load_balancer: found.clone(),
            listeners: Vec::new(),
        });
        if all.load_balancer != found {
            let first = all.load_balancer.clone();
            return Err(Error::OtherLoadBalancer { file: file.clone(), found, first });
        }
        all.listeners.extend(listeners);
    }
    if let Some(understood) = &understood {
        understood.desired()?;
    }
    Ok(Explained::of(understood))
}

/// Load balancer and listeners of one configuration. keepalived's are told by their first directive.
fn listeners(text: &str, paths: &Paths) -> Result<(String, Vec<understood::Listener>), Refused> {
    if text.lines().any(|line| line.trim_start().starts_with("net_namespace")) {
        let config = lvs::parse(text, paths)?;
        Ok((config.load_balancer().to_owned(), config.listener().into_iter().collect()))
    } else {
        let config = haproxy::parse(text, paths)?;
        Ok((config.load_balancer.clone(), config.listeners()))
    }
}

#[derive(Debug, Serialize)]
pub struct Explained {
    /// None where there was no file.
    pub load_balancer: Option<String>,
    pub listeners: Vec<Listener>,
}

#[derive(Debug, Serialize)]
pub struct Listener {
    pub id: String,
    pub vips: Vec<IpAddr>,
    pub port: u16,
    /// In Octavia's words; HTTPS is TCP in its files.
    pub protocol: String,
    /// `xdp` or `haproxy`.
    pub engine: &'static str,
    pub reason: String,
    /// What would make it `xdp`.
    pub change: Option<String>,
    /// The default pool first.
    pub pools: Vec<Pool>,
}

#[derive(Debug, Serialize)]
pub struct Pool {
    pub id: String,
    pub algorithm: &'static str,
    pub persistence: Option<SessionPersistence>,
    pub monitor: Option<HealthMonitor>,
    pub members: Vec<Member>,
}

/// With the keys of Octavia's `session_persistence`.
#[derive(Debug, Serialize)]
pub struct SessionPersistence {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub cookie_name: Option<String>,
    /// Seconds; none where a client is never forgotten for its age.
    pub persistence_timeout: Option<u32>,
}

/// With the keys of Octavia's health monitor. Those of HTTP are null for other types.
#[derive(Debug, Serialize)]
pub struct HealthMonitor {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub delay: u32,
    pub timeout: u32,
    pub rise_threshold: u16,
    pub fall_threshold: u16,
    pub http_method: Option<String>,
    pub url_path: Option<String>,
    pub http_version: Option<String>,
    pub domain_name: Option<String>,
    pub expected_codes: Option<Vec<u16>>,
}

/// Address, port and weight are null for a disabled member of UDP and SCTP, of which the file has the
/// id alone.
#[derive(Debug, Serialize)]
pub struct Member {
    pub id: String,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub weight: Option<u16>,
    pub backup: bool,
    pub enabled: bool,
}

impl Explained {
    fn of(understood: Option<Understood>) -> Self {
        let Some(Understood { load_balancer, listeners }) = understood else {
            return Self { load_balancer: None, listeners: Vec::new() };
        };
        let listeners = listeners.into_iter().map(Listener::of).collect();
        Self { load_balancer: Some(load_balancer), listeners }
    }
}

impl Listener {
    fn of(listener: understood::Listener) -> Self {
        let (engine, reason, change) = match &listener.engine {
            Engine::Xdp => ("xdp", layer_4(&listener), None),
            Engine::Haproxy(why) => ("haproxy", why.to_string(), Some(why.change())),
        };
        Self {
            id: listener.id,
            vips: listener.vips,
            port: listener.port,
            protocol: listener.protocol.to_string(),
            engine,
            reason,
            change,
            pools: listener.pools.into_iter().map(Pool::of).collect(),
        }
    }
}

/// A packet is not carried from one address family to the other, and somebody may count on it.
fn layer_4(listener: &understood::Listener) -> String {
    let members = listener.pools.iter().flat_map(|pool| &pool.members);
    let servers = members.filter(|member| member.enabled).filter_map(|it| it.server.as_ref());
    let reached =
        |address: IpAddr| listener.vips.iter().any(|vip| vip.is_ipv4() == address.is_ipv4());
    match servers.filter(|server| !reached(server.address)).count() {
        0 => "layer 4".to_owned(),
        lost => format!("layer 4; {lost} members are of an address family without a vip"),
    }
}

impl Pool {
    fn of(pool: understood::Pool) -> Self {
        Self {
            id: pool.id,
            algorithm: algorithm(pool.algorithm),
            persistence: pool.persistence.map(SessionPersistence::of),
            monitor: pool.monitor.map(HealthMonitor::of),
            members: pool.members.into_iter().map(Member::of).collect(),
        }
    }
}

/// In Octavia's words.
fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "ROUND_ROBIN",
        Algorithm::LeastConnections => "LEAST_CONNECTIONS",
        Algorithm::SourceIp => "SOURCE_IP",
        Algorithm::SourceIpPort => "SOURCE_IP_PORT",
    }
}

impl SessionPersistence {
    fn of(persistence: Persistence) -> Self {
        let (kind, cookie_name, timeout) = match persistence {
            Persistence::SourceIp(source) => ("SOURCE_IP", None, Some(source.timeout_s)),
            Persistence::HttpCookie => ("HTTP_COOKIE", None, None),
            Persistence::AppCookie { name } => ("APP_COOKIE", Some(name), None),
        };
        let persistence_timeout = timeout.filter(|seconds| *seconds != u32::MAX);
        Self { kind, cookie_name, persistence_timeout }
    }
}

impl HealthMonitor {
    fn in_short(&self) -> String {
        format!("{} every {} s", self.kind, self.delay)
    }

    fn of(monitor: agent_api::Monitor) -> Self {
        let kind = monitor.probe.kind();
        let http = match monitor.probe {
            Probe::Http(http) | Probe::Https(http) => Some(http),
            Probe::Tcp | Probe::TlsHello | Probe::Ping | Probe::UdpConnect | Probe::Sctp => None,
        };
        let version = http.as_ref().and_then(|http| http.version);
        Self {
            kind,
            delay: monitor.delay_s,
            timeout: monitor.timeout_s,
            rise_threshold: monitor.rise,
            fall_threshold: monitor.fall,
            http_version: version.map(|minor| format!("1.{minor}")),
            http_method: http.as_ref().map(|http| http.method.clone()),
            url_path: http.as_ref().map(|http| http.path.clone()),
            domain_name: http.as_ref().and_then(|http| http.host.clone()),
            expected_codes: http.map(|http| http.codes.into_iter().collect()),
        }
    }
}

impl Member {
    fn of(member: understood::Member) -> Self {
        let server = member.server.as_ref();
        Self {
            id: member.id,
            address: server.map(|server| server.address),
            port: server.map(|server| server.port),
            weight: server.map(|server| server.weight),
            backup: server.is_some_and(|server| server.backup),
            enabled: member.enabled,
        }
    }
}

const LISTENERS: [&str; 6] = ["LISTENER", "PROTOCOL", "ADDRESS", "ENGINE", "BECAUSE", "CHANGED BY"];

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(load_balancer) = &self.load_balancer else {
            return writeln!(f, "nothing to explain");
        };
        writeln!(f, "load balancer {load_balancer}\n")?;
        let mut listeners = table(&LISTENERS);
        let mut pools =
            table(&["LISTENER", "POOL", "ALGORITHM", "PERSISTENCE", "MONITOR", "MEMBERS"]);
        let mut members = table(&["POOL", "MEMBER", "ADDRESS", "PORT", "WEIGHT", "STATE"]);
        for listener in &self.listeners {
            let vips: Vec<String> = listener.vips.iter().map(IpAddr::to_string).collect();
            let address = format!("{} port {}", vips.join(", "), listener.port);
            let address = if vips.is_empty() { "-" } else { &address };
            let Listener { id, protocol, engine, reason, change, .. } = listener;
            let change = change.as_deref().unwrap_or("");
            row(&mut listeners, [id, protocol, &address, engine, reason, &change]);
            for pool in &listener.pools {
                let persistence = or_dash(pool.persistence.as_ref().map(|it| it.kind));
                let monitor = or_dash(pool.monitor.as_ref().map(HealthMonitor::in_short));
                let count = pool.members.len();
                row(&mut pools, [id, &pool.id, &pool.algorithm, &persistence, &monitor, &count]);
                for member in &pool.members {
                    let (address, port) = (or_dash(member.address), or_dash(member.port));
                    let weight = or_dash(member.weight);
                    row(
                        &mut members,
                        [&pool.id, &member.id, &address, &port, &weight, &member.state()],
                    );
                }
            }
        }
        writeln!(f, "{listeners}\n\n{pools}\n\n{members}")
    }
}

impl Member {
    fn state(&self) -> &'static str {
        match (self.enabled, self.weight, self.backup) {
            (false, _, _) => "disabled",
            (true, Some(0), _) => "drains",
            (true, _, true) => "backup",
            (true, _, false) => "enabled",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn vector(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(name)
    }

    #[test]
    fn two_files() {
        let files = [vector("haproxy/multi_all_kinds.cfg"), vector("lvs/UDP_member_states.conf")];
        let explained = explain(&files, &Paths::default()).unwrap();
        let shown = |it: &Listener| (it.port, it.protocol.clone(), it.engine, it.reason.clone());
        let shown: Vec<_> = explained.listeners.iter().map(shown).collect();
        let row = |port, protocol: &str, engine, reason: &str| {
            (port, protocol.to_owned(), engine, reason.to_owned())
        };
        let want = [
            row(22, "TCP", "xdp", "layer 4"),
            row(80, "HTTP", "haproxy", "the listener speaks HTTP"),
            row(443, "TERMINATED_HTTPS", "haproxy", "the listener terminates TLS"),
            row(9100, "PROMETHEUS", "haproxy", "the listener serves metrics"),
            row(8443, "TCP", "haproxy", "the listener has no default pool"),
            row(8444, "TCP", "xdp", "layer 4"),
            row(53, "UDP", "xdp", "layer 4"),
        ];
        assert_eq!(shown, want);
        let table = explained.to_string();
        for listener in &explained.listeners {
            assert!(table.contains(&listener.id), "{table}");
        }
    }

    /// The whole of what programs get.
    #[test]
    fn json() {
        let explained =
            explain(&[vector("lvs/UDP_member_states.conf")], &Paths::default()).unwrap();
        let member = |id: &str, last: Option<u8>, weight: Option<u16>| {
            let address = last.map(|last| format!("10.1.0.{last}"));
            serde_json::json!({
                "id": id, "address": address, "port": last.map(|_| 8080), "weight": weight,
                "backup": false, "enabled": last.is_some(),
            })
        };
        let want = serde_json::json!({
            "load_balancer": "40c52c12-68e1-5926-83e7-88107bce47cb",
            "listeners": [{
                "id": "f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3",
                "vips": ["10.0.0.10"],
                "port": 53,
                "protocol": "UDP",
                "engine": "xdp",
                "reason": "layer 4",
                "change": null,
                "pools": [{
                    "id": "f609e499-56b2-59a1-8995-c391176319cf",
                    "algorithm": "ROUND_ROBIN",
                    "persistence": null,
                    "monitor": {
                        "type": "UDP-CONNECT", "delay": 5, "timeout": 4,
                        "rise_threshold": 1, "fall_threshold": 3,
                        "http_method": null, "url_path": null, "http_version": null,
                        "domain_name": null, "expected_codes": null,
                    },
                    "members": [
                        member("4e2ce52c-8e22-53a8-a200-e35e124b1fb7", Some(21), Some(5)),
                        member("b3c2200a-fb20-55a5-8c88-b33e02bd7ed1", Some(22), Some(0)),
                        member("7db97696-1d41-5269-b69d-30cc64509f06", None, None),
                        member("4b1bf36e-2466-5805-aa07-5ca2ad9d33cf", Some(24), Some(1)),
                    ],
                }],
            }],
        });
        assert_eq!(serde_json::to_value(&explained).unwrap(), want);
    }

    #[test]
    fn members_of_another_family() {
        let explained = explain(&[vector("haproxy/vip_v4_ACTIVE_STANDBY.cfg")], &Paths::default());
        let listeners = explained.unwrap().listeners;
        assert_eq!(listeners[0].engine, "xdp");
        let want = "layer 4; 2 members are of an address family without a vip";
        assert_eq!(listeners[0].reason, want);
    }

    #[test]
    fn refused() {
        let hostile = vector("haproxy/neg_l7_regex_newline.cfg");
        let rows = [
            (vec![hostile.clone()], format!("{}: line 27: ", hostile.display())),
            (
                vec![vector("haproxy/none.cfg")],
                format!("{}: ", vector("haproxy/none.cfg").display()),
            ),
            (
                vec![vector("haproxy/timeouts.cfg"), vector("haproxy/timeouts.cfg")],
                "together they cannot be served: ".to_owned(),
            ),
        ];
        for (files, want) in rows {
            let error = explain(&files, &Paths::default()).unwrap_err().to_string();
            assert!(error.starts_with(&want), "{error}");
        }
    }
}
