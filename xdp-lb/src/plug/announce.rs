//! Addresses made known to the neighbours: gratuitous ARP, and unsolicited neighbour advertisements.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;

use agent_api::plug::Mac;
use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, PacketBuilder};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket,
};

use crate::namespace::Namespace;

const EVERYBODY: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The Ethernet address of a multicast group ends with that of the group (RFC 2464).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// Router, Override; not Solicited.
const FLAGS: NeighborAdvertisementHeader =
    NeighborAdvertisementHeader { router: true, solicited: false, r#override: true };

/// The frame by which an interface tells of an address of its own.
///
/// IPv4: a broadcast ARP request of the address for itself. IPv6: an unsolicited neighbour advertisement
/// to all nodes (RFC 4861, 7.2.6). The flags, and the target of the ARP, are those of the stock agent
/// (Octavia `amphorae/backends/utils/ip_advertisement.py`).
pub fn frame(mac: Mac, address: IpAddr) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    let written = match address {
        IpAddr::V4(address) => {
            let protocol = address.octets();
            let packet = ArpPacket::new(
                ArpHardwareId::ETHERNET,
                EtherType::IPV4,
                ArpOperation::REQUEST,
                &mac.0,
                &protocol,
                &EVERYBODY,
                &protocol,
            );
            let packet = packet.map_err(io::Error::other)?;
            let builder = PacketBuilder::ethernet2(mac.0, EVERYBODY).arp(packet);
            builder.write(&mut frame)
        }
        IpAddr::V6(address) => {
            // The target; then option 2, of 1 times 8 bytes: its link-layer address.
            let body = [&address.octets()[..], &[2, 1], &mac.0].concat();
            PacketBuilder::ethernet2(mac.0, ALL_NODES_MAC)
                .ipv6(address.octets(), ALL_NODES.octets(), 255)
                .icmpv6(Icmpv6Type::NeighborAdvertisement(FLAGS))
                .write(&mut frame, &body)
        }
    };
    written.map_err(io::Error::other)?;
    Ok(frame)
}

/// Sends frames out of the interfaces of these indexes.
pub fn send(namespace: &Namespace, frames: &[(u32, Vec<u8>)]) -> io::Result<()> {
    namespace.enter(|| {
        // No protocol: nothing is received.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        for (index, frame) in frames {
            sendto(socket.as_raw_fd(), frame, &interface(*index)?, MsgFlags::empty())?;
        }
        Ok(())
    })?
}

/// The address of an interface for a packet socket; where a frame goes stands in the frame.
fn interface(index: u32) -> io::Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index.try_into().map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` is whole, of the family it says, and `length` bytes long.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    address.ok_or_else(|| io::Error::other("no address of an interface"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);
        let arp: &[&[u8]] = &[
            &[0xff; 6],
            &mac.0,
            &[0x08, 0x06],
            // Ethernet, IPv4, their lengths, request.
            &[0, 1, 8, 0, 6, 4, 0, 1],
            &mac.0,
            &[10, 0, 0, 10],
            &[0xff; 6],
            &[10, 0, 0, 10],
        ];
        let vip = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
        let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let advertisement: &[&[u8]] = &[
            &[0x33, 0x33, 0, 0, 0, 1],
            &mac.0,
            &[0x86, 0xdd],
            // Version 6, 32 bytes of ICMPv6, hop limit 255.
            &[0x60, 0, 0, 0, 0, 32, 58, 255],
            &vip,
            &all_nodes,
            // Advertisement, checksum, Router and Override.
            &[136, 0, 0x42, 0xf5, 0xa0, 0, 0, 0],
            &vip,
            &[2, 1],
            &mac.0,
        ];
        for (address, want) in [("10.0.0.10", arp), ("2001:db8::10", advertisement)] {
            let frame = frame(mac, address.parse().unwrap()).unwrap();
            assert_eq!(frame, want.concat(), "{address}");
        }
    }
}
