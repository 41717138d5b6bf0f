//! How the members of a pool are probed: Octavia's health monitor.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What is done to each enabled member, how often, and how many results in a row turn it.
///
/// HAProxy's words for the numbers are `inter`, `timeout check`, `rise` and `fall`; keepalived's are
/// `delay_loop`, `connect_timeout` or `misc_timeout`, and `retry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Monitor {
    pub probe: Probe,
    /// Seconds between two probes of a member.
    pub delay_s: u32,
    /// Seconds after which a probe has failed.
    pub timeout_s: u32,
    /// Successes in a row that bring a member back. Always 1 for UDP and SCTP pools, as in keepalived.
    pub rise: u16,
    /// Failures in a row that take a member out; in UDP and SCTP pools one more, as in keepalived.
    pub fall: u16,
    pub on_marked_down: OnMarkedDown,
}

/// What becomes of the flows of a member that was taken out (HAProxy's `on-marked-down`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMarkedDown {
    /// They go on, as HAProxy has it where nobody asks for more.
    #[default]
    Keep,
    /// They end: the client's next segment is answered by a reset, its next datagram opens a new flow.
    Reset,
}

/// Octavia's `type` of a health monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A connection. Octavia 19 renders TLS-HELLO as this too, and nothing tells them apart.
    Tcp,
    /// A TLS handshake up to the server's hello (`option ssl-hello-chk`, Octavia 11).
    TlsHello,
    Http(HttpProbe),
    /// HTTP over TLS, whatever certificate the member shows.
    Https(HttpProbe),
    /// An ICMP echo.
    Ping,
    /// A datagram that must not be answered by ICMP port unreachable.
    UdpConnect,
    /// An INIT that is answered by an INIT ACK.
    Sctp,
}

impl Probe {
    /// Octavia's word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::TlsHello => "TLS-HELLO",
            Self::Http(_) => "HTTP",
            Self::Https(_) => "HTTPS",
            Self::Ping => "PING",
            Self::UdpConnect => "UDP-CONNECT",
            Self::Sctp => "SCTP",
        }
    }
}

/// `TCP every 5 s`.
impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} every {} s", self.probe.kind(), self.delay_s)
    }
}

/// A request, and what must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    pub method: String,
    pub path: String,
    /// Minor version, 0 or 1. `None`: not said, and HAProxy asks by HTTP/1.0 without a Host.
    pub version: Option<u8>,
    /// The Host header (Octavia's `domain_name`).
    pub host: Option<String>,
    /// A member that answers with any of these is well.
    pub codes: BTreeSet<u16>,
}

/// A monitor as it is written: flat, and most of it has a default.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default = "delay_s")]
    delay_s: u32,
    timeout_s: Option<u32>,
    #[serde(default = "rise")]
    rise: u16,
    #[serde(default = "fall")]
    fall: u16,
    #[serde(default)]
    on_marked_down: OnMarkedDown,
    method: Option<String>,
    path: Option<String>,
    version: Option<Version>,
    host: Option<String>,
    codes: Option<BTreeSet<u16>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Tcp,
    TlsHello,
    Http,
    Https,
    Ping,
    UdpConnect,
    Sctp,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "1.0")]
    Zero,
    #[serde(rename = "1.1")]
    One,
}

/// A key that says how to ask by HTTP, of a monitor that does not.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` is of monitors of type \"http\" and \"https\" alone")]
struct NotHttp {
    key: &'static str,
}

fn delay_s() -> u32 {
    5
}

/// Long enough for a segment that was lost to be sent again (1 s, RFC 6298), and no longer than the
/// delay.
fn timeout_s(delay_s: u32) -> u32 {
    delay_s.min(3)
}

/// HAProxy's default.
fn rise() -> u16 {
    2
}

/// HAProxy's default, and Octavia's.
fn fall() -> u16 {
    3
}

impl TryFrom<Written> for Monitor {
    type Error = NotHttp;

    fn try_from(written: Written) -> Result<Self, NotHttp> {
        let Written { kind, delay_s, rise, fall, on_marked_down, .. } = written;
        let timeout_s = written.timeout_s.unwrap_or(timeout_s(delay_s));
        let probe = match kind {
            Kind::Http => Probe::Http(written.http()),
            Kind::Https => Probe::Https(written.http()),
            Kind::Tcp => written.not_http(Probe::Tcp)?,
            Kind::TlsHello => written.not_http(Probe::TlsHello)?,
            Kind::Ping => written.not_http(Probe::Ping)?,
            Kind::UdpConnect => written.not_http(Probe::UdpConnect)?,
            Kind::Sctp => written.not_http(Probe::Sctp)?,
        };
        Ok(Self { probe, delay_s, timeout_s, rise, fall, on_marked_down })
    }
}

impl Written {
    fn http(self) -> HttpProbe {
        HttpProbe {
            method: self.method.unwrap_or_else(|| "GET".to_owned()),
            path: self.path.unwrap_or_else(|| "/".to_owned()),
            version: self.version.map(|version| match version {
                Version::Zero => 0,
                Version::One => 1,
            }),
            host: self.host,
            codes: self.codes.unwrap_or_else(|| BTreeSet::from([200])),
        }
    }

    fn not_http(self, probe: Probe) -> Result<Probe, NotHttp> {
        let keys = [
            ("method", self.method.is_some()),
            ("path", self.path.is_some()),
            ("version", self.version.is_some()),
            ("host", self.host.is_some()),
            ("codes", self.codes.is_some()),
        ];
        match keys.into_iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(NotHttp { key }),
            None => Ok(probe),
        }
    }
}

impl From<Monitor> for Written {
    fn from(monitor: Monitor) -> Self {
        let Monitor { probe, delay_s, timeout_s, rise, fall, on_marked_down } = monitor;
        let (kind, http) = match probe {
            Probe::Tcp => (Kind::Tcp, None),
            Probe::TlsHello => (Kind::TlsHello, None),
            Probe::Http(http) => (Kind::Http, Some(http)),
            Probe::Https(http) => (Kind::Https, Some(http)),
            Probe::Ping => (Kind::Ping, None),
            Probe::UdpConnect => (Kind::UdpConnect, None),
            Probe::Sctp => (Kind::Sctp, None),
        };
        let timeout_s = Some(timeout_s);
        let (mut method, mut path, mut version, mut host, mut codes) = Default::default();
        if let Some(http) = http {
            (method, path) = (Some(http.method), Some(http.path));
            version =
                http.version.map(|minor| if minor == 0 { Version::Zero } else { Version::One });
            (host, codes) = (http.host, Some(http.codes));
        }
        Self {
            kind,
            delay_s,
            timeout_s,
            rise,
            fall,
            on_marked_down,
            method,
            path,
            version,
            host,
            codes,
        }
    }
}
