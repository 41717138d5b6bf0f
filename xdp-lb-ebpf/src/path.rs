//! A packet's way, from top to bottom.
//!
//! [`known`] is what nearly every frame takes: parse, one lookup, rewrite, send. What it cannot do
//! itself it hands to another [`Stage`]. On the host a stage is a function; in the kernel it is a
//! program of its own, reached by a tail call, so that each has the whole of the 512 bytes of BPF stack
//! and the hot program stays small. A stage parses again: what it needs is in the cache by then.

use crate::abi::{BACKEND_STICKY, BACKEND_UP, Backend, ListenerKey, NetworkKey, SCTP, TCP, UDP};
use crate::family::{Address, Family, Key, Nat, Slot, V4, V6};
use crate::flows::{self, Absent, Met, NOWHERE, Refused, State};
use crate::fragment::{self, Fragmented};
use crate::headers::{
    ACK, Ethernet, FIN, KIND_IPV4, KIND_IPV6, KIND_QINQ, KIND_VLAN, Mac, RST, SYN, Tcp, Udp,
};
use crate::icmp::{self, Icmp};
use crate::limits::{PORT_EAGER, PORT_TRIES};
use crate::parse::{self, Datagram, Piece, Segment};
use crate::progress::{Progress, account, news};
use crate::rewrite::{self, Hop};
use crate::tables::{Choice, Sockets, Way};
use crate::{Packet, Reason, Tables, checksum, select};

/// One of the path's programs.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Where every frame begins, and nearly all end.
    Known = 0,
    /// Whose frame it is, and which member shall have it.
    Select4 = 1,
    Select6 = 2,
    /// A new flow to the member selected.
    Open4 = 3,
    Open6 = 4,
    Icmp4 = 5,
    Icmp6 = 6,
    /// Fragments, and frames whose flow was opened just now.
    Follow = 7,
    /// An answer in place of silence: not part of [`frame`], since it changes the frame's length.
    Answer = 8,
    /// Tells of a frame that is over, where that is asked for: not part of [`frame`] either.
    Tell = 9,
}

pub const STAGES: u32 = 10;

/// Why a stage did not send a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    Over(Reason),
    Goes(Stage),
}

impl From<Reason> for Miss {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self::Over(reason)
    }
}

/// Both families' parts, as the stages need them.
pub trait Routed: Icmp + Fragmented {
    const SELECT: Stage;
    const OPEN: Stage;
    const ICMP_STAGE: Stage;
    /// [`progress`](crate::progress::progress), as the tables call it.
    fn progress<T: Tables>(tables: &T, progress: &Progress);
}
impl Routed for V4 {
    const SELECT: Stage = Stage::Select4;
    const OPEN: Stage = Stage::Open4;
    const ICMP_STAGE: Stage = Stage::Icmp4;
    #[inline(always)]
    fn progress<T: Tables>(tables: &T, progress: &Progress) {
        tables.progress4(progress);
    }
}
impl Routed for V6 {
    const SELECT: Stage = Stage::Select6;
    const OPEN: Stage = Stage::Open6;
    const ICMP_STAGE: Stage = Stage::Icmp6;
    #[inline(always)]
    fn progress<T: Tables>(tables: &T, progress: &Progress) {
        tables.progress6(progress);
    }
}

/// Rewrites a frame that came in by `ingress`, and says by which interface it leaves.
pub fn frame<T: Tables + Sockets>(
    packet: &mut Packet<'_>,
    ingress: u32,
    tables: &T,
) -> Result<u32, Reason> {
    let mut at = Stage::Known;
    for _ in 0..STAGES_PASSED_MAX {
        match stage(at, packet, ingress, tables) {
            Ok(egress) => return Ok(egress),
            Err(Miss::Over(reason)) => return Err(reason),
            Err(Miss::Goes(next)) => at = next,
        }
    }
    Err(Reason::StageMissing)
}

/// More than any frame passes: known, follow, select, open, follow.
pub const STAGES_PASSED_MAX: usize = 8;

