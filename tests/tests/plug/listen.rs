//! What the kernel tells of a namespace, and what arrives in one.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use socket2::{Domain, Protocol, Socket, Type};
use xdp_lb::namespace::Namespace;

/// What the kernel tells those who listen of a namespace's links, addresses, routes and rules.
pub struct Events(OwnedFd);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Link,
    NewAddress,
    DelAddress,
    NewRoute,
    DelRoute,
    Rule,
    Other(u16),
}

impl Events {
    pub fn new(namespace: &Namespace) -> Self {
        // RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE.
        let groups =
            [1, 5, 7, 8, 9, 11, 19].into_iter().fold(0, |all, group| all | 1 << (group - 1));
        let socket = namespace.enter(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let route = SockProtocol::NetlinkRoute;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, route).unwrap();
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).unwrap();
            socket
        });
        Self(socket.unwrap())
    }

    /// Since the last call. The kernel tells of a change before the call that makes it is over.
    pub fn heard(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        let socket = self.0.as_raw_fd();
        while let Ok(length) = recv(socket, &mut buffer, MsgFlags::empty()) {
            let mut rest = &buffer[..length];
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                events.push(match u16::from_ne_bytes([rest[4], rest[5]]) {
                    16 | 17 => Event::Link,
                    20 => Event::NewAddress,
                    21 => Event::DelAddress,
                    24 => Event::NewRoute,
                    25 => Event::DelRoute,
                    32 | 33 => Event::Rule,
                    other => Event::Other(other),
                });
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
        }
        events
    }
}

/// Every frame that arrives in a namespace.
pub struct Capture(Socket);

impl Capture {
    pub fn new(namespace: &Namespace) -> Self {
        let every = Protocol::from(i32::from(0x0003_u16.to_be()));
        let socket = namespace.enter(|| Socket::new(Domain::PACKET, Type::RAW, Some(every)));
        let socket = socket.unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(socket)
    }

    pub fn wait_for(&mut self, frame: &[u8]) {
        let mut buffer = vec![0; 2048];
        loop {
            let length = self.0.read(&mut buffer).expect("a frame");
            if &buffer[..length] == frame {
                return;
            }
        }
    }
}
