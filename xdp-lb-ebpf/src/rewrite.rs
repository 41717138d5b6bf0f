//! Full NAT of one frame: MACs, addresses, TTL, ports, checksums. All of it, or nothing.

use crate::abi::{SCTP, TCP, UDP};
use crate::family::{Nat, V4, V6};
use crate::headers::{Ethernet, Ipv4, Ipv6, Mac, Sctp, Tcp, Udp};
use crate::parse::{Datagram, Parse};
use crate::{Packet, Reason, Tables, checksum, sctp};

/// Where a frame goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub ifindex: u32,
    pub mac: Mac,
    pub own_mac: Mac,
}

/// What each family's IP header needs.
pub trait Rewrite: Parse {
    /// Writes MACs and addresses and takes one off the TTL. Nothing is written on an error.
    fn header(
        packet: &mut Packet<'_>,
        src: Self::Addr,
        dst: Self::Addr,
        addr_delta: u16,
        hop: &Hop,
    ) -> Result<(), Reason>;
}

/// Ethernet and IP in one piece: one bounds check.
macro_rules! frame {
    ($name:ident, $ip:ty) => {
        #[repr(C)]
        #[derive(
            zerocopy::FromBytes,
            zerocopy::Immutable,
            zerocopy::IntoBytes,
            zerocopy::KnownLayout,
            zerocopy::Unaligned,
        )]
        pub struct $name {
            pub ethernet: Ethernet,
            pub ip: $ip,
        }
    };
}
frame!(Frame4, Ipv4);
frame!(Frame6, Ipv6);

impl Rewrite for V4 {
    #[inline(always)]
    fn header(
        packet: &mut Packet<'_>,
        src: [u8; 4],
        dst: [u8; 4],
        addr_delta: u16,
        hop: &Hop,
    ) -> Result<(), Reason> {
        let Frame4 { ethernet, ip } = packet.at_mut(0).ok_or(Reason::Truncated)?;
        if ip.ttl <= 1 {
            return Err(Reason::HopLimit);
        }
        (ethernet.dst, ethernet.src) = (hop.mac.bytes(), hop.own_mac.bytes());
        (ip.src, ip.dst) = (src, dst);
        ip.ttl -= 1;
        ip.check = checksum::add(ip.check, u32::from(addr_delta) + checksum::TTL_LESS);
        Ok(())
    }
}

impl Rewrite for V6 {
    #[inline(always)]
    fn header(
        packet: &mut Packet<'_>,
        src: [u8; 16],
        dst: [u8; 16],
        _: u16,
        hop: &Hop,
    ) -> Result<(), Reason> {
        let Frame6 { ethernet, ip } = packet.at_mut(0).ok_or(Reason::Truncated)?;
        if ip.hops <= 1 {
            return Err(Reason::HopLimit);
        }
        (ethernet.dst, ethernet.src) = (hop.mac.bytes(), hop.own_mac.bytes());
        (ip.src, ip.dst) = (src, dst);
        ip.hops -= 1;
        Ok(())
    }
}

/// Rewrites a frame that has its ports.
#[inline(always)]
pub fn segment<F: Rewrite, T: Tables>(
    packet: &mut Packet<'_>,
    ip: &Datagram<F::Addr>,
    nat: &Nat<F::Addr>,
    hop: &Hop,
    tables: &T,
) -> Result<(), Reason> {
    F::header(packet, nat.src, nat.dst, nat.addr_delta, hop)?;
    let delta = u32::from(nat.full_delta);
    match ip.proto {
        TCP => {
            let tcp: &mut Tcp = packet.at_mut(ip.transport).ok_or(Reason::Truncated)?;
            (tcp.sport, tcp.dport) = (nat.sport, nat.dport);
            tcp.check = checksum::add(tcp.check, delta);
        }
        UDP => {
            let udp: &mut Udp = packet.at_mut(ip.transport).ok_or(Reason::Truncated)?;
            (udp.sport, udp.dport) = (nat.sport, nat.dport);
            udp.check = checksum::add_udp(udp.check, delta);
        }
        SCTP => {
            let header: &mut Sctp = packet.at_mut(ip.transport).ok_or(Reason::Truncated)?;
            let change = ports(header.sport, header.dport) ^ ports(nat.sport, nat.dport);
            if change != 0 {
                header.check = sctp::add(header.check, tables.crc_shift(change, ip.length));
            }
            (header.sport, header.dport) = (nat.sport, nat.dport);
        }
        _ => return Err(Reason::OtherProtocol),
    }
    Ok(())
}

#[inline(always)]
fn ports([a, b]: [u8; 2], [c, d]: [u8; 2]) -> u32 {
    u32::from_le_bytes([a, b, c, d])
}
