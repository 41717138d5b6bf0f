//! One probe of a member.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use agent_api::Probe;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// What probes share; made once, on the thread that makes them.
#[derive(Debug)]
pub struct Prober(());

/// How long a probe may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until the connection is there.
    pub connect: Duration,
    /// From then on, until the answer.
    pub read: Duration,
}

/// Why a probe failed, for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Prober {
    pub fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    pub async fn probe(
        &self,
        _what: &Probe,
        at: SocketAddr,
        patience: Patience,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure(error.to_string());
        let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(failed)?;
        let stream = match timeout(patience.connect, socket.connect(at)).await {
            Ok(connected) => connected.map_err(failed)?,
            Err(_) => return Err(Failure("no connection in time".to_owned())),
        };
        // Closed by a reset: no port is kept for what is over.
        let reset = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &reset).map_err(|errno| failed(errno.into()))
    }
}
