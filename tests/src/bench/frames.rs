//! The frames of the bench: one shape each for IPv4 and IPv6, TCP and UDP.

use std::net::IpAddr;

use xdp_lb_ebpf::abi::{TCP, UDP};
use xdp_lb_ebpf::bench::{FRAME, Flow, PORT_BITS, PORT_LOW, Work};
use xdp_lb_ebpf::checksum::fold;
use xdp_lb_ebpf::headers::{ACK, SYN};
use zerocopy::{FromZeros, transmute};

use crate::balancer::{NEXT_MAC, OWN_MAC, PORT, VIP4, VIP6};

/// Of a flow that opens: odd, so that any power of two of flows comes in an order that no cache
/// foresees, each once.
const STEP: u32 = 0x9e37_79b1;
/// The first client's; the others follow.
const FIRST4: [u8; 4] = [198, 18, 0, 1];
const FIRST6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ETHERNET: usize = 14;

pub type Frame = [u8; FRAME];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

/// What a frame says of its connection; nothing, where it is UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Syn,
    SynAck,
    Ack,
}

/// A frame as values.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub kind: Kind,
    pub says: Says,
    pub source: IpAddr,
    pub dest: IpAddr,
    pub sport: u16,
    pub dport: u16,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Tcp4, Self::Tcp6, Self::Udp4, Self::Udp6];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "tcp4",
            Self::Tcp6 => "tcp6",
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
        }
    }

    pub fn is_v4(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Udp4)
    }

    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Tcp6)
    }

    /// Where the addresses begin, and how long one is.
    fn addresses(self) -> (usize, usize) {
        if self.is_v4() { (ETHERNET + 12, 4) } else { (ETHERNET + 8, 16) }
    }

    fn transport(self) -> usize {
        ETHERNET + if self.is_v4() { 20 } else { 40 }
    }

    fn check(self) -> usize {
        self.transport() + if self.is_tcp() { 16 } else { 6 }
    }
}

impl Segment {
    /// Of client number `flow`, which is where the driver has it too.
    pub fn from_client(kind: Kind, says: Says, flow: u32) -> Self {
        let number = flow >> PORT_BITS;
        let sport = PORT_LOW + (flow & ((1 << PORT_BITS) - 1));
        let (source, dest): (IpAddr, IpAddr) = if kind.is_v4() {
            ((u32::from_be_bytes(FIRST4) + number).to_be_bytes().into(), VIP4.into())
        } else {
            ((u128::from_be_bytes(FIRST6) + u128::from(number)).to_be_bytes().into(), VIP6.into())
        };
        Self { kind, says, source, dest, sport: sport as u16, dport: PORT }
    }

    /// The answer to a frame that the load balancer sent to a member.
    pub fn answer(kind: Kind, says: Says, sent: &Frame) -> Self {
        let (at, len) = kind.addresses();
        let address = |at: usize| match <[u8; 4]>::try_from(&sent[at..at + len]) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(&sent[at..at + len]).unwrap_or_default()),
        };
        let ports = kind.transport();
        let port = |at: usize| u16::from_be_bytes([sent[at], sent[at + 1]]);
        Self {
            kind,
            says,
            source: address(at + len),
            dest: address(at),
            sport: port(ports + 2),
            dport: port(ports),
        }
    }

    /// The whole frame, with right checksums.
    pub fn frame(&self) -> Frame {
        let mut frame = self.bare();
        self.put_flow(&mut frame, self.flow());
        let (ip, transport) = self.sums(&frame);
        if self.kind.is_v4() {
            frame[24..26].copy_from_slice(&(!fold(ip)).to_ne_bytes());
        }
        let at = self.kind.check();
        frame[at..at + 2].copy_from_slice(&(!fold(transport)).to_ne_bytes());
        frame
    }

    /// For the driver: `flows`, a power of two, of which this is the first; all there are where it
    /// is none.
    pub fn work(&self, flows: Option<u32>) -> Work {
        let frame = self.bare();
        let (ip_sum, sum) = self.sums(&frame);
        Work {
            frame: transmute!(frame),
            ip_sum,
            sum,
            first_source: u32::from_be_bytes(self.flow().source),
            port: u16::from_ne_bytes(self.dport.to_be_bytes()).into(),
            step: STEP,
            mask: flows.map_or(u32::MAX, |flows| flows - 1),
            ..Work::new_zeroed()
        }
    }

    /// What differs between this one and others of its kind and direction.
    pub fn flow(&self) -> Flow {
        let octets = crate::balancer::octets(self.source);
        let mut source = [0; 4];
        source.copy_from_slice(&octets[12..]);
        Flow { source, sport: self.sport.to_be_bytes(), dport: self.dport.to_be_bytes() }
    }

    fn put_flow(&self, frame: &mut Frame, flow: Flow) {
        let (at, len) = self.kind.addresses();
        frame[at + len - 4..at + len].copy_from_slice(&flow.source);
        let ports = self.kind.transport();
        frame[ports..ports + 2].copy_from_slice(&flow.sport);
        frame[ports + 2..ports + 4].copy_from_slice(&flow.dport);
    }

    /// Without checksums, without what [`Self::flow`] has.
    fn bare(&self) -> Frame {
        let Self { kind, says, .. } = *self;
        let mut frame = [0; FRAME];
        frame[..6].copy_from_slice(&OWN_MAC);
        frame[6..12].copy_from_slice(&NEXT_MAC);
        let length = (FRAME - ETHERNET) as u8;
        let proto = if kind.is_tcp() { TCP } else { UDP };
        if kind.is_v4() {
            frame[12..14].copy_from_slice(&[8, 0]);
            // Version and length, total length, do not fragment, TTL.
            (frame[14], frame[17], frame[20], frame[22], frame[23]) =
                (0x45, length, 0x40, 64, proto);
        } else {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            // Version, payload length, next header, hop limit.
            (frame[14], frame[19], frame[20], frame[21]) = (0x60, length - 40, proto, 64);
        }
        let (at, len) = kind.addresses();
        let octets = |address| crate::balancer::octets(address);
        frame[at..at + len].copy_from_slice(&octets(self.source)[16 - len..]);
        frame[at + len - 4..at + len].fill(0);
        frame[at + len..at + 2 * len].copy_from_slice(&octets(self.dest)[16 - len..]);
        let at = kind.transport();
        if kind.is_tcp() {
            let flags = match says {
                Says::Syn => SYN,
                Says::SynAck => SYN | ACK,
                Says::Ack => ACK,
            };
            // Sequence number, header length, flags, window.
            (frame[at + 7], frame[at + 12], frame[at + 13], frame[at + 14]) =
                (1, 0x50, flags, 0xff);
        } else {
            frame[at + 5] = (FRAME - at) as u8;
        }
        frame
    }

    /// Of the IPv4 header; of transport and pseudo header.
    fn sums(&self, frame: &Frame) -> (u32, u32) {
        let (at, len) = self.kind.addresses();
        let transport = self.kind.transport();
        let proto = if self.kind.is_tcp() { TCP } else { UDP };
        let pseudo = sum(&frame[at..at + 2 * len])
            + sum(&[0, proto])
            + sum(&((FRAME - transport) as u16).to_be_bytes());
        let ip = if self.kind.is_v4() { sum(&frame[ETHERNET..transport]) } else { 0 };
        (ip, pseudo + sum(&frame[transport..]))
    }
}

/// Who has an address; answered by nobody here.
pub fn arp() -> Work {
    let mut frame = [0; FRAME];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&NEXT_MAC);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    Work { frame: transmute!(frame), step: STEP, ..Work::new_zeroed() }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
}
