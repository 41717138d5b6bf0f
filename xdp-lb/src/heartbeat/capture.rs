//! Datagrams of a file: a capture (pcap or pcapng), or one datagram as it is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::defrag::{IpDefragPayloadVec, IpDefragPool};
use etherparse::{EtherType, IpNumber, NetSlice, SlicedPacket, TransportSlice, UdpSlice};
use pcap_file::DataLink;

use crate::pcap;

/// Bytes of the header of `LINUX_SLL2`, which `tcpdump -i any` writes; its first two are the EtherType.
const SLL2: usize = 20;

/// A datagram, and what the capture knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Since 1970; none where the file is the datagram.
    pub at: Option<Duration>,
    /// From whom to whom.
    pub path: Option<(SocketAddr, SocketAddr)>,
    pub bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Capture(#[from] pcap::Error),
    #[error("packet {number} of the capture: link type {link:?} is not read")]
    Link { number: usize, link: DataLink },
}

/// All datagrams to `port`, in the order of the capture. Fragments are put together; what is not UDP, or
/// was cut short by the capture, is left out.
pub fn datagrams(file: &[u8], port: u16) -> Result<Vec<Datagram>, Error> {
    let Some(frames) = pcap::frames(file) else {
        return Ok(vec![Datagram { at: None, path: None, bytes: file.to_owned() }]);
    };
    let mut assembly = Assembly { port, pool: IpDefragPool::new(), found: Vec::new() };
    for frame in frames? {
        assembly.frame(frame.number, frame.at, frame.link, &frame.bytes)?;
    }
    Ok(assembly.found)
}

struct Assembly {
    port: u16,
    pool: IpDefragPool,
    found: Vec<Datagram>,
}

impl Assembly {
    fn frame(
        &mut self,
        number: usize,
        at: Duration,
        link: DataLink,
        frame: &[u8],
    ) -> Result<(), Error> {
        let sliced = match link {
            DataLink::ETHERNET => SlicedPacket::from_ethernet(frame).ok(),
            DataLink::LINUX_SLL => SlicedPacket::from_linux_sll(frame).ok(),
            DataLink::LINUX_SLL2 => frame.split_at_checked(SLL2).and_then(|(header, packet)| {
                let kind = EtherType(u16::from_be_bytes([header[0], header[1]]));
                SlicedPacket::from_ether_type(kind, packet).ok()
            }),
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => SlicedPacket::from_ip(frame).ok(),
            link => return Err(Error::Link { number, link }),
        };
        if let Some(sliced) = sliced
            && let Some((from, to)) = addresses(&sliced)
        {
            let whole = match &sliced.transport {
                Some(TransportSlice::Udp(udp)) => Some(Udp::of(udp)),
                Some(_) => None,
                None => self.defragmented(&sliced),
            };
            self.found.extend(whole.filter(|udp| udp.to == self.port).map(|udp| Datagram {
                at: Some(at),
                path: Some((SocketAddr::new(from, udp.from), SocketAddr::new(to, udp.to))),
                bytes: udp.payload,
            }));
        }
        Ok(())
    }

    /// The datagram that this fragment completes.
    fn defragmented(&mut self, fragment: &SlicedPacket<'_>) -> Option<Udp> {
        let whole = self.pool.process_sliced_packet(fragment, (), ()).ok()??;
        let IpDefragPayloadVec { ip_number: IpNumber::UDP, payload, .. } = whole else {
            return None;
        };
        UdpSlice::from_slice(&payload).ok().map(|udp| Udp::of(&udp))
    }
}

struct Udp {
    from: u16,
    to: u16,
    payload: Vec<u8>,
}

impl Udp {
    fn of(udp: &UdpSlice<'_>) -> Self {
        let (from, to) = (udp.source_port(), udp.destination_port());
        Self { from, to, payload: udp.payload().to_owned() }
    }
}

