//! Frames of a capture, pcap or pcapng, with what it knows of each.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

/// The low bits of `epb_flags` (pcapng, 4.3.1) that say which way a packet went, and what they say.
const DIRECTION: u32 = 0b11;
pub const INBOUND: u32 = 1;
pub const OUTBOUND: u32 = 2;

/// Bytes of a file that is read: no more than fits in memory beside its content.
const FILE_MAX: u64 = 1 << 30;

/// A frame, and what the capture says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Counted from 1.
    pub number: usize,
    /// Since 1970.
    pub at: Duration,
    pub link: DataLink,
    pub bytes: Vec<u8>,
    /// Its length on the wire, in bytes.
    pub length: u32,
    /// Name of its interface; pcapng alone knows it.
    pub interface: Option<String>,
    /// [`INBOUND`], [`OUTBOUND`] or 0 for unknown.
    pub direction: u32,
    pub comment: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("packet {number} of the capture: {error}")]
pub struct Error {
    pub number: usize,
    pub error: PcapError,
}

/// What a file holds; `-` is the standard input.
pub fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().take(FILE_MAX + 1).read_to_end(&mut bytes)
    } else {
        File::open(file)?.take(FILE_MAX + 1).read_to_end(&mut bytes)
    };
    match read? {
        length if length as u64 > FILE_MAX => {
            Err(io::Error::other(format!("it holds more than {FILE_MAX} bytes")))
        }
        _ => Ok(bytes),
    }
}

/// All frames, in the order of the file; none where it is no capture.
pub fn frames(file: &[u8]) -> Option<Result<Vec<Frame>, Error>> {
    match file.first_chunk() {
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => Some(pcapng(file)),
        Some(
            [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0xc3, 0xd4]
            | [0x4d, 0x3c, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d],
        ) => Some(pcap(file)),
        Some(_) | None => None,
    }
}

fn pcap(file: &[u8]) -> Result<Vec<Frame>, Error> {
    let failed = |number| move |error| Error { number, error };
    let mut reader = PcapReader::new(file).map_err(failed(0))?;
    let link = reader.header().datalink;
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let number = frames.len() + 1;
        let packet = packet.map_err(failed(number))?;
        frames.push(Frame {
            number,
            at: packet.timestamp,
            link,
            bytes: packet.data.into_owned(),
            length: packet.orig_len,
            interface: None,
            direction: 0,
            comment: None,
        });
    }
    Ok(frames)
}

fn pcapng(file: &[u8]) -> Result<Vec<Frame>, Error> {
    let failed = |number| move |error| Error { number, error };
    let mut reader = PcapNgReader::new(file).map_err(failed(0))?;
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(block) = reader.next_block() {
        let number = frames.len() + 1;
        let Block::EnhancedPacket(packet) = block.map_err(failed(number))? else {
            continue;
        };
        let packet = packet.into_owned();
        let Some(interface) = reader.packet_interface(&packet) else { continue };
        let flags = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Flags(flags) => Some(*flags),
            _ => None,
        });
        let comment = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
            _ => None,
        });
        frames.push(Frame {
            number,
            at: since_1970(packet.timestamp, interface),
            link: interface.linktype,
            interface: name(interface),
            bytes: packet.data.into_owned(),
            length: packet.original_len,
            direction: flags.unwrap_or(0) & DIRECTION,
            comment,
        });
    }
    Ok(frames)
}

fn name(interface: &InterfaceDescriptionBlock<'_>) -> Option<String> {
    interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfName(name) => Some(Cow::clone(name).into_owned()),
        _ => None,
    })
}

/// pcap-file 2.0 takes an interface's ticks for nanoseconds; they are microseconds unless the interface
/// says otherwise (pcapng, 4.2: `if_tsresol`).
fn since_1970(ticks: Duration, interface: &InterfaceDescriptionBlock<'_>) -> Duration {
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(it) => Some(*it),
        _ => None,
    });
    let resolution = resolution.unwrap_or(6);
    let power = u32::from(resolution & 0x7f);
    let a_second =
        if resolution & 0x80 == 0 { 10_u128.checked_pow(power) } else { 1_u128.checked_shl(power) };
    let a_second = a_second.unwrap_or(u128::MAX);
    let ticks = ticks.as_nanos();
    let nanos = (ticks % a_second).saturating_mul(1_000_000_000) / a_second;
    Duration::new(
        u64::try_from(ticks / a_second).unwrap_or(u64::MAX),
        u32::try_from(nanos).unwrap_or(999_999_999),
    )
}