/// One stage of [`frame`].
pub fn stage<T: Tables + Sockets>(
    stage: Stage,
    packet: &mut Packet<'_>,
    ingress: u32,
    tables: &T,
) -> Result<u32, Miss> {
    match stage {
        Stage::Known => known(packet, ingress, tables),
        Stage::Select4 => choose::<V4, T>(packet, ingress, tables, tables),
        Stage::Select6 => choose::<V6, T>(packet, ingress, tables, tables),
        Stage::Open4 => open::<V4, T>(packet, ingress, tables),
        Stage::Open6 => open::<V6, T>(packet, ingress, tables),
        Stage::Icmp4 => icmp::error::<V4, T>(packet, tables).map_err(Miss::Over),
        Stage::Icmp6 => icmp::error::<V6, T>(packet, tables).map_err(Miss::Over),
        Stage::Follow => followed(packet, ingress, tables),
        Stage::Answer | Stage::Tell => Err(Reason::StageMissing.into()),
    }
}

/// Frames of known flows.
#[inline(always)]
pub fn known<T: Tables>(packet: &mut Packet<'_>, ingress: u32, tables: &T) -> Result<u32, Miss> {
    let ethernet: &Ethernet = packet.at(0).ok_or(Reason::Truncated)?;
    match ethernet.kind {
        KIND_IPV4 => known_datagram::<V4, T>(packet, ingress, tables),
        KIND_IPV6 => known_datagram::<V6, T>(packet, ingress, tables),
        KIND_VLAN | KIND_QINQ => Err(Reason::Vlan.into()),
        _ => Err(Reason::NotIp.into()),
    }
}

#[inline(always)]
fn known_datagram<F: Routed, T: Tables>(
    packet: &mut Packet<'_>,
    ingress: u32,
    tables: &T,
) -> Result<u32, Miss> {
    let ip = F::datagram(packet)?;
    if ip.piece != Piece::Whole {
        return Err(Miss::Goes(Stage::Follow));
    }
    if ip.proto == F::ICMP {
        return Err(Miss::Goes(F::ICMP_STAGE));
    }
    let segment = parse::segment(packet, &ip)?;
    // Nearly always of a new flow: its slot and that of its answers are then waited for together.
    if segment.opens() {
        return Err(Miss::Goes(F::SELECT));
    }
    Ok(follow::<F, T>(packet, ingress, &ip, &segment, tables)?.hop.ifindex)
}

/// Finds the flow of a frame that has its ports, and sends the frame after it.
#[inline(always)]
fn follow<F: Routed, T: Tables>(
    packet: &mut Packet<'_>,
    ingress: u32,
    ip: &Datagram<F::Addr>,
    segment: &Segment<F::Addr>,
    tables: &T,
) -> Result<Sent<F::Addr>, Miss> {
    let key = F::words(&segment.key);
    let home = flows::home::<F, T>(tables, &key);
    match flows::find::<F, T>(tables, &key, home) {
        Ok(met) if !stale(tables, &met, segment) => {
            Ok(carry(packet, ingress, ip, segment, &met, tables)?)
        }
        _ => Err(Miss::Goes(F::SELECT)),
    }
}

/// Fragments, and frames whose flow was opened just now.
#[inline(always)]
pub fn followed<T: Tables>(packet: &mut Packet<'_>, ingress: u32, tables: &T) -> Result<u32, Miss> {
    let ethernet: &Ethernet = packet.at(0).ok_or(Reason::Truncated)?;
    match ethernet.kind {
        KIND_IPV4 => followed_datagram::<V4, T>(packet, ingress, tables),
        _ => followed_datagram::<V6, T>(packet, ingress, tables),
    }
}

#[inline(always)]
fn followed_datagram<F: Routed, T: Tables>(
    packet: &mut Packet<'_>,
    ingress: u32,
    tables: &T,
) -> Result<u32, Miss> {
    let ip = F::datagram(packet)?;
    match ip.piece {
        Piece::Later => return Ok(fragment::later::<F, T>(packet, &ip, tables)?),
        Piece::First if ip.proto == SCTP => return Err(Reason::SctpFragment.into()),
        Piece::First | Piece::Whole => {}
    }
    let segment = parse::segment(packet, &ip)?;
    let sent = follow::<F, T>(packet, ingress, &ip, &segment, tables)?;
    if ip.piece == Piece::First {
        fragment::first::<F, T>(packet, &ip, &sent, tables)?;
    }
    Ok(sent.hop.ifindex)
}

