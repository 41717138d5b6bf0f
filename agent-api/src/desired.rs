//! What the controller wants of a load balancer, in our own types and Octavia's words.
//!
//! One document, whether it was parsed from Octavia's configurations, stands in a file of TOML or
//! is kept as JSON: serde gives each the same keys. A key that nobody knows is an error. What the
//! types cannot refuse, [`Desired::validate`] does.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;
use crate::monitor::Monitor;

/// A load balancer: what it listens on, and where it sends that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    pub name: Name,
    #[serde(rename = "listener", default)]
    pub listeners: Vec<Listener>,
    #[serde(rename = "pool", default)]
    pub pools: Vec<Pool>,
}

/// The name of a load balancer: 1 to 36 of `a-z`, `0-9` and `-`.
///
/// It becomes a directory of bpffs, which refuses dots; an Octavia UUID fits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text that is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("name {0:?} is not 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -")]
pub struct BadName(pub String);

/// One protocol and port on one or more virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenListener")]
pub struct Listener {
    pub id: String,
    /// At least one; of both families if wanted.
    pub vips: Vec<IpAddr>,
    pub port: u16,
    pub protocol: Protocol,
    /// Id of the default pool. Without one every new connection is refused.
    pub pool: Option<String>,
    pub enabled: bool,
    /// Connections at a time; `None` for no limit of its own.
    pub connection_limit: Option<u32>,
    /// Clients that may connect; empty lets everybody. Bits right of the prefix do not count.
    pub allowed_networks: Vec<IpNet>,
    /// Seconds after its last packet that a flow is forgotten.
    pub idle_timeout_s: u32,
    /// How its finished connections are logged, if so; of TCP alone. Not a key of the file.
    #[serde(skip)]
    pub log_format: Option<LogFormat>,
}

/// What HAProxy is told of logs: `log-format`, and the facility of `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFormat {
    /// As HAProxy takes it, one word: the file's escapes are undone.
    pub text: String,
    /// Of syslog's `local` facilities, 0 to 7.
    pub facility: u8,
}

/// What is forwarded; by its IANA number in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Members that share the connections of the listeners that name the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub id: String,
    pub algorithm: Algorithm,
    pub persistence: Option<Persistence>,
    /// How its members are probed; without one all of them count as up.
    pub monitor: Option<Monitor>,
    #[serde(default = "enabled")]
    pub enabled: bool,
    #[serde(rename = "member", default)]
    pub members: Vec<Member>,
}

/// Octavia's `lb_algorithm`. All of them respect weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    RoundRobin,
    LeastConnections,
    SourceIp,
    SourceIpPort,
}

/// Octavia's session persistence SOURCE_IP: a client's later connections go to its first member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Persistence {
    /// Seconds after its last new connection that a client is forgotten.
    pub timeout_s: u32,
    /// Leading bits that make two IPv4 addresses one client, 1 to 32 (`persistence_granularity`).
    pub prefix4: u8,
    /// The same for IPv6, 1 to 128.
    pub prefix6: u8,
}

/// A server that takes a share of its pool's connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenMember", into = "WrittenMember")]
pub struct Member {
    /// Unique among the members of all pools, as Octavia's are: counters are kept by it.
    pub id: String,
    pub address: IpAddr,
    pub port: u16,
    /// 0 to 256: its share against the others. 0 drains: flows go on, new ones go elsewhere.
    pub weight: u16,
    /// Used only while no other member is up.
    pub backup: bool,
    pub enabled: bool,
    /// Where its probes go instead (Octavia's `monitor_address` and `monitor_port`).
    pub probed_at: Option<SocketAddr>,
}

impl Name {
    /// For a document that nobody sees.
    pub(crate) fn any() -> Self {
        Self("any".to_owned())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        let known = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if fits && text.bytes().all(known) { Ok(Self(text)) } else { Err(BadName(text)) }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Protocol {
    /// The idle timeout of a listener that names none: that of what forwards it in a stock amphora.
    ///
    /// TCP goes through HAProxy, with Octavia's `timeout_client_data` of 50 s. UDP and SCTP go
    /// through IPVS: 300 s (`ip_vs_proto_udp.c`) and, once established, 900 s
    /// (`ip_vs_proto_sctp.c`).
    pub const fn idle_timeout_s(self) -> u32 {
        match self {
            Self::Tcp => 50,
            Self::Udp => 300,
            Self::Sctp => 900,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Six minutes for each single address: keepalived's defaults, which Octavia leaves as they are.
impl Default for Persistence {
    fn default() -> Self {
        Self { timeout_s: 360, prefix4: 32, prefix6: 128 }
    }
}

/// A listener as it is written: the default of one key depends on another.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenListener {
    id: String,
    vips: Vec<IpAddr>,
    port: u16,
    protocol: Protocol,
    pool: Option<String>,
    #[serde(default = "enabled")]
    enabled: bool,
    connection_limit: Option<u32>,
    #[serde(default)]
    allowed_networks: Vec<IpNet>,
    idle_timeout_s: Option<u32>,
}

impl From<WrittenListener> for Listener {
    fn from(written: WrittenListener) -> Self {
        Self {
            id: written.id,
            vips: written.vips,
            port: written.port,
            protocol: written.protocol,
            pool: written.pool,
            enabled: written.enabled,
            connection_limit: written.connection_limit,
            allowed_networks: written.allowed_networks,
            idle_timeout_s: written.idle_timeout_s.unwrap_or(written.protocol.idle_timeout_s()),
            log_format: None,
        }
    }
}

/// A member as it is written: where its probes go may be said in half.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMember {
    id: String,
    address: IpAddr,
    port: u16,
    #[serde(default = "weight")]
    weight: u16,
    #[serde(default)]
    backup: bool,
    #[serde(default = "enabled")]
    enabled: bool,
    monitor_address: Option<IpAddr>,
    monitor_port: Option<u16>,
}

impl From<WrittenMember> for Member {
    fn from(written: WrittenMember) -> Self {
        let WrittenMember { id, address, port, weight, backup, enabled, .. } = written;
        let (probed, its_port) = (written.monitor_address, written.monitor_port);
        let elsewhere = probed.is_some() || its_port.is_some();
        let at = SocketAddr::new(probed.unwrap_or(address), its_port.unwrap_or(port));
        let probed_at = elsewhere.then_some(at);
        Self { id, address, port, weight, backup, enabled, probed_at }
    }
}

impl From<Member> for WrittenMember {
    fn from(member: Member) -> Self {
        let Member { id, address, port, weight, backup, enabled, probed_at } = member;
        let monitor_address = probed_at.map(|at| at.ip());
        let monitor_port = probed_at.map(|at| at.port());
        Self { id, address, port, weight, backup, enabled, monitor_address, monitor_port }
    }
}

fn enabled() -> bool {
    true
}

fn weight() -> u16 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let uuid = "8a562351-f0fb-424c-a0af-e0b2a7b3c7d1";
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        let rows = [
            ("a uuid", uuid, true),
            ("one letter", "a", true),
            ("empty", "", false),
            ("too long", &long, false),
            ("a capital", "Web", false),
            ("a parent directory", "..", false),
            ("a path", "a/b", false),
            ("a letter of two bytes", "caf\u{e9}", false),
        ];
        for (row, text, good) in rows {
            let name = Name::try_from(text.to_owned());
            let want = if good { Ok(text) } else { Err(BadName(text.to_owned())) };
            assert_eq!(name.as_ref().map(Name::as_str), want.as_ref().copied(), "{row}");
        }
    }
}