fn addresses(packet: &SlicedPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        NetSlice::Arp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use etherparse::PacketBuilder;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::{
        InterfaceDescriptionBlock, InterfaceDescriptionOption,
    };

    use super::*;

    const AT: Duration = Duration::new(1_700_000_000, 250_000_000);

    /// An Ethernet frame of a datagram from 10.0.0.1:9.
    fn frame(to: u16, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(9, to);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    /// The same in two fragments, the later one first.
    fn fragments(payload: &[u8]) -> [Vec<u8>; 2] {
        let whole = frame(PORT, payload);
        let (ethernet, rest) = whole.split_at(14);
        let (header, datagram) = rest.split_at(20);
        let fragment = |offset: usize, part: &[u8], more: bool| {
            let mut header = header.to_owned();
            header[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            let flags = (offset as u16 / 8) | if more { 0x2000 } else { 0 };
            header[6..8].copy_from_slice(&flags.to_be_bytes());
            [ethernet, &header, part].concat()
        };
        let (first, later) = datagram.split_at(24);
        [fragment(24, later, false), fragment(0, first, true)]
    }

    fn pcap(link: DataLink, frames: &[Vec<u8>]) -> Vec<u8> {
        let header = PcapHeader { datalink: link, ..Default::default() };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for frame in frames {
            writer.write_packet(&PcapPacket::new(AT, frame.len() as u32, frame)).unwrap();
        }
        writer.into_writer()
    }

    fn pcapng(resolution: Option<u8>, ticks: Duration, frame: &[u8]) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let options = resolution.map(InterfaceDescriptionOption::IfTsResol);
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: options.into_iter().collect(),
        };
        writer.write_pcapng_block(interface).unwrap();
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: ticks,
            original_len: frame.len() as u32,
            data: frame.into(),
            options: Vec::new(),
        };
        writer.write_pcapng_block(packet).unwrap();
        writer.into_inner()
    }

    const PORT: u16 = 5555;

    #[test]
    fn files() {
        let path = Some(("10.0.0.1:9".parse().unwrap(), "10.0.0.2:5555".parse().unwrap()));
        let payload = b"what an amphora says, more or less";
        let found = || vec![Datagram { at: Some(AT), path, bytes: payload.to_vec() }];
        let whole = frame(PORT, payload);
        let sll2 = [&[8, 0][..], &[0; 18], &whole[14..]].concat();
        let ticks = |a_second: u64| Duration::from_nanos(1_700_000_000 * a_second + a_second / 4);
        let rows = [
            ("pcap", pcap(DataLink::ETHERNET, from_ref(&whole)), found()),
            ("of any interface", pcap(DataLink::LINUX_SLL2, &[sll2]), found()),
            ("IP alone", pcap(DataLink::RAW, &[whole[14..].to_vec()]), found()),
            ("in fragments", pcap(DataLink::ETHERNET, &fragments(payload)), found()),
            ("half of it", pcap(DataLink::ETHERNET, &fragments(payload)[..1]), Vec::new()),
            ("another port", pcap(DataLink::ETHERNET, &[frame(53, payload)]), Vec::new()),
            ("cut short", pcap(DataLink::ETHERNET, &[whole[..40].to_vec()]), Vec::new()),
            ("pcapng", pcapng(None, ticks(1_000_000), &whole), found()),
            ("in nanoseconds", pcapng(Some(9), ticks(1_000_000_000), &whole), found()),
            ("in 1024ths", pcapng(Some(0x8a), ticks(1024), &whole), found()),
            (
                "a datagram",
                payload.to_vec(),
                vec![Datagram { at: None, path: None, bytes: payload.to_vec() }],
            ),
        ];
        for (row, file, want) in rows {
            assert_eq!(datagrams(&file, PORT).unwrap(), want, "{row}");
        }
        let other = datagrams(&pcap(DataLink::USB_LINUX, from_ref(&whole)), PORT);
        assert!(matches!(other, Err(Error::Link { number: 1, link: DataLink::USB_LINUX })));
        let mut torn = pcap(DataLink::ETHERNET, &[whole.clone(), whole]);
        torn.truncate(torn.len() - 1);
        assert!(matches!(
            datagrams(&torn, PORT),
            Err(Error::Capture(pcap::Error { number: 2, .. }))
        ));
    }
}
