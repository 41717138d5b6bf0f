//! A frame as people read it, and the flow that it belongs to, if the table has it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use xdp_lb_ebpf::abi::{SCTP, TCP, UDP};
use xdp_lb_ebpf::family::{Address, Family, Key, Nat, Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, State};
use xdp_lb_ebpf::headers::{ACK, Ethernet, FIN, Ipv4, Ipv6, KIND_IPV4, KIND_IPV6, RST, SYN};
use xdp_lb_ebpf::parse::{self, IP, Parse, Piece};
use xdp_lb_ebpf::tables::Flows;
use xdp_lb_ebpf::{Packet, Reason};

use crate::net::topology::Mac;
use crate::tables::address;

/// Urgent and push, which mean nothing to the path.
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
/// TCP flags as they are written, in the order of `tcpdump`.
pub const FLAGS: [(char, u8); 6] =
    [('F', FIN), ('S', SYN), ('R', RST), ('P', PSH), ('A', ACK), ('U', URG)];

/// What the headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub from: Mac,
    pub to: Mac,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    /// From the IP header on.
    pub bytes: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    pub piece: Piece,
    /// None of later fragments, and of what has none.
    pub ports: Option<Ports>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub src: u16,
    pub dst: u16,
    /// Of TCP.
    pub flags: u8,
}

/// An entry of the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP version, and the slot of this direction and of the other.
    pub version: u8,
    pub index: u32,
    pub peer: u32,
    pub state: State,
    pub backend: u32,
    /// What the frame is to be rewritten to.
    pub src: SocketAddr,
    pub dst: SocketAddr,
}

/// What a frame says; or why the path does not understand it.
pub fn look(frame: &mut [u8]) -> Result<Look, Reason> {
    let packet = Packet::new(frame);
    let ethernet: Ethernet = *packet.at(0).ok_or(Reason::Truncated)?;
    match ethernet.kind {
        KIND_IPV4 => {
            let ttl = packet.at::<Ipv4>(IP).map_or(0, |ip| ip.ttl);
            of::<V4>(&packet, &ethernet, ttl)
        }
        KIND_IPV6 => {
            let ttl = packet.at::<Ipv6>(IP).map_or(0, |ip| ip.hops);
            of::<V6>(&packet, &ethernet, ttl)
        }
        _ => Err(Reason::NotIp),
    }
}

fn of<F: Parse>(packet: &Packet<'_>, ethernet: &Ethernet, ttl: u8) -> Result<Look, Reason> {
    let ip = F::datagram(packet)?;
    let ports = if ip.piece == Piece::Later || ip.proto == F::ICMP {
        None
    } else {
        let segment = parse::segment(packet, &ip)?;
        let [src, dst] = [segment.key.sport, segment.key.dport].map(u16::from_be_bytes);
        Some(Ports { src, dst, flags: segment.flags })
    };
    Ok(Look {
        from: ethernet.src,
        to: ethernet.dst,
        src: address(ip.src.wide()),
        dst: address(ip.dst.wide()),
        proto: ip.proto,
        bytes: ip.bytes,
        ttl,
        piece: ip.piece,
        ports,
    })
}

impl Look {
    /// The tuple, addresses wide; none without ports.
    fn key(&self) -> Option<Key<[u8; 16]>> {
        let Ports { src, dst, .. } = self.ports?;
        let wide = crate::tables::octets;
        Some(Key {
            src: wide(self.src),
            dst: wide(self.dst),
            sport: src.to_be_bytes(),
            dport: dst.to_be_bytes(),
            proto: self.proto,
        })
    }

    /// The flow of a frame that has ports.
    pub fn flow<T: Flows>(&self, tables: &T) -> Option<Flow> {
        let key = self.key()?;
        match self.src {
            IpAddr::V4(_) => find::<V4, T>(tables, &key),
            IpAddr::V6(_) => find::<V6, T>(tables, &key),
        }
    }
}

fn find<F: Family, T: Flows>(tables: &T, wide: &Key<[u8; 16]>) -> Option<Flow> {
    let Key { src, dst, sport, dport, proto } = *wide;
    let (src, dst) = (F::Addr::narrow(src), F::Addr::narrow(dst));
    let key = F::words(&Key { src, dst, sport, dport, proto });
    let home = flows::home::<F, T>(tables, &key);
    let met = flows::find::<F, T>(tables, &key, home).ok()?;
    let Nat { src, dst, sport, dport, backend, peer, .. } = met.slot.nat();
    let socket =
        |addr: F::Addr, port| SocketAddr::new(address(addr.wide()), u16::from_be_bytes(port));
    Some(Flow {
        version: F::VERSION,
        index: met.index,
        peer,
        state: met.state,
        backend: backend.into(),
        src: socket(src, sport),
        dst: socket(dst, dport),
    })
}

/// `tcp SYN 198.51.100.7:40000 > 192.0.2.10:80`.
impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proto {
            TCP => write!(f, "tcp")?,
            UDP => write!(f, "udp")?,
            SCTP => write!(f, "sctp")?,
            1 | 58 => write!(f, "icmp")?,
            other => write!(f, "protocol {other}")?,
        }
        match self.piece {
            Piece::Whole => {}
            Piece::First => write!(f, " (first fragment)")?,
            Piece::Later => write!(f, " (later fragment)")?,
        }
        let Some(ports) = self.ports else {
            return write!(f, " {} > {}", self.src, self.dst);
        };
        if self.proto == TCP {
            write!(f, " {}", flags(ports.flags))?;
        }
        let (src, dst) =
            (SocketAddr::new(self.src, ports.src), SocketAddr::new(self.dst, ports.dst));
        write!(f, " {src} > {dst}")
    }
}

/// `SYN ACK`; a dash for none.
fn flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    let set = FLAGS.iter().zip(names).filter(|((_, bit), _)| flags & bit != 0);
    let set: Vec<_> = set.map(|(_, name)| name).collect();
    if set.is_empty() { "-".to_owned() } else { set.join("+") }
}

/// `02:00:00:00:00:01`.
pub fn mac([a, b, c, d, e, f]: Mac) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
