//! How the members of a pool are probed: Octavia's health monitor.

use std::collections::BTreeSet;

/// What is done to each enabled member, how often, and how many results in a row turn it.
///
/// HAProxy's words for the numbers are `inter`, `timeout check`, `rise` and `fall`; keepalived's are
/// `delay_loop`, `connect_timeout` or `misc_timeout`, and `retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    pub probe: Probe,
    /// Seconds between two probes of a member.
    pub delay_s: u32,
    /// Seconds after which a probe has failed.
    pub timeout_s: u32,
    /// Successes in a row that bring a member back. Always 1 for UDP and SCTP pools, as in keepalived.
    pub rise: u16,
    /// Failures in a row that take a member out.
    pub fall: u16,
}

/// What becomes of the flows of a member that was taken out (HAProxy's `on-marked-down`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
