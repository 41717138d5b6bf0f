//! From bytes to what they mean: one look at each header, every length checked.

use crate::abi::{SCTP, TCP, UDP};
use crate::family::{Family, Key, V4, V6};
use crate::headers::{ACK, Ethernet, Ipv4, Ipv6, Ipv6Fragment, RST, SYN, Sctp, Tcp, Udp};
use crate::{Packet, Reason};

/// Where the IP header begins.
pub const IP: usize = size_of::<Ethernet>();
pub const ICMPV4: u8 = 1;
pub const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

/// An IP header of either family.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<A> {
    pub src: A,
    pub dst: A,
    pub proto: u8,
    /// Where the transport header begins, in the frame.
    pub transport: usize,
    /// Bytes from the IP header on, and from the transport header on.
    pub bytes: u32,
    pub length: u32,
    pub piece: Piece,
}

/// A datagram, or which part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Whole,
    /// Has the ports; more follow.
    First,
    /// Has no ports.
    Later,
}

/// A datagram with its ports.
#[derive(Clone, Copy, Debug)]
pub struct Segment<A> {
    pub key: Key<A>,
    /// Of TCP, else 0.
    pub flags: u8,
    /// Bytes behind the transport header.
    pub payload: u32,
}

impl<A> Segment<A> {
    /// The first of a TCP connection: a SYN alone.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST) == SYN
    }
}

/// What each family's parser does.
pub trait Parse: Family {
    fn datagram(packet: &Packet<'_>) -> Result<Datagram<Self::Addr>, Reason>;
    const ICMP: u8;
}

impl Parse for V4 {
    const ICMP: u8 = ICMPV4;

    #[inline(always)]
    fn datagram(packet: &Packet<'_>) -> Result<Datagram<[u8; 4]>, Reason> {
        let ip: &Ipv4 = packet.at(IP).ok_or(Reason::Truncated)?;
        if ip.version_length != 0x45 {
            let options = ip.version_length > 0x45 && ip.version_length < 0x50;
            return Err(if options { Reason::IpOptions } else { Reason::BadLength });
        }
        let bytes = u32::from(u16::from_be_bytes(ip.total));
        if bytes < Self::HEADER as u32 || IP as u32 + bytes > packet.len() {
            return Err(Reason::BadLength);
        }
        let fragment = u16::from_be_bytes(ip.fragment);
        let piece = match fragment & 0x3fff {
            0 => Piece::Whole,
            0x2000 => Piece::First,
            _ => Piece::Later,
        };
        Ok(Datagram {
            src: ip.src,
            dst: ip.dst,
            proto: ip.proto,
            transport: IP + Self::HEADER,
            bytes,
            length: bytes - Self::HEADER as u32,
            piece,
        })
    }
}

impl Parse for V6 {
    const ICMP: u8 = ICMPV6;

    #[inline(always)]
    fn datagram(packet: &Packet<'_>) -> Result<Datagram<[u8; 16]>, Reason> {
        let ip: &Ipv6 = packet.at(IP).ok_or(Reason::Truncated)?;
        if ip.version_class_flow[0] >> 4 != 6 {
            return Err(Reason::BadLength);
        }
        let length = u32::from(u16::from_be_bytes(ip.payload));
        if (IP + Self::HEADER) as u32 + length > packet.len() {
            return Err(Reason::BadLength);
        }
        let whole = Datagram {
            src: ip.src,
            dst: ip.dst,
            proto: ip.next,
            transport: IP + Self::HEADER,
            bytes: length + Self::HEADER as u32,
            length,
            piece: Piece::Whole,
        };
        match ip.next {
            FRAGMENT => {}
            // Hop-by-hop, routing, authentication, destination options, mobility (RFC 8200).
            0 | 43 | 51 | 60 | 135 => return Err(Reason::ExtensionHeader),
            _ => return Ok(whole),
        }
        let fragment: &Ipv6Fragment = packet.at(IP + Self::HEADER).ok_or(Reason::Truncated)?;
        let header = size_of::<Ipv6Fragment>();
        if length < header as u32 {
            return Err(Reason::BadLength);
        }
        Ok(Datagram {
            proto: fragment.next,
            transport: IP + Self::HEADER + header,
            length: length - header as u32,
            piece: match u16::from_be_bytes(fragment.offset_more) & 0xfff9 {
                0 => Piece::Whole,
                1 => Piece::First,
                _ => Piece::Later,
            },
            ..whole
        })
    }
}

/// The ports of a datagram that is not a later fragment.
#[inline(always)]
pub fn segment<A: Copy>(packet: &Packet<'_>, ip: &Datagram<A>) -> Result<Segment<A>, Reason> {
    let (sport, dport, flags, header) = match ip.proto {
        TCP => {
            let tcp: &Tcp = packet.at(ip.transport).ok_or(Reason::Truncated)?;
            let header = u32::from(tcp.offset >> 4) * 4;
            if header < size_of::<Tcp>() as u32 {
                return Err(Reason::BadLength);
            }
            (tcp.sport, tcp.dport, tcp.flags, header)
        }
        UDP => {
            let udp: &Udp = packet.at(ip.transport).ok_or(Reason::Truncated)?;
            let length = u32::from(u16::from_be_bytes(udp.length));
            let short = length > ip.length && ip.piece == Piece::Whole;
            if short || length < size_of::<Udp>() as u32 {
                return Err(Reason::BadLength);
            }
            (udp.sport, udp.dport, 0, size_of::<Udp>() as u32)
        }
        SCTP => {
            let sctp: &Sctp = packet.at(ip.transport).ok_or(Reason::Truncated)?;
            (sctp.sport, sctp.dport, 0, size_of::<Sctp>() as u32)
        }
        _ => return Err(Reason::OtherProtocol),
    };
    if header > ip.length {
        return Err(Reason::BadLength);
    }
    let key = Key { src: ip.src, dst: ip.dst, sport, dport, proto: ip.proto };
    Ok(Segment { key, flags, payload: ip.length - header })
}
