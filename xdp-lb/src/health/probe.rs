//! One probe of one member: what is sent to it, and whether what comes back says that it is well.
//!
//! Everything that a member sends is hostile input: what is read of it is bounded in bytes, packets
//! and time, and never kept but for a few bytes in a [`Failure`].

mod datagram;
mod failure;
mod http;
mod ping;

mod sctp;
mod tcp;
mod tls;
mod udp_connect;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use agent_api::Probe;

pub use failure::{Failure, Seen};
pub use sctp::init;

use sctp::Sctp;
use tls::Tls;

/// What probes share. Each has a socket of its own, which the kernel lets hear one member only, so
/// that none can drown another's answers.
///
/// Sockets belong to the network namespace of the thread that makes them: make this on the thread
/// that probes, and probe on that thread. Needs a runtime with IO and time; PING and SCTP,
/// `CAP_NET_RAW`.
pub struct Prober {
    tls: Tls,
    sctp: Sctp,
}

/// How long a member may take.
///
/// PING, UDP-CONNECT and SCTP have nothing to connect; for them `read` is all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the connection, and for HTTPS the TLS handshake as well. HAProxy: the smaller of
    /// `timeout connect` and `inter`.
    pub connect: Duration,
    /// For all that comes after it, in addition. HAProxy: `timeout check`.
    pub read: Duration,
}

impl Prober {
    /// Fails where OpenSSL has no TLS to offer, or no port is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { tls: Tls::new()?, sctp: Sctp::new()? })
    }

    /// Probes once. From which address is the kernel's choice, by route: that of the port.
    pub async fn probe(
        &self,
        what: &Probe,
        at: SocketAddr,
        patience: Patience,
    ) -> Result<(), Failure> {
        match what {
            Probe::Tcp => tcp::connect(at, patience.connect).await.map(drop),
            Probe::TlsHello => {
                let stream = tcp::connect(at, patience.connect).await?;
                self.tls.hello(stream, patience.read).await
            }
            Probe::Http(request) => {
                let stream = tcp::connect(at, patience.connect).await?;
                http::ask(stream, request, patience.read).await
            }
            Probe::Https(request) => {
                let stream = self.tls.connect(at, patience.connect).await?;
                http::ask(stream, request, patience.read).await
            }
            Probe::Ping => ping::echo(at, patience.read).await,
            Probe::UdpConnect => udp_connect::knock(at, patience.read).await,
            Probe::Sctp => self.sctp.init(at, patience.read).await,
        }
    }
}
