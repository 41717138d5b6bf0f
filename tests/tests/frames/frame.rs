//! Frames as rows describe them. etherparse builds them, checksums and all: nothing here is the
//! packet path's own.

use std::net::IpAddr;
use std::ops::Range;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset,
    IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, NetSlice, SlicedPacket, TcpHeader,
    TransportSlice, UdpHeader,
};

pub type Mac = [u8; 6];

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const FRAGMENT: u8 = 44;

/// A frame, and the interface it comes in or leaves by.
#[derive(Clone, Debug)]
pub struct Frame {
    pub by: u32,
    pub from: Mac,
    pub to: Mac,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub body: Body,
}

/// What an IP header carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// Source port and destination port come first.
    Tcp(u16, u16, Message),
    Udp(u16, u16, Message),
    Sctp(u16, u16, Message),
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        quoted: Vec<u8>,
    },
    Other {
        proto: u8,
        data: Vec<u8>,
    },
}

/// What an endpoint says; NAT leaves it as it is.
#[derive(Clone, Debug)]
pub struct Message {
    /// Of S, A, F, R and P.
    pub flags: &'static str,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
    /// UDP over IPv4 may do without.
    pub checked: bool,
    pub ttl: u8,
}

pub fn say(flags: &'static str) -> Message {
    Message {
        flags,
        seq: 1000,
        ack: if flags.contains('A') { 5000 } else { 0 },
        window: 0x2000,
        options: Vec::new(),
        data: Vec::new(),
        checked: true,
        ttl: 64,
    }
}

impl Message {
    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
    pub fn seq(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }
    pub fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }
    pub fn body(self, proto: u8, sport: u16, dport: u16) -> Body {
        match proto {
            TCP => Body::Tcp(sport, dport, self),
            UDP => Body::Udp(sport, dport, self),
            SCTP => Body::Sctp(sport, dport, self),
            _ => Body::Other { proto, data: self.data },
        }
    }
}

impl Frame {
    pub fn with(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn proto(&self) -> u8 {
        match &self.body {
            Body::Tcp(..) => TCP,
            Body::Udp(..) => UDP,
            Body::Sctp(..) => SCTP,
            Body::Icmp { .. } if self.src.is_ipv4() => 1,
            Body::Icmp { .. } => 58,
            Body::Other { proto, .. } => *proto,
        }
    }

    /// What the IP header carries, byte by byte.
    pub fn body(&self) -> Vec<u8> {
        match &self.body {
            Body::Tcp(sport, dport, message) => self.tcp(*sport, *dport, message),
            Body::Udp(sport, dport, message) => self.udp(*sport, *dport, message),
            Body::Sctp(sport, dport, message) => sctp(*sport, *dport, &message.data),
            Body::Icmp { kind, code, rest, quoted } => {
                let header = match (self.src, self.dst) {
                    (IpAddr::V4(_), _) => {
                        let kind = Icmpv4Type::Unknown {
                            type_u8: *kind,
                            code_u8: *code,
                            bytes5to8: *rest,
                        };
                        Icmpv4Header::with_checksum(kind, quoted).to_bytes().to_vec()
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        let kind = Icmpv6Type::Unknown {
                            type_u8: *kind,
                            code_u8: *code,
                            bytes5to8: *rest,
                        };
                        let header =
                            Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), quoted);
                        header.unwrap().to_bytes().to_vec()
                    }
                    _ => unreachable!("one family a frame"),
                };
                [&header, &quoted[..]].concat()
            }
            Body::Other { data, .. } => data.clone(),
        }
    }

    fn tcp(&self, sport: u16, dport: u16, message: &Message) -> Vec<u8> {
        let mut tcp = TcpHeader::new(sport, dport, message.seq, message.window);
        tcp.acknowledgment_number = message.ack;
        let has = |flag| message.flags.contains(flag);
        (tcp.syn, tcp.ack, tcp.fin) = (has('S'), has('A'), has('F'));
        (tcp.rst, tcp.psh) = (has('R'), has('P'));
        tcp.set_options_raw(&message.options).unwrap();
        tcp.checksum = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                tcp.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &message.data)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                tcp.calc_checksum_ipv6_raw(src.octets(), dst.octets(), &message.data)
            }
            _ => unreachable!("one family a frame"),
        }
        .unwrap();
        [&tcp.to_bytes(), &message.data[..]].concat()
    }

    fn udp(&self, sport: u16, dport: u16, message: &Message) -> Vec<u8> {
        let length = (UdpHeader::LEN + message.data.len()) as u16;
        let mut udp =
            UdpHeader { source_port: sport, destination_port: dport, length, checksum: 0 };
        if message.checked {
            udp.checksum = match (self.src, self.dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    udp.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &message.data)
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    udp.calc_checksum_ipv6_raw(src.octets(), dst.octets(), &message.data)
                }
                _ => unreachable!("one family a frame"),
            }
            .unwrap();
        }
        [&udp.to_bytes(), &message.data[..]].concat()
    }

    /// The datagram: IP header and what it carries.
    pub fn ip(&self) -> Vec<u8> {
        let body = self.body();
        [self.header(self.proto(), body.len(), |_| ()), body].concat()
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        self.ethernet(&self.ip())
    }

    /// One fragment of the datagram: the bytes in `range` of what its IP header carries.
    pub fn piece(&self, id: u32, range: Range<usize>) -> Vec<u8> {
        let body = self.body();
        let (start, more) = (range.start, range.end < body.len());
        let offset = IpFragOffset::try_new(start as u16 / 8).unwrap();
        assert_eq!(start % 8, 0);
        let piece = &body[range];
        let datagram = if self.src.is_ipv4() {
            let header = self.header(self.proto(), piece.len(), |ip| {
                ip.identification = id as u16;
                ip.dont_fragment = false;
                ip.more_fragments = more;
                ip.fragment_offset = offset;
            });
            [&header, piece].concat()
        } else {
            let fragment = Ipv6FragmentHeader::new(IpNumber(self.proto()), offset, more, id);
            let header = self.header(FRAGMENT, Ipv6FragmentHeader::LEN + piece.len(), |_| ());
            [&header, &fragment.to_bytes()[..], piece].concat()
        };
        self.ethernet(&datagram)
    }

    /// With IPv4 options (a multiple of 4 bytes).
    pub fn with_options(&self, options: &[u8]) -> Vec<u8> {
        let body = self.body();
        let header = self.header(self.proto(), body.len(), |ip| {
            ip.options = options.try_into().unwrap();
            ip.set_payload_len(body.len()).unwrap();
        });
        self.ethernet(&[header, body].concat())
    }

    /// With an IPv6 extension header of 8 bytes in front of what it carries.
    pub fn with_extension(&self, kind: u8) -> Vec<u8> {
        // Next header, length in 8 bytes beyond the first, and padding (PadN of 4).
        let extension = [self.proto(), 0, 1, 4, 0, 0, 0, 0];
        let body = [&extension[..], &self.body()].concat();
        self.ethernet(&[self.header(kind, body.len(), |_| ()), body].concat())
    }

    fn header(&self, proto: u8, length: usize, change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (src, dst) = (src.octets(), dst.octets());
                let mut ip =
                    Ipv4Header::new(length as u16, self.ttl, IpNumber(proto), src, dst).unwrap();
                change(&mut ip);
                ip.header_checksum = ip.calc_header_checksum();
                ip.to_bytes().to_vec()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header {
                payload_length: length as u16,
                next_header: IpNumber(proto),
                hop_limit: self.ttl,
                source: src.octets(),
                destination: dst.octets(),
                ..Ipv6Header::default()
            }
            .to_bytes()
            .to_vec(),
            _ => unreachable!("one family a frame"),
        }
    }

    fn ethernet(&self, datagram: &[u8]) -> Vec<u8> {
        let kind = if self.src.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        ethernet(self.from, self.to, kind.0, datagram)
    }
}

