//! VRRP's election, waited for, so that who starts VRRP does not go on while the VIPs are nowhere.
//!
//! Octavia replaces both amphorae of a pair one after the other: it starts VRRP in the first new one and
//! then deletes an old one, which may have the VIPs, and which does not know the new one. keepalived takes
//! them when it has heard nobody for three advertisements and its skew (RFC 5798, Master_Down_Interval). A
//! stock amphora is so slow in the steps between that this is over by then; ours is not.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace;

/// IANA's number of VRRP.
const VRRP: i32 = 112;
/// Between two looks at the addresses.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The VIP is here.
    Won,
    /// Another amphora says that it has it.
    Lost,
    /// Neither, as long as one was patient.
    Open,
}

/// Blocks until it is decided who has `vip`, or patience is over.
pub fn election(namespace: &File, vip: IpAddr, patience: Duration) -> io::Result<Election> {
    namespace::inside(namespace, || wait(vip, patience))?
}

fn wait(vip: IpAddr, patience: Duration) -> io::Result<Election> {
    let domain = if vip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(VRRP)))?;
    socket.set_read_timeout(Some(LOOK))?;
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if is_here(vip)? {
            return Ok(Election::Won);
        }
        // One's own are not received: they are sent to the other one alone.
        match socket.recv(&mut [MaybeUninit::uninit(); 1]) {
            Ok(_) => return Ok(Election::Lost),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Election::Open)
}

fn is_here(vip: IpAddr) -> io::Result<bool> {
    let mut held = getifaddrs()?.filter_map(|held| held.address);
    Ok(held.any(|held| {
        let v4 = held.as_sockaddr_in().map(|it| SocketAddr::from(*it));
        let v6 = held.as_sockaddr_in6().map(|it| SocketAddr::from(*it));
        v4.or(v6).is_some_and(|held| held.ip() == vip)
    }))
}
