//! SYNs with sources that do not exist, as many as a CPU can send.
//!
//! The sources are of nets that nobody may have: 198.18.0.0/15 (RFC 2544), 2001:2::/48 (RFC 5180).

use std::io;
use std::mem::{size_of, transmute, zeroed};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::ptr::from_mut;
use std::thread;

use nix::ifaddrs::getifaddrs;
use nix::libc::{
    AF_PACKET, MSG_DONTWAIT, c_int, iovec, mmsghdr, sendmmsg, sockaddr_ll, sockaddr_storage,
};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::payload;

pub type Mac = [u8; 6];

const BATCH: usize = 256;
const ETHERNET: usize = 14;
const TCP: usize = 20;
/// The longest: IPv6.
const FRAME: usize = ETHERNET + 40 + TCP;
const CHECK: usize = 16;

/// A flood into one interface, which goes on where it ended.
pub struct Flood {
    socket: Socket,
    frames: Vec<[u8; FRAME]>,
    /// Of a frame; the IP header begins after Ethernet's.
    length: usize,
    /// In the stream of random numbers.
    next: u64,
}

impl Flood {
    /// From `dev` of the namespace the thread is in, to `target` at `mac`.
    pub fn new(dev: &str, mac: Mac, target: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::from(AF_PACKET), Type::RAW, None)?;
        socket.bind(&interface(if_nametoindex(dev)?))?;
        let frame = frame(mac, mac_of(dev)?, target);
        let length = FRAME - if target.is_ipv4() { 20 } else { 0 };
        Ok(Self { socket, frames: vec![frame; BATCH], length, next: 0 })
    }

    /// Sends `count` SYNs, each with an address, a port and a sequence number of its own.
    pub fn send(&mut self, count: u64) -> io::Result<()> {
        let end = self.next + count;
        while self.next < end {
            let batch = BATCH.min((end - self.next) as usize);
            for (frame, index) in self.frames[..batch].iter_mut().zip(self.next..) {
                disguise(&mut frame[..self.length], index);
            }
            let mut sent = 0;
            while sent < batch {
                match self.transmit(sent..batch) {
                    Ok(taken) => sent += taken,
                    // The wire is full.
                    Err(error)
                        if matches!(
                            error.raw_os_error(),
                            Some(nix::libc::ENOBUFS | nix::libc::EAGAIN)
                        ) =>
                    {
                        thread::yield_now();
                    }
                    Err(error) => return Err(error),
                }
            }
            self.next += batch as u64;
        }
        Ok(())
    }

    fn transmit(&mut self, range: std::ops::Range<usize>) -> io::Result<usize> {
        let iovecs = self.frames[range].iter_mut();
        let mut iovecs: Vec<_> = iovecs
            .map(|frame| iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: self.length })
            .collect();
        let messages = iovecs.iter_mut().map(|iovec| {
            // SAFETY: numbers and pointers, for which zero is a value.
            let mut message: mmsghdr = unsafe { zeroed() };
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (from_mut(iovec), 1);
            message
        });
        let mut messages: Vec<_> = messages.collect();
        let (fd, count) = (self.socket.as_raw_fd(), messages.len() as u32);
        // SAFETY: `count` messages, each with one iovec, each of as many bytes of a frame as it
        // says; all three outlive the call.
        let sent = unsafe { sendmmsg(fd, messages.as_mut_ptr(), count, MSG_DONTWAIT as _) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// The MAC of `dev` in the namespace the thread is in.
pub fn mac_of(dev: &str) -> io::Result<Mac> {
    let mut links =
        getifaddrs().map_err(io::Error::from)?.filter(|link| link.interface_name == dev);
    let mac = links.find_map(|link| link.address?.as_link_addr()?.addr());
    mac.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

fn interface(index: u32) -> SockAddr {
    // SAFETY: numbers, for which zero is a value.
    let mut storage: sockaddr_storage = unsafe { zeroed() };
    // SAFETY: `sockaddr_storage` is as long and as aligned as any address the kernel knows, and
    // nothing else refers to it.
    let address = unsafe { &mut *from_mut(&mut storage).cast::<sockaddr_ll>() };
    (address.sll_family, address.sll_ifindex) = (AF_PACKET as u16, index as c_int);
    // SAFETY: both types are the kernel's `sockaddr_storage`, and the address in it was written just
    // now, as long as it says.
    unsafe {
        let storage = transmute::<sockaddr_storage, SockAddrStorage>(storage);
        SockAddr::new(storage, size_of::<sockaddr_ll>() as u32)
    }
}

/// All but source and checksums.
fn frame(to: Mac, from: Mac, target: SocketAddr) -> [u8; FRAME] {
    let port = target.port().to_be_bytes();
    let tcp = [0, 0, port[0], port[1], 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
    let packet = match target.ip() {
        IpAddr::V4(ip) => {
            let ipv4 = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 0];
            [&[8, 0], &ipv4[..], &ip.octets(), &tcp].concat()
        }
        IpAddr::V6(ip) => {
            let source = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0).octets();
            let ipv6 = [0x60, 0, 0, 0, 0, 20, 6, 64];
            [&[0x86, 0xdd], &ipv6[..], &source, &ip.octets(), &tcp].concat()
        }
    };
    let mut frame = [0; FRAME];
    let bytes = [&to[..], &from, &packet].concat();
    frame[..bytes.len()].copy_from_slice(&bytes);
    frame
}

/// Gives a frame its source, the `index`th.
fn disguise(frame: &mut [u8], index: u64) {
    let mut random = [0; 8];
    payload::fill(1, index * 8, &mut random);
    let packet = &mut frame[ETHERNET..];
    let (ip, tcp) = packet.split_at_mut(packet.len() - TCP);
    let addresses = if ip.len() == 20 {
        ip[13] = 18 | random[0] & 1;
        ip[14..16].copy_from_slice(&random[1..3]);
        ip[10..12].fill(0);
        let check = checksum(sum(ip));
        ip[10..12].copy_from_slice(&check);
        &ip[12..]
    } else {
        ip[20..24].copy_from_slice(&random[..4]);
        &ip[8..]
    };
    tcp[..2].copy_from_slice(&random[3..5]);
    // No port is 0.
    tcp[1] |= 1;
    tcp[4..8].copy_from_slice(&random[4..]);
    tcp[CHECK..CHECK + 2].fill(0);
    let check = checksum(sum(addresses) + sum(tcp) + 6 + TCP as u32);
    tcp[CHECK..CHECK + 2].copy_from_slice(&check);
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn checksum(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum + (sum >> 16)) as u16).to_be_bytes()
}
