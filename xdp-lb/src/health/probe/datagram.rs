//! A socket for datagrams that hears one member only, and what ICMP says of the way there.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::Duration;

use etherparse::Ipv4HeaderSlice;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use rustix::rand::{GetRandomFlags, getrandom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::failure::Failure;

/// Bytes of a packet that are looked at: an IPv4 header of any length, and what ICMP and SCTP put
/// at their beginnings.
const BYTES_MAX: usize = 128;
/// Packets that are looked at for one answer. Others come from a member that sends them unasked, and
/// answers to other probes of the same address: some members may share one.
const PACKETS_MAX: usize = 256;
/// What ICMP reports makes a socket no more readable.
const HEARD: Interest = Interest::READABLE.add(Interest::ERROR);

pub struct Datagrams {
    socket: AsyncFd<Socket>,
    /// Raw sockets of IPv4 show the IP header, those of IPv6 do not.
    has_header: bool,
}

impl Datagrams {
    /// Raw sockets have no port, and do not look at that of `to`.
    pub fn open(mut to: SocketAddr, kind: Type, protocol: Protocol) -> Result<Self, Failure> {
        if kind == Type::RAW {
            to.set_port(0);
        }
        let made = Socket::new(Domain::for_address(to), kind.nonblocking(), Some(protocol));
        let socket = made.map_err(|error| Failure::ours("socket", &error))?;
        // Else ICMP tells only of the worst, and only TCP of the others.
        let told = match to {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true),
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true),
        };
        told.map_err(|errno| Failure::Ours { call: "IP_RECVERR", errno })?;
        socket.connect(&to.into()).map_err(|error| Failure::met("connect", &error))?;
        // SAFETY: a `Socket` is one descriptor, open until it is dropped, and nothing takes it out
        // of the `AsyncFd`.
        let socket = unsafe { AsyncFd::register_with_interest(socket, HEARD) };
        let socket = socket.map_err(|error| Failure::ours("epoll", &error.into()))?;
        Ok(Self { socket, has_header: kind == Type::RAW && to.is_ipv4() })
    }

    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(packet).map(drop)
    }

    /// Waits for a datagram, of which `read` makes something of the first bytes; or for an error
    /// that ICMP reports.
    pub async fn recv<T>(&self, mut read: impl FnMut(&[u8]) -> T) -> io::Result<T> {
        let mut bytes = [0; BYTES_MAX];
        let heard = |mut socket: &Socket| socket.read(&mut bytes);
        let length = self.socket.async_io(HEARD, heard).await?;
        let packet = &bytes[..length];
        if !self.has_header {
            return Ok(read(packet));
        }
        let header = Ipv4HeaderSlice::from_slice(packet)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(read(&packet[header.slice().len()..]))
    }

    /// The first packet of which `read` makes something.
    pub async fn answer<T>(
        &self,
        patience: Duration,
        mut read: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T, Failure> {
        let heard = async {
            for _ in 0..PACKETS_MAX {
                match self.recv(&mut read).await {
                    Ok(Some(answer)) => return Ok(answer),
                    Ok(None) => {}
                    Err(error) => return Err(Failure::met("recv", &error)),
                }
            }
            Err(Failure::Noise(PACKETS_MAX))
        };
        let answered = timeout(patience, heard).await;
        answered.map_err(|_| Failure::Late { awaited: "answer", within: patience })?
    }
}

/// What nobody but the member that is asked can know.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    // So few are given whole.
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| Failure::ours("getrandom", &errno.into()))?;
    Ok(bytes)
}
