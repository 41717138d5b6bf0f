//! An ICMP echo, and its reply.

use std::net::SocketAddr;
use std::time::Duration;

use etherparse::checksum::Sum16BitWords;
use socket2::{Protocol, Type};

use super::datagram::{Datagrams, random};
use super::failure::Failure;

/// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const ECHO4: u8 = 8;
const REPLY4: u8 = 0;
const ECHO6: u8 = 128;
const REPLY6: u8 = 129;

/// Identifier, sequence number and data: all that a reply repeats, and what it is known by.
type Nonce = [u8; 12];

/// Pings once; the port is of no interest. A reply may take as long as the monitor says. (Octavia's
/// `ping-wrapper.sh` gives up after a second.)
pub async fn echo(at: SocketAddr, patience: Duration) -> Result<(), Failure> {
    let nonce: Nonce = random()?;
    let (protocol, request, reply) = match at {
        SocketAddr::V4(_) => (Protocol::ICMPV4, checked(message(ECHO4, nonce)), REPLY4),
        // Here the kernel puts in the checksum.
        SocketAddr::V6(_) => (Protocol::ICMPV6, message(ECHO6, nonce), REPLY6),
    };
    let socket = Datagrams::open(at, Type::RAW, protocol)?;
    socket.send(&request).map_err(|error| Failure::met("send", &error))?;
    let is_ours = |packet: &[u8]| packet.first() == Some(&reply) && packet.get(4..) == Some(&nonce);
    socket.answer(patience, |packet| is_ours(packet).then_some(())).await
}

fn message(kind: u8, nonce: Nonce) -> [u8; 16] {
    let mut message = [0; 16];
    message[0] = kind;
    message[4..].copy_from_slice(&nonce);
    message
}

fn checked(mut message: [u8; 16]) -> [u8; 16] {
    let sum = Sum16BitWords::new().add_16bytes(message).ones_complement();
    message[2..4].copy_from_slice(&sum.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_its_checksum_add_up_to_nothing() {
        let echo = checked(message(ECHO4, *b"\x12\x34\0\x01abcdefgh"));
        assert_eq!(echo[..2], [8, 0]);
        let sum: u32 =
            echo.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
