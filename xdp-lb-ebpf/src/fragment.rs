//! Fragments: the first has the ports and finds the flow; the rest follow it.
//!
//! The identification is replaced by one of ours. Towards a member all clients have one source
//! address, and two of them may use the same identification at once.

use crate::abi::{Fragment, FragmentKey};
use crate::family::{Address, V4, V6};
use crate::headers::{Ipv4, Ipv6Fragment, Mac};
use crate::parse::{Datagram, IP};
use crate::path::Sent;
use crate::rewrite::{Hop, Rewrite};
use crate::tables::Way;
use crate::{Packet, Reason, Tables, checksum};

/// Where each family keeps the identification.
pub trait Fragmented: Rewrite {
    fn id(packet: &Packet<'_>) -> Option<[u8; 4]>;
    fn set_id(packet: &mut Packet<'_>, id: [u8; 4]) -> Option<()>;
}

impl Fragmented for V4 {
    #[inline(always)]
    fn id(packet: &Packet<'_>) -> Option<[u8; 4]> {
        let [high, low] = packet.at::<Ipv4>(IP)?.id;
        Some([0, 0, high, low])
    }
    #[inline(always)]
    fn set_id(packet: &mut Packet<'_>, [_, _, high, low]: [u8; 4]) -> Option<()> {
        let ip: &mut Ipv4 = packet.at_mut(IP)?;
        ip.check = checksum::add(ip.check, checksum::difference(&ip.id, &[high, low]));
        ip.id = [high, low];
        Some(())
    }
}

impl Fragmented for V6 {
    #[inline(always)]
    fn id(packet: &Packet<'_>) -> Option<[u8; 4]> {
        Some(packet.at::<Ipv6Fragment>(IP + 40)?.id)
    }
    #[inline(always)]
    fn set_id(packet: &mut Packet<'_>, id: [u8; 4]) -> Option<()> {
        packet.at_mut::<Ipv6Fragment>(IP + 40)?.id = id;
        Some(())
    }
}

/// Remembers what a first fragment, rewritten already, was given.
#[inline(always)]
pub fn first<F: Fragmented, T: Tables>(
    packet: &mut Packet<'_>,
    ip: &Datagram<F::Addr>,
    Sent { nat, way, hop }: &Sent<F::Addr>,
    tables: &T,
) -> Result<(), Reason> {
    let id = tables.next_fragment_id().to_be_bytes();
    let rest = Fragment {
        src: nat.src.wide(),
        dst: nat.dst.wide(),
        id,
        ifindex: hop.ifindex,
        mac: hop.mac.0,
        own_mac: hop.own_mac.0,
        backend: nat.backend.into(),
        reply: (*way == Way::Out).into(),
    };
    tables.keep_fragment(&key::<F>(packet, ip)?, &rest);
    F::set_id(packet, id).ok_or(Reason::Truncated)
}

/// Sends a later fragment after its first.
#[inline(always)]
pub fn later<F: Fragmented, T: Tables>(
    packet: &mut Packet<'_>,
    ip: &Datagram<F::Addr>,
    tables: &T,
) -> Result<u32, Reason> {
    let rest = tables.fragment(&key::<F>(packet, ip)?).ok_or(Reason::FragmentUnknown)?;
    let (src, dst) = (F::Addr::narrow(rest.src), F::Addr::narrow(rest.dst));
    let delta = checksum::fold(ip.src.difference(&src) + ip.dst.difference(&dst));
    let hop = Hop { ifindex: rest.ifindex, mac: Mac(rest.mac), own_mac: Mac(rest.own_mac) };
    F::header(packet, src, dst, delta, &hop)?;
    F::set_id(packet, rest.id).ok_or(Reason::Truncated)?;
    let way = if rest.reply == 0 { Way::In } else { Way::Out };
    tables.count(rest.backend, way, ip.bytes, ip.length);
    Ok(rest.ifindex)
}

#[inline(always)]
fn key<F: Fragmented>(packet: &Packet<'_>, ip: &Datagram<F::Addr>) -> Result<FragmentKey, Reason> {
    let id = F::id(packet).ok_or(Reason::Truncated)?;
    Ok(FragmentKey { src: ip.src.wide(), dst: ip.dst.wide(), id, proto: ip.proto.into() })
}
