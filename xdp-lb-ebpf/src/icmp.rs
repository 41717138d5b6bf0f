//! ICMP errors about our flows, translated both ways, inner header and all: path MTU discovery works.
//!
//! The inner header is what we sent. Turned round, it is the key of the entry by which answers to it
//! come; that entry's rewrite says who must hear of the error, and what he had sent himself.

use crate::abi::{TCP, UDP};
use crate::family::{Address, Key, Slot, V4, V6};
use crate::flows::{self, State};
use crate::headers::{self, Ethernet, Ipv4, Ipv6, Ports, Udp};
use crate::parse::Piece;
use crate::path::hop;
use crate::rewrite::Rewrite;
use crate::tables::Way;
use crate::{Packet, Reason, Tables, checksum};

const ICMP_HEADER: usize = size_of::<headers::Icmp>();
/// Least that is quoted of a transport header (RFC 792).
const QUOTED_MIN: u32 = 8;
/// Where TCP keeps its checksum, which errors need not quote.
const TCP_CHECK: usize = 16;

/// What an error quotes. Aligned, because LLVM may read both addresses at once wherever they lie,
/// behind the byte that tells some from none, and the verifier refuses that on the stack.
#[repr(C, align(8))]
pub struct Quoted<A> {
    src: A,
    dst: A,
    proto: u8,
}

