//! What was understood of the configurations that Octavia uploaded: all listeners, whoever serves them.
//!
//! [`Understood`] is what the uploads say; [`Desired`] is the part of it that the packet path takes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::desired::{self, Algorithm, BadName, Desired, LogFormat};
use crate::monitor::Monitor;
use crate::validate::{Fault, Invalid};

/// A load balancer: its enabled listeners. Those that are disabled are not in Octavia's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Understood {
    /// Octavia's id of the load balancer, a UUID.
    pub load_balancer: String,
    pub listeners: Vec<Listener>,
}

/// A listener, with all of its pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Octavia's id, a UUID.
    pub id: String,
    /// The VIP, then the additional ones, as the file has them. Empty where Octavia renders none: a UDP
    /// or SCTP listener that is disabled, of a disabled load balancer, or without a pool.
    pub vips: Vec<IpAddr>,
    /// 0 where there is no VIP.
    pub port: u16,
    pub protocol: Protocol,
    /// Who serves it, and why.
    pub engine: Engine,
    /// Connections at a time. HAProxy's file always has a number, the controller's default where the
    /// user gave none; keepalived's has none then.
    pub connection_limit: Option<u32>,
    /// Milliseconds without data after which either side is hung up on; 0 for UDP and SCTP, whose
    /// timeouts Octavia leaves to IPVS.
    pub client_timeout_ms: u32,
    pub server_timeout_ms: u32,
    /// Id of the pool for what no rule sends elsewhere.
    pub default_pool: Option<String>,
    /// The default pool first, then those that layer-7 policies name.
    pub pools: Vec<Pool>,
    /// Whether each finished connection is to be logged, and how.
    pub log_format: Option<LogFormat>,
}

/// Octavia's `protocol` of a listener, as far as its files tell: HTTPS is TCP there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Http,
    TerminatedHttps,
    Prometheus,
    Udp,
    Sctp,
}

/// Who serves a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    Xdp,
    /// HAProxy beside it, because of what is in the value.
    Haproxy(Layer7),
}

/// Why a listener needs HAProxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Layer7 {
    #[error("the listener speaks HTTP")]
    Http,
    /// Octavia has them on listeners of HTTP alone; who made this one of TCP is HAProxy's to serve.
    #[error("the listener has rules of layer 7")]
    Rules,
    #[error("the listener terminates TLS")]
    TerminatesTls,
    #[error("the listener serves metrics")]
    Metrics,
    /// HAProxy accepts and closes; a reset would tell the client something else.
    #[error("the listener has no default pool")]
    NoPool,
    #[error("pool {pool} speaks HTTP")]
    HttpPool { pool: String },
    #[error("pool {pool} wants the PROXY protocol")]
    ProxyProtocol { pool: String },
    #[error("pool {pool} wants TLS towards its members")]
    TlsPool { pool: String },
    /// A stream can be carried from one family to the other, a packet of ours cannot.
    #[error("{vip} has no member of its own address family in pool {pool}")]
    OtherFamily { vip: IpAddr, pool: String },
    /// What the packet path does not take, for example a member on a loopback address.
    #[error("{fault}")]
    Unfit { fault: Fault },
}

/// A pool as one listener uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Octavia's id, a UUID.
    pub id: String,
    pub algorithm: Algorithm,
    pub persistence: Option<Persistence>,
    /// None where nothing is probed, and where there is no member to tell what.
    pub monitor: Option<Monitor>,
    pub enabled: bool,
    pub members: Vec<Member>,
}

/// Octavia's `session_persistence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    SourceIp(desired::Persistence),
    /// HAProxy sets a cookie of its own.
    HttpCookie,
    /// The members set the cookie of this name.
    AppCookie {
        name: String,
    },
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Octavia's id, a UUID.
    pub id: String,
    pub enabled: bool,
    /// None for a disabled member of a UDP or SCTP pool, of which the file has the id alone.
    pub server: Option<Server>,
}

/// Where a member is, and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: IpAddr,
    pub port: u16,
    /// 0 to 256; 0 drains.
    pub weight: u16,
    pub backup: bool,
    /// Where its probes go, if not to the member itself.
    pub probed_at: Option<SocketAddr>,
}

/// Why listeners cannot be served together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    #[error("load balancer: {0}")]
    Name(#[from] BadName),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Octavia renders a pool once for each of its listeners, and each time alike in one file.
    #[error("pool {pool} of listener {listener} is not what another listener has of it")]
    PoolDiffers { pool: String, listener: String },
}

