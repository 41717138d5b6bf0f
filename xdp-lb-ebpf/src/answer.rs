//! What a client is told when no member can serve it: a TCP RST (RFC 9293, 3.10.7.1), or ICMP that
//! ends a UDP or SCTP exchange at once.
//!
//! The frame becomes its own answer. Its length changes first, which only the hook can do; what was
//! read before then lies `grow` bytes further in.

use crate::Packet;
use crate::abi::{SCTP, TCP};
use crate::checksum::{fold, sum};
use crate::family::{Family, V4, V6};
use crate::headers::{ACK, Ethernet, FIN, Icmp, Ipv4, Ipv6, KIND_IPV4, KIND_IPV6, RST, SYN, Tcp};
use crate::parse::{ICMPV4, ICMPV6, IP, Parse, Piece, segment};
use crate::rewrite::{Frame4, Frame6};

/// What is quoted of a datagram besides its IP header.
const QUOTED: usize = 8;
const TTL: u8 = 64;

/// How the frame must change before [`write()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes in front.
    pub grow: u32,
    /// Bytes in all, afterwards.
    pub length: u32,
    /// What a RST acknowledges: the sequence number and what the segment took of it.
    taken: u32,
    reset: bool,
    ipv6: bool,
}

/// The shape of the answer; none where none is due.
#[inline(always)]
pub fn shape(packet: &Packet<'_>) -> Option<Shape> {
    match packet.at::<Ethernet>(0)?.kind {
        KIND_IPV4 => of::<V4>(packet, false),
        KIND_IPV6 => of::<V6>(packet, true),
        _ => None,
    }
}

#[inline(always)]
fn of<F: Parse>(packet: &Packet<'_>, ipv6: bool) -> Option<Shape> {
    let ip = F::datagram(packet).ok()?;
    if ip.piece == Piece::Later || ip.transport != IP + F::HEADER {
        return None;
    }
    let segment = segment(packet, &ip).ok()?;
    let icmp = (size_of::<Icmp>() + F::HEADER) as u32;
    let headers = (IP + F::HEADER) as u32;
    Some(if ip.proto == TCP {
        let phantom = u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
        let length = headers + size_of::<Tcp>() as u32;
        Shape { grow: 0, length, taken: segment.payload + phantom, reset: true, ipv6 }
    } else {
        Shape { grow: icmp, length: headers + icmp + QUOTED as u32, taken: 0, reset: false, ipv6 }
    })
}

/// Turns the resized frame into the answer, to be sent where it came from.
#[inline(always)]
pub fn write(packet: &mut Packet<'_>, shape: Shape) -> Option<()> {
    match (shape.reset, shape.ipv6) {
        (true, false) => reset4(packet, shape.taken),
        (true, true) => reset6(packet, shape.taken),
        (false, false) => unreachable4(packet),
        (false, true) => unreachable6(packet),
    }
}

#[inline(always)]
fn turned(from: &Ethernet) -> Ethernet {
    Ethernet { dst: from.src, src: from.dst, kind: from.kind }
}

#[inline(always)]
fn header4(src: [u8; 4], dst: [u8; 4], proto: u8, total: usize) -> Ipv4 {
    let mut ip = Ipv4 {
        version_length: 0x45,
        total: (total as u16).to_be_bytes(),
        // Don't fragment: so that no identification is needed (RFC 6864).
        fragment: [0x40, 0],
        ttl: TTL,
        proto,
        src,
        dst,
        ..Default::default()
    };
    let bytes: [u8; 20] = zerocopy::transmute!(ip);
    ip.check = (!fold(sum(&bytes))).to_ne_bytes();
    ip
}

#[inline(always)]
fn header6(src: [u8; 16], dst: [u8; 16], next: u8, payload: usize) -> Ipv6 {
    Ipv6 {
        version_class_flow: [0x60, 0, 0, 0],
        payload: (payload as u16).to_be_bytes(),
        next,
        hops: TTL,
        src,
        dst,
    }
}

