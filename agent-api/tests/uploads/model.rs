//! Octavia's model of a load balancer, from which the files of the vectors were rendered, and what must
//! be understood of it. Written from what Octavia promises, not from the files.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use agent_api::understood::{self, Persistence, Protocol, Server};
use agent_api::{Algorithm, HttpProbe, Monitor, OnMarkedDown, Probe};
use serde::Deserialize;
use serde_json::Value;

/// The sidecar of a vector.
#[derive(Deserialize)]
pub struct Vector {
    pub name: String,
    pub load_balancer: LoadBalancer,
    #[serde(default)]
    pub conf: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
pub struct LoadBalancer {
    pub id: String,
    pub enabled: bool,
    pub vip_address: IpAddr,
    pub additional_vips: Vec<IpAddr>,
    pub listeners: Vec<Listener>,
    pub pools: Vec<Pool>,
}

#[derive(Deserialize)]
pub struct Listener {
    pub id: String,
    pub enabled: bool,
    pub protocol: String,
    pub protocol_port: u16,
    pub connection_limit: Option<i64>,
    pub default_pool_id: Option<String>,
    pub pools: Vec<String>,
    pub timeout_client_data: Option<u32>,
    pub timeout_member_data: Option<u32>,
}

#[derive(Deserialize)]
pub struct Pool {
    pub id: String,
    pub enabled: bool,
    pub protocol: String,
    pub lb_algorithm: String,
    pub provisioning_status: String,
    pub session_persistence: Option<SessionPersistence>,
    pub health_monitor: Option<HealthMonitor>,
    pub tls_enabled: bool,
    pub members: Vec<Member>,
}

#[derive(Deserialize)]
pub struct SessionPersistence {
    #[serde(rename = "type")]
    pub kind: String,
    pub cookie_name: Option<String>,
}

#[derive(Deserialize)]
pub struct HealthMonitor {
    pub enabled: bool,
    pub provisioning_status: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub delay: u32,
    pub timeout: u32,
    pub fall_threshold: u16,
    pub rise_threshold: u16,
    pub http_method: Option<String>,
    pub http_version: Option<f64>,
    pub url_path: Option<String>,
    pub expected_codes: Option<String>,
    pub domain_name: Option<String>,
}

#[derive(Deserialize)]
pub struct Member {
    pub id: String,
    pub enabled: bool,
    pub backup: bool,
    pub ip_address: IpAddr,
    pub protocol_port: u16,
    pub weight: u16,
    pub monitor_address: Option<IpAddr>,
    pub monitor_port: Option<u16>,
    pub provisioning_status: String,
}

/// Each vector of a folder, its text and its sidecar; at least so many.
pub fn vectors(folder: &str, extension: &str, least: usize) -> Vec<(String, Vector)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(folder);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(files.len() >= least, "{} in {}", files.len(), folder.display());
    let read = |file: PathBuf| {
        let sidecar = fs::read(file.with_extension("json")).unwrap();
        let vector = serde_json::from_slice(&sidecar);
        let vector = vector.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (fs::read_to_string(file).unwrap(), vector)
    };
    files.into_iter().map(read).collect()
}

/// What must be understood of a listener, and whether the packet path serves it.
pub struct Wanted {
    pub listener: understood::Listener,
    pub forwarded: bool,
}

impl Vector {
    pub fn vips(&self) -> Vec<IpAddr> {
        let lb = &self.load_balancer;
        std::iter::once(lb.vip_address).chain(lb.additional_vips.iter().copied()).collect()
    }

    /// The listeners that HAProxy's file must hold.
    pub fn haproxy(&self) -> Vec<Wanted> {
        let lb = &self.load_balancer;
        let there = |listener: &&Listener| {
            lb.enabled && listener.enabled && !matches!(&listener.protocol[..], "UDP" | "SCTP")
        };
        lb.listeners.iter().filter(there).map(|listener| self.haproxy_listener(listener)).collect()
    }