impl Layer7 {
    /// What would make the listener the packet path's, for whoever may change it in Octavia.
    pub fn change(&self) -> String {
        match self {
            Self::Http => "a listener of protocol TCP".to_owned(),
            Self::Rules => "a listener without layer-7 policies".to_owned(),
            Self::TerminatesTls => {
                "a listener of protocol HTTPS, whose members terminate TLS".to_owned()
            }
            Self::Metrics => "nothing: metrics are HTTP".to_owned(),
            Self::NoPool => "a default pool".to_owned(),
            Self::HttpPool { .. } => "a listener and a pool of protocol TCP".to_owned(),
            Self::ProxyProtocol { .. } => {
                "a pool of protocol TCP, whose members do not see the client's address".to_owned()
            }
            Self::TlsPool { .. } => "a pool without tls_enabled".to_owned(),
            Self::OtherFamily { vip, .. } => {
                let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
                format!("a member with an {family} address, or no such VIP")
            }
            Self::Unfit { .. } => "a configuration without that".to_owned(),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Http => "HTTP",
            Self::TerminatedHttps => "TERMINATED_HTTPS",
            Self::Prometheus => "PROMETHEUS",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl Understood {
    /// What the packet path takes of it, without contradictions.
    pub fn desired(&self) -> Result<Desired, Unserved> {
        let mut desired = Desired {
            name: self.load_balancer.clone().try_into()?,
            listeners: Vec::new(),
            pools: Vec::new(),
        };
        for listener in self.listeners.iter().filter(|listener| listener.is_forwarded()) {
            desired.listeners.push(listener.desired());
            for pool in listener.pools.iter().map(Pool::desired) {
                match desired.pools.iter().find(|known| known.id == pool.id) {
                    None => desired.pools.push(pool),
                    Some(known) if *known == pool => {}
                    Some(_) => {
                        let (pool, listener) = (pool.id, listener.id.clone());
                        return Err(Unserved::PoolDiffers { pool, listener });
                    }
                }
            }
        }
        desired.validate()?;
        Ok(desired)
    }
}

impl Listener {
    /// One without a VIP has nothing to forward.
    fn is_forwarded(&self) -> bool {
        self.engine == Engine::Xdp && !self.vips.is_empty()
    }

    /// A document of this listener and its pools.
    pub(crate) fn alone(&self) -> Desired {
        Desired {
            name: desired::Name::any(),
            listeners: vec![self.desired()],
            pools: self.pools.iter().map(Pool::desired).collect(),
        }
    }

    fn desired(&self) -> desired::Listener {
        let protocol = match self.protocol {
            Protocol::Udp => desired::Protocol::Udp,
            Protocol::Sctp => desired::Protocol::Sctp,
            Protocol::Tcp | Protocol::Http | Protocol::TerminatedHttps | Protocol::Prometheus => {
                desired::Protocol::Tcp
            }
        };
        // HAProxy hangs up when either side was silent for its time. A flow is one, and must not be
        // forgotten while one side may still speak.
        let silence_s = self.client_timeout_ms.max(self.server_timeout_ms).div_ceil(1000);
        desired::Listener {
            id: self.id.clone(),
            vips: self.vips.clone(),
            port: self.port,
            protocol,
            pool: self.default_pool.clone(),
            enabled: true,
            connection_limit: self.connection_limit,
            allowed_networks: Vec::new(),
            idle_timeout_s: if silence_s == 0 { protocol.idle_timeout_s() } else { silence_s },
            log_format: self.log_format.clone(),
        }
    }
}

impl Pool {
    fn desired(&self) -> desired::Pool {
        // A cookie is nothing that a packet has; HAProxy does without it too where it does not see HTTP.
        let persistence = self.persistence.as_ref().and_then(|persistence| match persistence {
            Persistence::SourceIp(source) => Some(*source),
            Persistence::HttpCookie | Persistence::AppCookie { .. } => None,
        });
        desired::Pool {
            id: self.id.clone(),
            algorithm: self.algorithm,
            persistence,
            monitor: self.monitor.clone(),
            enabled: self.enabled,
            members: self.members.iter().filter_map(Member::desired).collect(),
        }
    }
}

impl Member {
    fn desired(&self) -> Option<desired::Member> {
        let server = self.server.as_ref()?;
        Some(desired::Member {
            id: self.id.clone(),
            address: server.address,
            port: server.port,
            weight: server.weight,
            backup: server.backup,
            enabled: self.enabled,
            probed_at: server.probed_at,
        })
    }
}