/// How a frame was sent on.
pub struct Sent<A> {
    pub nat: Nat<A>,
    pub way: Way,
    pub hop: Hop,
}

/// Sends a frame of a known flow on its way.
#[inline(always)]
fn carry<F: Routed, T: Tables>(
    packet: &mut Packet<'_>,
    ingress: u32,
    ip: &Datagram<F::Addr>,
    segment: &Segment<F::Addr>,
    met: &Met<'_, F>,
    tables: &T,
) -> Result<Sent<F::Addr>, Reason> {
    let nat = met.slot.nat();
    if !met.state.same_flow(State(met.slot.state().load())) {
        return Err(Reason::Contended);
    }
    if met.state.has(State::RESET) {
        let answers = segment.flags & RST == 0;
        return Err(if answers { Reason::NoMember } else { Reason::NotAnOpening });
    }
    let now_s = tables.now_s();
    if met.slot.seen_s().load() != now_s {
        met.slot.seen_s().store(now_s);
    }
    let way = if met.state.has(State::FORWARD) { Way::In } else { Way::Out };
    let ethernet: Ethernet = *packet.at(0).ok_or(Reason::Truncated)?;
    if way == Way::In && (Mac::new(ethernet.src) != nat.mac || ingress != nat.ifindex) {
        follow_client(tables, met, nat.peer, &ethernet, ingress);
    }
    // One test for the many frames that say nothing new of a connection nobody keeps an account of.
    if met.state.0 & (State::ANSWERED | State::ACCOUNTED) != State::ANSWERED
        || segment.flags & (FIN | RST) != 0
    {
        if let Some(account) = account(tables, met) {
            account.carry(segment.payload);
        }
        if let Some(news) = news(met.state, way, segment.flags) {
            let backend = nat.backend.into();
            let (index, state, peer) = (met.index, met.state, nat.peer);
            F::progress(tables, &Progress { index, state, peer, backend, news });
        }
    }
    let hop = hop(tables, &nat, way, ingress, &ethernet)?;
    rewrite::segment::<F, T>(packet, ip, &nat, &hop, tables)?;
    tables.count(nat.backend.into(), way, ip.bytes, segment.payload);
    Ok(Sent { nat, way, hop })
}

/// Where a frame of a flow goes: members as the control program says, clients where they came from.
#[inline(always)]
pub fn hop<A: Address, T: Tables>(
    tables: &T,
    nat: &Nat<A>,
    way: Way,
    ingress: u32,
    ethernet: &Ethernet,
) -> Result<Hop, Reason> {
    match way {
        Way::In => {
            let at = tables.backend(nat.backend.into()).ok_or(Reason::NoNextHop)?;
            let hop =
                Hop { ifindex: at.ifindex, mac: Mac::new(at.mac), own_mac: Mac::new(at.own_mac) };
            if hop.ifindex == 0 { Err(Reason::NoNextHop) } else { Ok(hop) }
        }
        Way::Out => {
            let own_mac = if ingress == nat.ifindex {
                ethernet.dst
            } else {
                tables.port_mac(nat.ifindex).ok_or(Reason::EgressGone)?
            };
            let own_mac = Mac::new(own_mac);
            Ok(Hop { ifindex: nat.ifindex, mac: nat.mac, own_mac })
        }
    }
}

/// The client's frames come by another router or interface than before: answers go there from now on.
#[inline(always)]
fn follow_client<F: Family, T: Tables>(
    tables: &T,
    met: &Met<'_, F>,
    peer: u32,
    ethernet: &Ethernet,
    ingress: u32,
) {
    let mac = Mac::new(ethernet.src);
    // Found before the flow proves to be the same still: so it is this flow's other half.
    let other = flows::peer::<F, T>(tables, met.index, peer);
    if flows::move_client(met, mac, ingress)
        && let Some(other) = other
    {
        flows::move_client(&other, mac, ingress);
    }
}

