//! A TCP connection to a member, which is all that a TCP monitor asks for.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::failure::Failure;

/// Connects. When the stream is dropped the connection ends with a reset, as HAProxy's checks do:
/// there is no TIME_WAIT, and a member that does not close costs nothing.
pub async fn connect(at: SocketAddr, patience: Duration) -> Result<TcpStream, Failure> {
    let made = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = made.map_err(|error| Failure::ours("socket", &error))?;
    socket.set_zero_linger().map_err(|error| Failure::ours("SO_LINGER", &error))?;
    // The handshake's last segment waits for what follows, which is the request or the reset
    // (HAProxy `CONNECT_DELACK_ALWAYS`): a segment less, and a TCP monitor is not even seen by the
    // member's program.
    let delayed = SockRef::from(&socket).set_tcp_quickack(false);
    delayed.map_err(|error| Failure::ours("TCP_QUICKACK", &error))?;
    match timeout(patience, socket.connect(at)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Failure::met("connect", &error)),
        Err(_) => Err(Failure::Late { awaited: "connection", within: patience }),
    }
}
