//! The first frame of a connection, made from its tuple.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use etherparse::{IpNumber, PacketBuilder, TcpHeader};
use xdp_lb_ebpf::headers::ACK;

use super::look::FLAGS;
use crate::health::probe::init;
use crate::net::topology::Mac;

/// For documentation (RFC 7042, section 2.1.2): nobody's.
pub const FROM: Mac = [0, 0, 0x5e, 0, 0x53, 1];
const TTL: u8 = 64;
const WINDOW: u16 = 64240;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// TCP flags, as letters: `S`, `SA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is no TCP flag: F, S, R, P, A and U are")]
    Flag(char),
    #[error("{client} and {vip} are not of one family")]
    Families { client: SocketAddr, vip: SocketAddr },
    #[error("the frame: {0}")]
    Build(String),
}

impl FromStr for Flags {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bit = |letter: char| {
            let mut known = FLAGS.iter();
            let found = known.find(|(name, _)| name.eq_ignore_ascii_case(&letter));
            found.map(|(_, bit)| *bit).ok_or(Error::Flag(letter))
        };
        text.chars().try_fold(0, |flags, letter| Ok(flags | bit(letter)?)).map(Self)
    }
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    /// Of TCP.
    pub flags: Flags,
}

impl Tuple {
    /// An Ethernet frame to `own`, with right checksums: of SCTP an INIT, of the others without payload.
    pub fn frame(&self, own: Mac) -> Result<Vec<u8>, Error> {
        let Self { client, vip, .. } = *self;
        let ethernet = PacketBuilder::ethernet2(FROM, own);
        let ip = match (client.ip(), vip.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), TTL),
            (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), TTL),
            _ => return Err(Error::Families { client, vip }),
        };
        let (from, to, mut frame) = (client.port(), vip.port(), Vec::new());
        let built = match self.protocol {
            Protocol::Tcp => ip.tcp_header(self.tcp()).write(&mut frame, &[]),
            Protocol::Udp => ip.udp(from, to).write(&mut frame, &[]),
            Protocol::Sctp => ip.write(&mut frame, IpNumber::SCTP, &init(from, to)),
        };
        built.map_err(|error| Error::Build(error.to_string()))?;
        Ok(frame)
    }

    fn tcp(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.client.port(), self.vip.port(), 1, WINDOW);
        let has =
            |letter| FLAGS.iter().any(|(name, bit)| *name == letter && self.flags.0 & bit != 0);
        (tcp.fin, tcp.syn, tcp.rst) = (has('F'), has('S'), has('R'));
        (tcp.psh, tcp.ack, tcp.urg) = (has('P'), has('A'), has('U'));
        tcp.acknowledgment_number = u32::from(self.flags.0 & ACK != 0);
        tcp
    }
}

#[cfg(test)]
mod tests {
    use xdp_lb_ebpf::headers::{RST, SYN};

    use super::*;
    use crate::trace::look::look;

    #[test]
    fn flags() {
        for (text, want) in [
            ("S", Ok(Flags(SYN))),
            ("sa", Ok(Flags(SYN | ACK))),
            ("RA", Ok(Flags(RST | ACK))),
            ("", Ok(Flags(0))),
            ("SX", Err(Error::Flag('X'))),
        ] {
            assert_eq!(text.parse(), want, "{text}");
        }
    }

    #[test]
    fn frames() {
        let (v4, v6) =
            (["198.51.100.7:40000", "192.0.2.10:80"], ["[2001:db8::7]:9", "[2001:db8::a]:80"]);
        for (protocol, [client, vip], bytes, want) in [
            (Protocol::Tcp, v4, 54, "tcp SYN 198.51.100.7:40000 > 192.0.2.10:80"),
            (Protocol::Udp, v4, 42, "udp 198.51.100.7:40000 > 192.0.2.10:80"),
            (Protocol::Sctp, v4, 66, "sctp 198.51.100.7:40000 > 192.0.2.10:80"),
            (Protocol::Tcp, v6, 74, "tcp SYN [2001:db8::7]:9 > [2001:db8::a]:80"),
            (Protocol::Udp, v6, 62, "udp [2001:db8::7]:9 > [2001:db8::a]:80"),
        ] {
            let (client, vip) = (client.parse().unwrap(), vip.parse().unwrap());
            let tuple = Tuple { protocol, client, vip, flags: Flags(SYN) };
            let mut frame = tuple.frame([2; 6]).unwrap();
            assert_eq!(
                (frame.len(), look(&mut frame).unwrap().to_string()),
                (bytes, want.to_owned())
            );
        }
        let (client, vip) = (v4[0].parse().unwrap(), v6[1].parse().unwrap());
        let mixed = Tuple { protocol: Protocol::Udp, client, vip, flags: Flags(0) };
        assert_eq!(mixed.frame([2; 6]), Err(Error::Families { client, vip }));
    }
}