/// Whether a known flow must be opened anew: a SYN where the connection is over; a first packet
/// repeated where the member went down or the answer's entry is gone; UDP to a member that is down.
#[inline(always)]
fn stale<F: Family, T: Tables>(tables: &T, met: &Met<'_, F>, segment: &Segment<F::Addr>) -> bool {
    let tcp = segment.key.proto == TCP;
    if tcp && segment.flags & (SYN | ACK) != SYN || !met.state.has(State::FORWARD) {
        return false;
    }
    if met.state.has(State::CLOSED) {
        return true;
    }
    if met.state.has(State::ANSWERED) && segment.key.proto != UDP {
        return false;
    }
    let down = tables
        .backend(met.slot.backend().into())
        .is_none_or(|at| at.flags & (BACKEND_UP | BACKEND_STICKY) == 0);
    down || !met.state.has(State::REPLIED)
        && flows::peer::<F, T>(tables, met.index, met.slot.peer()).is_none()
}

/// Removes both entries of a connection.
#[inline(always)]
fn retire<F: Family, T: Tables>(tables: &T, met: &Met<'_, F>) {
    // Found before the flow proves to be the same still: so it is this flow's other half.
    let other = flows::peer::<F, T>(tables, met.index, met.slot.peer());
    if flows::remove(tables, met)
        && let Some(other) = other
    {
        flows::remove(tables, &other);
    }
}

/// Whom a frame is for: a MAC, and the interface it came in by.
#[derive(Clone, Copy)]
struct Addressee {
    mac: [u8; 6],
    ingress: u32,
}

/// Finds the listener of a frame without a flow, and the member that shall have it.
#[inline(always)]
pub fn choose<F: Routed, T: Tables>(
    packet: &Packet<'_>,
    ingress: u32,
    tables: &T,
    sockets: &impl Sockets,
) -> Result<u32, Miss> {
    let ip = F::datagram(packet)?;
    let segment = parse::segment(packet, &ip)?;
    let addressee =
        Addressee { mac: packet.at::<Ethernet>(0).ok_or(Reason::Truncated)?.dst, ingress };
    let (listener, reason) = match offer(tables, sockets, &segment, addressee) {
        Ok(choice) => {
            if partial_checksum(packet, &ip) {
                tables.count_reason(Reason::PartialChecksum);
            }
            tables.choose(|place| *place = choice);
            return Err(Miss::Goes(F::OPEN));
        }
        Err(refusal) => refusal,
    };
    // A SYN comes here without having been looked up.
    if segment.opens()
        && let Some(met) = met::<F, T>(tables, &segment)
    {
        if !stale(tables, &met, &segment) {
            return Err(Miss::Goes(Stage::Follow));
        }
        // HAProxy has the listener now, and the client begins anew from the same port: what it says
        // next must not follow the flow that is over.
        if reason == Reason::NoListener {
            retire(tables, &met);
        }
    }
    tables.count_refused(listener, |at| match reason {
        Reason::NetworkRefused => at.refused += 1,
        Reason::NoMember => at.unserved += 1,
        _ => {}
    });
    Err(reason.into())
}

/// What is offered to a new flow; else why nothing is, and the listener that says so.
#[inline(always)]
fn offer<A: Address, T: Tables>(
    tables: &T,
    sockets: &impl Sockets,
    segment: &Segment<A>,
    addressee: Addressee,
) -> Result<Choice, (u32, Reason)> {
    let Segment { key, flags, .. } = segment;
    let address = ListenerKey { addr: key.dst.wide(), port: key.dport, proto: key.proto, zero: 0 };
    let Some(listener) = tables.listener(&address) else {
        return Err((u32::MAX, Reason::NoListener));
    };
    // The kernel would not take it either (`PACKET_OTHERHOST`). A known flow is not asked: whose flow
    // it is, its first frame was for.
    if tables.port_mac(addressee.ingress).is_some_and(|own| own != addressee.mac) {
        return Err((listener.id, Reason::OtherHost));
    }
    // All but a SYN is the middle of a connection: of the other amphora's, where the VIP was until
    // now, or of HAProxy's, from before the listener was ours, which it keeps to its end. A SYN is
    // nobody's yet. Not even one that HAProxy has answered: what it has not accepted when it closes
    // its listener the kernel gives up (6.18, `inet_csk_listen_stop` and `tcp_v4_rcv`).
    if key.proto == TCP && !segment.opens() && sockets.have(key) {
        return Err((listener.id, Reason::LocalSocket));
    }
    if flags & RST != 0 || flags & (SYN | ACK) == SYN | ACK {
        return Err((listener.id, Reason::NotAnOpening));
    }
    let client = key.src.wide();
    if listener.restricted != 0 {
        let network = NetworkKey { listener: listener.id.to_be_bytes(), addr: client };
        if !tables.allowed(&network) {
            return Err((listener.id, Reason::NetworkRefused));
        }
    }
    let Some(backend) = select::backend(tables, &listener, &client, key.sport) else {
        return Err((listener.id, Reason::NoMember));
    };
    Ok(Choice {
        backend,
        listener: listener.id,
        connections_max: listener.connections_max,
        state: if listener.logged != 0 { State::ACCOUNTED } else { 0 },
    })
}