/// The RST that answers a segment. `pseudo` is the sum of addresses, protocol and length.
#[inline(always)]
fn reset(tcp: &Tcp, taken: u32, pseudo: u32) -> Tcp {
    let acked = tcp.flags & ACK != 0;
    let mut reset = Tcp {
        sport: tcp.dport,
        dport: tcp.sport,
        seq: if acked { tcp.ack } else { [0; 4] },
        ack: if acked {
            [0; 4]
        } else {
            u32::from_be_bytes(tcp.seq).wrapping_add(taken).to_be_bytes()
        },
        offset: 5 << 4,
        flags: if acked { RST } else { RST | ACK },
        ..Default::default()
    };
    let bytes: [u8; 20] = zerocopy::transmute!(reset);
    reset.check = (!fold(sum(&bytes) + pseudo)).to_ne_bytes();
    reset
}

/// Sum of protocol and length in a pseudo header.
#[inline(always)]
fn word(proto: u8, length: usize) -> u32 {
    u32::from(u16::from(proto).to_be()) + u32::from((length as u16).to_be())
}

#[inline(always)]
fn reset4(packet: &mut Packet<'_>, taken: u32) -> Option<()> {
    let Frame4 { ethernet, ip } = packet.at_mut(0)?;
    (*ethernet, *ip) = (turned(ethernet), header4(ip.dst, ip.src, TCP, 20 + 20));
    let pseudo = sum(&ip.src) + sum(&ip.dst) + word(TCP, 20);
    let tcp: &mut Tcp = packet.at_mut(IP + V4::HEADER)?;
    *tcp = reset(tcp, taken, pseudo);
    Some(())
}

#[inline(always)]
fn reset6(packet: &mut Packet<'_>, taken: u32) -> Option<()> {
    let Frame6 { ethernet, ip } = packet.at_mut(0)?;
    (*ethernet, *ip) = (turned(ethernet), header6(ip.dst, ip.src, TCP, 20));
    let pseudo = sum(&ip.src) + sum(&ip.dst) + word(TCP, 20);
    let tcp: &mut Tcp = packet.at_mut(IP + V6::HEADER)?;
    *tcp = reset(tcp, taken, pseudo);
    Some(())
}

/// Destination unreachable: the port (UDP), or the protocol, which ends an SCTP association
/// (Linux `sctp_v4_err`).
#[inline(always)]
fn unreachable4(packet: &mut Packet<'_>) -> Option<()> {
    const GROW: usize = 28;
    let old: Ethernet = *packet.at(GROW)?;
    let quoted: Ipv4 = *packet.at(GROW + IP)?;
    let code = if quoted.proto == SCTP { 2 } else { 3 };
    let mut icmp = Icmp { kind: 3, code, ..Default::default() };
    let bytes: [u8; 8] = zerocopy::transmute!(icmp);
    let rest: &[u8; 20 + QUOTED] = packet.at(GROW + IP)?;
    icmp.check = (!fold(sum(&bytes) + sum(rest))).to_ne_bytes();
    *packet.at_mut(0)? = Frame4 {
        ethernet: turned(&old),
        ip: header4(quoted.dst, quoted.src, ICMPV4, GROW + 20 + QUOTED),
    };
    *packet.at_mut(IP + 20)? = icmp;
    Some(())
}

/// The same: port unreachable, or a next header that is not recognised (`sctp_v6_err`).
#[inline(always)]
fn unreachable6(packet: &mut Packet<'_>) -> Option<()> {
    const GROW: usize = 48;
    const PAYLOAD: usize = 8 + 40 + QUOTED;
    let old: Ethernet = *packet.at(GROW)?;
    let quoted: Ipv6 = *packet.at(GROW + IP)?;
    let mut icmp = if quoted.next == SCTP {
        // The pointer names the next header field.
        Icmp { kind: 4, code: 1, rest: [0, 0, 0, 6], ..Default::default() }
    } else {
        Icmp { kind: 1, code: 4, ..Default::default() }
    };
    let bytes: [u8; 8] = zerocopy::transmute!(icmp);
    let rest: &[u8; 40 + QUOTED] = packet.at(GROW + IP)?;
    let pseudo = sum(&quoted.src) + sum(&quoted.dst) + word(ICMPV6, PAYLOAD);
    icmp.check = (!fold(sum(&bytes) + sum(rest) + pseudo)).to_ne_bytes();
    *packet.at_mut(0)? =
        Frame6 { ethernet: turned(&old), ip: header6(quoted.dst, quoted.src, ICMPV6, PAYLOAD) };
    *packet.at_mut(IP + 40)? = icmp;
    Some(())
}