    fn haproxy_listener(&self, listener: &Listener) -> Wanted {
        let limit = self.conf.get("haproxy_amphora.default_connection_limit");
        let limit_default = limit.and_then(Value::as_u64).unwrap_or(50_000) as u32;
        let limit = listener.connection_limit.filter(|limit| *limit > 0);
        let pools = || self.load_balancer.pools.iter().filter(|pool| pool.enabled);
        let is_default = |pool: &&Pool| {
            Some(&pool.id) == listener.default_pool_id.as_ref()
                && pool.provisioning_status != "PENDING_DELETE"
        };
        let default = pools().find(is_default);
        let mut own: Vec<&Pool> =
            pools().filter(|pool| listener.pools.contains(&pool.id)).collect();
        own.sort_by_key(|pool| (!is_default(pool), pool.id.clone()));
        let timeout = |set: Option<u32>| set.filter(|ms| *ms > 0).unwrap_or(50_000);
        let server_timeout = timeout(listener.timeout_member_data);
        let forwarded = matches!(&listener.protocol[..], "TCP" | "HTTPS")
            && default.is_some_and(|pool| {
                matches!(&pool.protocol[..], "TCP" | "HTTPS") && !pool.tls_enabled
            });
        let listener = understood::Listener {
            id: listener.id.clone(),
            vips: self.vips(),
            port: listener.protocol_port,
            protocol: match &listener.protocol[..] {
                "TCP" | "HTTPS" => Protocol::Tcp,
                "HTTP" => Protocol::Http,
                "TERMINATED_HTTPS" => Protocol::TerminatedHttps,
                "PROMETHEUS" => Protocol::Prometheus,
                other => panic!("{other}"),
            },
            engine: understood::Engine::Xdp,
            connection_limit: Some(limit.map_or(limit_default, |limit| limit as u32)),
            client_timeout_ms: timeout(listener.timeout_client_data),
            server_timeout_ms: default.map_or(0, |_| server_timeout),
            default_pool: default.map(|pool| pool.id.clone()),
            pools: own.into_iter().map(Pool::haproxy).collect(),
            log_format: None,
        };
        Wanted { listener, forwarded }
    }
}

impl Pool {
    fn haproxy(&self) -> understood::Pool {
        let persistence = self.session_persistence.as_ref().map(|it| match &it.kind[..] {
            "SOURCE_IP" => Persistence::SourceIp(agent_api::Persistence {
                timeout_s: u32::MAX,
                ..Default::default()
            }),
            "HTTP_COOKIE" => Persistence::HttpCookie,
            "APP_COOKIE" => Persistence::AppCookie { name: it.cookie_name.clone().unwrap() },
            other => panic!("{other}"),
        });
        let members: Vec<&Member> =
            self.members.iter().filter(|it| it.provisioning_status != "PENDING_DELETE").collect();
        let monitor = self.monitor().filter(|_| !members.is_empty());
        let probed = monitor.is_some();
        understood::Pool {
            id: self.id.clone(),
            algorithm: self.algorithm(),
            persistence,
            monitor: monitor.map(|monitor| monitor.understood(monitor.rise_threshold, true)),
            enabled: true,
            members: members.into_iter().map(|member| member.understood(probed)).collect(),
        }
    }

    fn monitor(&self) -> Option<&HealthMonitor> {
        let monitor = self.health_monitor.as_ref()?;
        (monitor.enabled && monitor.provisioning_status != "PENDING_DELETE").then_some(monitor)
    }

    fn algorithm(&self) -> Algorithm {
        match &self.lb_algorithm[..] {
            "ROUND_ROBIN" => Algorithm::RoundRobin,
            "LEAST_CONNECTIONS" => Algorithm::LeastConnections,
            "SOURCE_IP" => Algorithm::SourceIp,
            other => panic!("{other}"),
        }
    }
}

impl HealthMonitor {
    fn understood(&self, rise: u16, haproxy: bool) -> Monitor {
        let http = || HttpProbe {
            method: self.http_method.clone().unwrap(),
            path: self.url_path.clone().unwrap(),
            version: self.http_version.map(|version| if version > 1.05 { 1 } else { 0 }),
            host: self.domain_name.clone().filter(|_| self.http_version == Some(1.1)),
            codes: codes(self.expected_codes.as_deref().unwrap()),
        };
        let plain = |http: HttpProbe| match haproxy {
            true => http,
            false => HttpProbe { version: None, host: None, ..http },
        };
        Monitor {
            probe: match &self.kind[..] {
                "TCP" | "TLS-HELLO" => Probe::Tcp,
                "HTTP" => Probe::Http(plain(http())),
                "HTTPS" => Probe::Https(http()),
                "PING" => Probe::Ping,
                "UDP-CONNECT" => Probe::UdpConnect,
                "SCTP" => Probe::Sctp,
                other => panic!("{other}"),
            },
            delay_s: self.delay,
            timeout_s: self.timeout,
            on_marked_down: OnMarkedDown::Keep,
            rise,
            fall: self.fall_threshold,
        }
    }
}

impl Member {
    fn understood(&self, probed: bool) -> understood::Member {
        let elsewhere = probed && (self.monitor_address.is_some() || self.monitor_port.is_some());
        let at = SocketAddr::new(
            self.monitor_address.unwrap_or(self.ip_address),
            self.monitor_port.unwrap_or(self.protocol_port),
        );
        understood::Member {
            id: self.id.clone(),
            enabled: self.enabled,
            server: Some(Server {
                address: self.ip_address,
                port: self.protocol_port,
                weight: self.weight,
                backup: self.backup,
                probed_at: elsewhere.then_some(at),
            }),
        }
    }
}

/// `200`, `200,202` or `200-204`.
fn codes(text: &str) -> BTreeSet<u16> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.trim().parse::<u16>().unwrap()..=last.trim().parse::<u16>().unwrap()
    };
    text.split(',').flat_map(part).collect()
}