/// The flow of a segment, if the table has it.
#[inline(always)]
fn met<'a, F: Family, T: Tables>(tables: &'a T, segment: &Segment<F::Addr>) -> Option<Met<'a, F>> {
    let key = F::words(&segment.key);
    let home = flows::home::<F, T>(tables, &key);
    flows::find::<F, T>(tables, &key, home).ok()
}

/// Opens a flow to the member chosen, unless it is open already; then the frame follows it.
#[inline(always)]
pub fn open<F: Routed, T: Tables>(
    packet: &Packet<'_>,
    ingress: u32,
    tables: &T,
) -> Result<u32, Miss> {
    let ip = F::datagram(packet)?;
    let segment = parse::segment(packet, &ip)?;
    let key = F::words(&segment.key);
    let home = flows::home::<F, T>(tables, &key);
    let absent = match flows::find::<F, T>(tables, &key, home) {
        Ok(met) if !stale(tables, &met, &segment) => return Err(Miss::Goes(Stage::Follow)),
        Ok(met) => {
            retire(tables, &met);
            Absent::UNSURE
        }
        Err(absent) => absent,
    };
    admit::<F, T>(packet, ingress, tables, (home, absent))?;
    Err(Miss::Goes(Stage::Follow))
}

/// Limit, source port, both entries.
#[inline(always)]
fn admit<F: Routed, T: Tables>(
    packet: &Packet<'_>,
    ifindex: u32,
    tables: &T,
    (home, absent): (u32, Absent),
) -> Result<(), Miss> {
    let Choice { backend: id, listener, connections_max, state } = tables.chosen();
    let backend = tables.backend(id).ok_or(Reason::NoNextHop)?;
    // Read before anything is written: an atomic write waits for all that was read before it, and what
    // is read after it waits for the write. So the slots of both directions are on their way at once.
    let (port, back_home, back_absent) = free_port::<F, T>(packet, tables, backend)?;
    if state & State::ACCOUNTED != 0 {
        // Nearly always where they will be, and on their way too.
        for index in [home, back_home] {
            if let Some(account) =
                F::slot(tables, index).and_then(|slot| F::account(tables, index, slot))
            {
                account.payload.load();
            }
        }
    }
    // What may end in an error comes before what would have to be taken back.
    let Segment { key: tuple, .. } = again::<F>(packet)?;
    let mac = Mac::new(packet.at::<Ethernet>(0).ok_or(Reason::Truncated)?.src);
    if !flows::count_within(tables, listener, connections_max) {
        tables.count_refused(listener, |at| at.limited += 1);
        return Err(Reason::LimitReached.into());
    }
    let forward = match flows::claim::<F, T>(tables, &F::words(&tuple), home, absent) {
        Ok(forward) => forward,
        Err(refused) => return Err(refuse(tables, listener, refused)),
    };
    let back = F::words(&answer::<F>(backend, port, tuple.proto));
    let reverse = match flows::claim::<F, T>(tables, &back, back_home, back_absent) {
        Ok(reverse) => reverse,
        Err(refused) => {
            forward.give_back(tables);
            return Err(refuse(tables, listener, refused));
        }
    };
    if let Some(load) = tables.backend_load(id) {
        load.add(1);
    }
    tables.count_opened(id);
    let Key { src, dst, sport, dport, .. } = tuple;
    let (member, source) = (F::Addr::narrow(backend.addr), F::Addr::narrow(backend.source));
    let addr_delta = checksum::fold(src.difference(&source) + dst.difference(&member));
    let ports = checksum::difference(&sport, &port) + checksum::difference(&dport, &backend.port);
    let full_delta = checksum::fold(u32::from(addr_delta) + ports);
    let to_member = Nat {
        src: source,
        dst: member,
        sport: port,
        dport: backend.port,
        addr_delta,
        full_delta,
        backend: id as u16,
        mac,
        ifindex,
        peer: reverse.index,
    };
    let to_client = Nat {
        src: dst,
        dst: src,
        sport: dport,
        dport: sport,
        // What was added is taken away: in ones' complement, the complement.
        addr_delta: !addr_delta,
        full_delta: !full_delta,
        peer: forward.index,
        ..to_member
    };
    if state & State::ACCOUNTED != 0 {
        let now_ns = tables.now_ns();
        for (index, slot) in [(forward.index, forward.slot), (reverse.index, reverse.slot)] {
            if let Some(account) = F::account(tables, index, slot) {
                account.open(now_ns);
            }
        }
    }
    forward.publish(tables, &to_member, State::FORWARD | state);
    reverse.publish(tables, &to_client, state);
    Ok(())
}

