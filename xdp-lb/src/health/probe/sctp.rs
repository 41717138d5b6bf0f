//! An SCTP INIT, and its INIT ACK: no association is made of it, and the kernel need know no SCTP.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Protocol, Type};

use super::datagram::{Datagrams, random};
use super::failure::Failure;

/// Chunk types (RFC 9260, section 3.2).
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;

const HEADER_BYTES: usize = 12;

pub struct Sctp {
    /// The port that INITs come from. It is borrowed from UDP, so that the kernel chooses it, from
    /// those that the packet path does not use.
    port: UdpSocket,
}

impl Sctp {
    pub fn new() -> io::Result<Self> {
        Ok(Self { port: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))? })
    }

    /// Sends an INIT. An INIT ACK passes and is answered by an ABORT, so that the member forgets
    /// it; anything else that has our tag fails (Octavia `health_checker.py`).
    pub async fn init(&self, at: SocketAddr, patience: Duration) -> Result<(), Failure> {
        let port = self.port.local_addr().map_err(|error| Failure::ours("getsockname", &error))?;
        let ends = Ends { ours: port.port(), theirs: at.port() };
        // Zero is no tag.
        let tag = u32::from_ne_bytes(random()?).max(1);
        let socket = Datagrams::open(at, Type::RAW, Protocol::SCTP)?;
        let sent = socket.send(&ends.packet(0, &init_chunk(tag, random()?)));
        sent.map_err(|error| Failure::met("send", &error))?;
        let answer = socket.answer(patience, |packet| ends.answer(packet, tag)).await?;
        let their_tag = answer?;
        // The member forgets it by itself, if this is lost.
        let _ = socket.send(&ends.packet(their_tag, &[ABORT, 0, 0, 4]));
        Ok(())
    }
}

/// An INIT from port `ours` to port `theirs`, as one packet of SCTP, its checksum right.
pub fn init(ours: u16, theirs: u16) -> Vec<u8> {
    Ends { ours, theirs }.packet(0, &init_chunk(1, [0, 0, 0, 1]))
}

/// The ports.
struct Ends {
    ours: u16,
    theirs: u16,
}

impl Ends {
    fn packet(&self, tag: u32, chunk: &[u8]) -> Vec<u8> {
        let (ours, theirs) = (self.ours.to_be_bytes(), self.theirs.to_be_bytes());
        let mut packet = [&ours[..], &theirs, &tag.to_be_bytes(), &[0; 4], chunk].concat();
        let check = crc32c(&packet).to_le_bytes();
        packet[8..HEADER_BYTES].copy_from_slice(&check);
        packet
    }

    /// The member's tag, if this is its INIT ACK; `None` if it is no answer to our INIT.
    ///
    /// The checksum is not looked at: between virtual machines of one host the sender may have left
    /// it to a card that there is not. The tag is as good.
    fn answer(&self, packet: &[u8], tag: u32) -> Option<Result<u32, Failure>> {
        let (header, chunk) = packet.split_at_checked(HEADER_BYTES)?;
        let [theirs, ours] = [self.theirs, self.ours].map(u16::to_be_bytes);
        if header[..8] != [&theirs[..], &ours, &tag.to_be_bytes()].concat() {
            return None;
        }
        Some(match chunk {
            [INIT_ACK, _, _, _, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
            [ABORT, ..] => Err(Failure::Aborted),
            _ => Err(Failure::garbage("SCTP INIT ACK", chunk)),
        })
    }
}

/// As Octavia's: a window of 106,496 bytes, 10 streams out, any number in.
fn init_chunk(tag: u32, first_sequence: [u8; 4]) -> [u8; 20] {
    let mut chunk = [1, 0, 0, 20, 0, 0, 0, 0, 0, 1, 0xa0, 0, 0, 10, 0xff, 0xff, 0, 0, 0, 0];
    chunk[4..8].copy_from_slice(&tag.to_be_bytes());
    chunk[16..].copy_from_slice(&first_sequence);
    chunk
}

/// RFC 9260, appendix A, bit by bit: 44 bytes at most.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| crc >> 1 ^ 0x82f6_3b78 & (crc & 1).wrapping_neg();
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends { ours: 50_000, theirs: 80 };

    /// Of RFC 3720, appendix B.4.
    #[test]
    fn checksums() {
        let rows: [(&[u8], u32); 3] =
            [(&[0; 32], 0x8a91_36aa), (&[0xff; 32], 0x62a8_ab43), (b"123456789", 0xe306_9283)];
        for (bytes, check) in rows {
            assert_eq!(crc32c(bytes), check);
        }
    }

    #[test]
    fn answers() {
        let turned = Ends { ours: ENDS.theirs, theirs: ENDS.ours };
        let with = |tag, chunk: &[u8]| turned.packet(tag, chunk);
        let garbage = |chunk: &[u8]| Some(Err(Failure::garbage("SCTP INIT ACK", chunk)));
        let ack = [2, 0, 0, 20, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let rows = [
            ("an INIT ACK", with(7, &ack), Some(Ok(9))),
            ("an ABORT", with(7, &[6, 0, 0, 4]), Some(Err(Failure::Aborted))),
            ("a SHUTDOWN", with(7, &[7, 0, 0, 4]), garbage(&[7, 0, 0, 4])),
            ("an INIT ACK without a tag", with(7, &ack[..7]), garbage(&ack[..7])),
            ("no chunk", with(7, &[]), garbage(&[])),
            ("another's tag", with(8, &ack), None),
            ("our own INIT", ENDS.packet(0, &init_chunk(7, [0; 4])), None),
            ("from another port", Ends { ours: 81, ..turned }.packet(7, &ack), None),
            ("to another port", Ends { theirs: 81, ..turned }.packet(7, &ack), None),
            ("less than a header", with(7, &[])[..11].to_vec(), None),
        ];
        for (name, packet, read) in rows {
            assert_eq!(ENDS.answer(&packet, 7), read, "{name}");
        }
    }
}