pub trait Icmp: Rewrite {
    /// Whether a type quotes the datagram it is about.
    fn quotes(kind: u8) -> bool;
    /// Addresses and protocol of the quoted header at `offset`; none where it has no ports.
    fn quoted(packet: &Packet<'_>, offset: usize) -> Option<Quoted<Self::Addr>>;
    /// Replaces its addresses, and says what that adds to the sum of its bytes.
    fn requote(
        packet: &mut Packet<'_>,
        offset: usize,
        src: Self::Addr,
        dst: Self::Addr,
        addr_delta: u16,
    ) -> Option<u32>;
    /// What new outer addresses add to the ICMP checksum: ICMPv6 covers a pseudo header.
    fn pseudo(addr_delta: u16) -> u32;
}

impl Icmp for V4 {
    #[inline(always)]
    fn quotes(kind: u8) -> bool {
        // Destination unreachable, time exceeded, parameter problem.
        matches!(kind, 3 | 11 | 12)
    }
    #[inline(always)]
    fn quoted(packet: &Packet<'_>, offset: usize) -> Option<Quoted<[u8; 4]>> {
        let ip: &Ipv4 = packet.at(offset)?;
        let whole = ip.version_length == 0x45 && u16::from_be_bytes(ip.fragment) & 0x1fff == 0;
        whole.then_some(Quoted { src: ip.src, dst: ip.dst, proto: ip.proto })
    }
    #[inline(always)]
    fn requote(
        packet: &mut Packet<'_>,
        offset: usize,
        src: [u8; 4],
        dst: [u8; 4],
        addr_delta: u16,
    ) -> Option<u32> {
        let ip: &mut Ipv4 = packet.at_mut(offset)?;
        let check = checksum::add(ip.check, addr_delta.into());
        let delta = u32::from(addr_delta) + checksum::difference(&ip.check, &check);
        (ip.src, ip.dst, ip.check) = (src, dst, check);
        Some(delta)
    }
    #[inline(always)]
    fn pseudo(_: u16) -> u32 {
        0
    }
}

impl Icmp for V6 {
    #[inline(always)]
    fn quotes(kind: u8) -> bool {
        // Unreachable, too big, time exceeded, parameter problem.
        matches!(kind, 1..=4)
    }
    #[inline(always)]
    fn quoted(packet: &Packet<'_>, offset: usize) -> Option<Quoted<[u8; 16]>> {
        let ip: &Ipv6 = packet.at(offset)?;
        Some(Quoted { src: ip.src, dst: ip.dst, proto: ip.next })
    }
    #[inline(always)]
    fn requote(
        packet: &mut Packet<'_>,
        offset: usize,
        src: [u8; 16],
        dst: [u8; 16],
        addr_delta: u16,
    ) -> Option<u32> {
        let ip: &mut Ipv6 = packet.at_mut(offset)?;
        (ip.src, ip.dst) = (src, dst);
        Some(addr_delta.into())
    }
    #[inline(always)]
    fn pseudo(addr_delta: u16) -> u32 {
        addr_delta.into()
    }
}

/// Translates an error about one of our flows; everything else is the kernel's.
#[inline(always)]
pub fn error<F: Icmp, T: Tables>(packet: &mut Packet<'_>, tables: &T) -> Result<u32, Reason> {
    let ip = F::datagram(packet)?;
    let icmp: &headers::Icmp = packet.at(ip.transport).ok_or(Reason::Truncated)?;
    if !F::quotes(icmp.kind) || ip.piece != Piece::Whole {
        return Err(Reason::Icmp);
    }
    // Bytes behind the IP datagram are padding, and no part of the checksum.
    let quoted_length = ip.length.saturating_sub((ICMP_HEADER + F::HEADER) as u32);
    if quoted_length < QUOTED_MIN {
        return Err(Reason::Icmp);
    }
    let inner = ip.transport + ICMP_HEADER;
    let transport = inner + F::HEADER;
    let Quoted { src, dst, proto } = F::quoted(packet, inner).ok_or(Reason::Icmp)?;
    let ports: Ports = *packet.at(transport).ok_or(Reason::Icmp)?;
    // Answers to what was sent come from `dst` to `src`.
    let key = Key { src: dst, dst: src, sport: ports.dport, dport: ports.sport, proto };
    let key = F::words(&key);
    let home = flows::home::<F, T>(tables, &key);
    let Ok(met) = flows::find::<F, T>(tables, &key, home) else {
        return Err(Reason::Icmp);
    };
    // Read again rather than kept over the look-up: 32 bytes less of stack, which with those of the
    // function that is called must stay below 512.
    let ip = F::datagram(packet)?;
    let nat = met.slot.nat();
    if !met.state.same_flow(State(met.slot.state().load())) {
        return Err(Reason::Contended);
    }
    let way = if met.state.has(State::FORWARD) { Way::In } else { Way::Out };
    let ethernet: Ethernet = *packet.at(0).ok_or(Reason::Truncated)?;
    // `ingress` of the flow's own frames is not this frame's: ask for the MAC unless it is known.
    let hop = hop(tables, &nat, way, 0, &ethernet)?;

    let outer = checksum::fold(ip.src.difference(&nat.src) + ip.dst.difference(&nat.dst));
    F::header(packet, nat.src, nat.dst, outer, &hop)?;

    let requoted =
        F::requote(packet, inner, nat.dst, nat.src, nat.addr_delta).ok_or(Reason::Truncated)?;
    let mut delta = F::pseudo(outer) + requoted;
    let quoted: &mut Ports = packet.at_mut(transport).ok_or(Reason::Truncated)?;
    delta += checksum::difference(&quoted.sport, &nat.dport)
        + checksum::difference(&quoted.dport, &nat.sport);
    (quoted.sport, quoted.dport) = (nat.dport, nat.sport);
    if proto != TCP || quoted_length >= TCP_CHECK as u32 + 2 {
        delta += transport_check(packet, transport, proto, nat.full_delta);
    }

    let icmp: &mut headers::Icmp = packet.at_mut(ip.transport).ok_or(Reason::Truncated)?;
    icmp.check = checksum::add(icmp.check, delta);
    tables.count(nat.backend.into(), way, ip.bytes, 0);
    Ok(hop.ifindex)
}

/// Mends the quoted transport checksum, where it is quoted, and says what that adds to the sum.
#[inline(always)]
fn transport_check(packet: &mut Packet<'_>, transport: usize, proto: u8, delta: u16) -> u32 {
    let (check, new): (&mut [u8; 2], [u8; 2]) = match proto {
        TCP => match packet.at_mut(transport + TCP_CHECK) {
            Some(check) => {
                let new = checksum::add(*check, delta.into());
                (check, new)
            }
            None => return 0,
        },
        UDP => match packet.at_mut::<Udp>(transport) {
            Some(udp) => {
                let new = checksum::add_udp(udp.check, delta.into());
                (&mut udp.check, new)
            }
            None => return 0,
        },
        _ => return 0,
    };
    let changed = checksum::difference(check, &new);
    *check = new;
    changed
}