pub fn ethernet(from: Mac, to: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header { source: from, destination: to, ether_type: EtherType(kind) };
    [&header.to_bytes()[..], payload].concat()
}

/// A DATA chunk behind the common header, its checksum computed bit by bit (RFC 9260, appendix A).
fn sctp(sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend([0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 0]);
    bytes.extend(data);
    let check = crc32c(&bytes).to_le_bytes();
    bytes[8..12].copy_from_slice(&check);
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

/// Whether every checksum of a whole frame is right, by etherparse. Fragments have but their header's.
pub fn checksums_are_right(frame: &[u8]) -> bool {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else {
        return false;
    };
    let Some(net) = sliced.net else {
        return false;
    };
    let (header_is_right, piece) = match &net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            let right = header.calc_header_checksum() == header.header_checksum;
            (right, ip.payload().fragmented)
        }
        NetSlice::Ipv6(ip) => (true, ip.payload().fragmented),
        NetSlice::Arp(_) => return false,
    };
    header_is_right && (piece || transport_is_right(&net, sliced.transport))
}

fn transport_is_right(net: &NetSlice<'_>, transport: Option<TransportSlice<'_>>) -> bool {
    match (net, transport) {
        (NetSlice::Ipv4(ip), Some(TransportSlice::Tcp(tcp))) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            let sum = tcp.to_header().calc_checksum_ipv4_raw(src, dst, tcp.payload());
            sum == Ok(tcp.checksum())
        }
        (NetSlice::Ipv6(ip), Some(TransportSlice::Tcp(tcp))) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            let sum = tcp.to_header().calc_checksum_ipv6_raw(src, dst, tcp.payload());
            sum == Ok(tcp.checksum())
        }
        (NetSlice::Ipv4(ip), Some(TransportSlice::Udp(udp))) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            let sum = udp.to_header().calc_checksum_ipv4_raw(src, dst, udp.payload());
            udp.checksum() == 0 || sum == Ok(udp.checksum())
        }
        (NetSlice::Ipv6(ip), Some(TransportSlice::Udp(udp))) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            let sum = udp.to_header().calc_checksum_ipv6_raw(src, dst, udp.payload());
            sum == Ok(udp.checksum())
        }
        (_, Some(TransportSlice::Icmpv4(icmp))) => {
            icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum()
        }
        (NetSlice::Ipv6(ip), Some(TransportSlice::Icmpv6(icmp))) => {
            icmp.is_checksum_valid(ip.header().source(), ip.header().destination())
        }
        (NetSlice::Ipv4(ip), None) => sctp_is_right(ip.payload().payload),
        (NetSlice::Ipv6(ip), None) => sctp_is_right(ip.payload().payload),
        _ => false,
    }
}

fn sctp_is_right(packet: &[u8]) -> bool {
    let mut zeroed = packet.to_vec();
    zeroed[8..12].fill(0);
    packet[8..12] == crc32c(&zeroed).to_le_bytes()
}