/// Takes back what was counted of a flow that found no room.
#[inline(always)]
fn refuse<T: Tables>(tables: &T, listener: u32, refused: Refused) -> Miss {
    flows::uncount_listener(tables, listener);
    if refused == Refused::Full {
        tables.count_refused(listener, |at| at.exhausted += 1);
    }
    Reason::from(refused).into()
}

/// The tuple of a member's answers to our source port.
#[inline(always)]
fn answer<F: Family>(backend: &Backend, port: [u8; 2], proto: u8) -> Key<F::Addr> {
    let (src, dst) = (F::Addr::narrow(backend.addr), F::Addr::narrow(backend.source));
    Key { src, dst, sport: backend.port, dport: port, proto }
}

/// Parses a frame once more. What `open` needs of it is read where it is needed: kept from the start,
/// that of IPv6 takes more stack than the verifier allows.
#[inline(always)]
fn again<F: Routed>(packet: &Packet<'_>) -> Result<Segment<F::Addr>, Reason> {
    parse::segment(packet, &F::datagram(packet)?)
}

/// A source port towards a member that no flow uses, and home and absence of the member's answers,
/// whose entry is its reservation once claimed. Where the first few are taken, one of them that may be
/// evicted goes, and `open` begins again: else a flood would leave no port to others.
#[inline(always)]
fn free_port<F: Routed, T: Tables>(
    packet: &Packet<'_>,
    tables: &T,
    backend: &Backend,
) -> Result<([u8; 2], u32, Absent), Miss> {
    let Segment { key: Key { src, sport, proto, .. }, .. } = again::<F>(packet)?;
    let client = src.wide();
    let mut loose = NOWHERE;
    for attempt in 0..PORT_TRIES {
        if attempt >= PORT_EAGER && loose != NOWHERE {
            break;
        }
        let port = select::source_port(tables.source_ports(), &client, sport, attempt);
        let key = F::words(&answer::<F>(backend, port, proto));
        let home = flows::home::<F, T>(tables, &key);
        match flows::find::<F, T>(tables, &key, home) {
            Err(absent) => return Ok((port, home, absent)),
            Ok(met) if met.state.may_be_evicted() => loose = met.index,
            Ok(_) => {}
        }
    }
    match flows::at::<F, T>(tables, loose) {
        Some(met) if met.state.may_be_evicted() => {
            retire(tables, &met);
            Err(Miss::Goes(F::OPEN))
        }
        _ => {
            tables.count_refused(backend.listener, |at| at.exhausted += 1);
            Err(Reason::PortsExhausted.into())
        }
    }
}

/// Whether the transport checksum is the pseudo header's sum alone, which is what a virtual link
/// carries when its sender leaves the rest to hardware. True for one right checksum in 65536 too.
#[inline(always)]
fn partial_checksum<A: Address>(packet: &Packet<'_>, ip: &Datagram<A>) -> bool {
    let check = match ip.proto {
        TCP => packet.at::<Tcp>(ip.transport).map(|tcp| tcp.check),
        UDP => packet.at::<Udp>(ip.transport).map(|udp| udp.check),
        _ => None,
    };
    let rest = u32::from(u16::from(ip.proto).to_be()) + u32::from((ip.length as u16).to_be());
    check == Some(checksum::fold(ip.src.sum() + ip.dst.sum() + rest).to_ne_bytes())
}
