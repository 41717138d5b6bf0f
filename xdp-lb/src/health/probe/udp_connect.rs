//! A datagram that nobody need answer: only ICMP port unreachable says that nobody is there.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Protocol, Type};
use tokio::time::timeout;

use super::datagram::Datagrams;
use super::failure::Failure;

/// After which silence has passed, whatever the monitor's timeout: `nc -w1` in Octavia's
/// `udp_check.sh`.
const WAIT: Duration = Duration::from_secs(1);

/// Knocks as `nc -uz` does: one byte, twice. An answer passes at once, and silence after a second
/// or `patience`, whichever is less. Of the errors that come back only port unreachable fails
/// (`udptest` of Debian's `netcat.c`), so that a host which is not there passes.
pub async fn knock(at: SocketAddr, patience: Duration) -> Result<(), Failure> {
    let socket = Datagrams::open(at, Type::DGRAM, Protocol::UDP)?;
    socket.send(b"X").map_err(|error| Failure::met("send", &error))?;
    if is_refusal(&socket.send(b"X")) {
        return Err(Failure::Unreachable("port"));
    }
    match timeout(WAIT.min(patience), socket.recv(|_| ())).await {
        Ok(heard) if is_refusal(&heard) => Err(Failure::Unreachable("port")),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn is_refusal(result: &io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
