//! Removes flows that have expired, and sees to it that what is counted is what is there.
//!
//! A pass reads both flow tables through `mmap`, a slice each second, by the packet path's own steps:
//! a flow that a packet touches meanwhile is either gone before, or stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use xdp_lb_ebpf::abi::{TCP, UDP};
use xdp_lb_ebpf::family::{Address, Family, Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, Met, State};
use xdp_lb_ebpf::tables::Flows;

use crate::flow_log::End;
use crate::tables::address;

/// Seconds in which every slot is looked at once.
pub const PASS_S: u32 = 4;
/// A closed connection's last segments may be repeated; its source port is kept from others as long
/// (half of Linux's TIME_WAIT).
const CLOSED_S: u32 = 30;
/// A TCP handshake that the client has not finished (Linux gives up a SYN_RECV after 5 retries, 63 s;
/// a client that is alive answers within a second).
const UNANSWERED_S: u32 = 30;
/// The entry of one direction without the other: an eviction took its half.
const ORPHAN_S: u32 = 5;
/// Idle time where the listener is gone, by protocol (defaults of `agent-api`).
const fn default_idle_s(proto: u8) -> u32 {
    match proto {
        TCP => 50,
        UDP => 300,
        _ => 900,
    }
}

/// What one pass saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Connections that count, by backend.
    pub open: BTreeMap<u32, u32>,
    /// Backends that any flow still names, closed ones too.
    pub named: BTreeSet<u32>,
    pub expired: u64,
    /// Slots whose claimant has died.
    pub repaired: u64,
    /// Slots that are in somebody's hands, and what their state was.
    busy: BTreeMap<(u8, u32), u32>,
}

/// Where the sweep stands.
#[derive(Debug, Default)]
pub struct Sweep {
    turn: u32,
    current: Pass,
    /// The pass before, whole; none before the first.
    pub last: Option<Pass>,
    /// By how much a backend was counted wrongly at the end of the last pass.
    off: BTreeMap<u32, u32>,
}

impl Sweep {
    /// Sweeps the next of [`PASS_S`] slices. `idle_s` is the idle timeout of a listener, if it is
    /// there; `over` is told of each connection that the log is owed a line of, once.
    pub fn slice<T: Flows>(
        &mut self,
        tables: &T,
        idle_s: &dyn Fn(u32) -> Option<u32>,
        over: &mut dyn FnMut(Over),
    ) {
        self.part::<V4, T>(tables, idle_s, over);
        self.part::<V6, T>(tables, idle_s, over);
        self.turn += 1;
        if self.turn == PASS_S {
            self.turn = 0;
            let pass = std::mem::take(&mut self.current);
            self.recount(tables, &pass);
            self.last = Some(pass);
        }
    }

    /// Whether the last pass, if there was one, and this one so far saw no flow.
    pub fn found_nothing(&self) -> bool {
        let empty = |pass: &Pass| pass.named.is_empty() && pass.busy.is_empty();
        self.last.as_ref().is_none_or(empty) && empty(&self.current)
    }

    /// Whether a flow may still name a backend. Before the first pass nothing is known: yes.
    pub fn may_name(&self, backend: u32) -> bool {
        let seen = |pass: &Pass| pass.named.contains(&backend);
        self.last.as_ref().is_none_or(seen) || seen(&self.current)
    }

    fn part<F: Family, T: Flows>(
        &mut self,
        tables: &T,
        idle_s: &dyn Fn(u32) -> Option<u32>,
        over: &mut dyn FnMut(Over),
    ) {
        let slots = F::mask(tables) / PASS_S + 1;
        let first = self.turn * slots;
        for index in first..=F::mask(tables).min(first + slots - 1) {
            if let Some(slot) = F::slot(tables, index) {
                self.look::<F, T>(tables, index, slot, idle_s, over);
            }
        }
    }

    fn look<F: Family, T: Flows>(
        &mut self,
        tables: &T,
        index: u32,
        slot: &F::Slot,
        idle_s: &dyn Fn(u32) -> Option<u32>,
        over: &mut dyn FnMut(Over),
    ) {
        let state = State(slot.state().load());
        if state.is_empty() {
            return;
        }
        let met: Met<'_, F> = Met { index, slot, state };
        if state.is_busy() {
            self.look_at_busy(tables, &met);
            return;
        }
        let backend = u32::from(slot.backend());
        self.current.named.insert(backend);
        let other = flows::peer::<F, T>(tables, index, slot.peer());
        let now_s = tables.now_s();
        let idle = |slot: &F::Slot| now_s.wrapping_sub(slot.seen_s().load());
        if !state.has(State::FORWARD) {
            if other.is_none() && idle(slot) > ORPHAN_S && flows::remove(tables, &met) {
                self.current.expired += 1;
            }
            return;
        }
        let proto = (slot.key().as_ref().last().copied().unwrap_or(0) >> 32) as u8;
        let limit = if state.has(State::CLOSED) {
            CLOSED_S
        } else if proto == TCP && !state.has(State::ANSWERED) {
            UNANSWERED_S
        } else {
            tables.listener_of(backend).and_then(idle_s).unwrap_or(default_idle_s(proto))
        };
        // Either direction keeps a connection alive.
        let since = other.as_ref().map_or(u32::MAX, |other| idle(other.slot)).min(idle(slot));
        if since <= limit || since > u32::MAX / 2 {
            if !state.has(State::CLOSED) {
                *self.current.open.entry(backend).or_default() += 1;
            } else if state.owes_line() {
                note(tables, &met, other.as_ref(), over);
            }
            return;
        }
        let met = match state.owes_line() {
            true => match note(tables, &met, other.as_ref(), over) {
                // As it is marked now.
                Some(state) => Met { state, ..met },
                None => return,
            },
            false => met,
        };
        if flows::remove(tables, &met) {
            self.current.expired += 1;
            if let Some(other) = other {
                flows::remove(tables, &other);
            }
        }
    }

    /// The packet path holds a slot for less than a microsecond. One found in the same hands by two
    /// passes belonged to a control program that was killed.
    fn look_at_busy<F: Family, T: Flows>(&mut self, tables: &T, met: &Met<'_, F>) {
        let place = (F::VERSION, met.index);
        let before = self.last.as_ref().and_then(|pass| pass.busy.get(&place));
        if before == Some(&met.state.0) && flows::abandon(tables, met) {
            self.current.repaired += 1;
        } else {
            self.current.busy.insert(place, met.state.0);
        }
    }

    /// Corrects counts that a killed control program left wrong: off by the same in two passes, of
    /// connections that neither came nor went meanwhile.
    fn recount<T: Flows>(&mut self, tables: &T, pass: &Pass) {
        let Some(last) = &self.last else {
            return;
        };
        let mut off = BTreeMap::new();
        for backend in pass.named.union(&last.named).copied() {
            let Some(load) = tables.backend_load(backend) else {
                continue;
            };
            let seen = pass.open.get(&backend).copied().unwrap_or(0);
            let still = last.open.get(&backend).copied().unwrap_or(0) == seen;
            let wrong = seen.wrapping_sub(load.load());
            if !still || wrong == 0 {
                continue;
            }
            if self.off.get(&backend) != Some(&wrong) {
                off.insert(backend, wrong);
                continue;
            }
            load.add(wrong);
            if let Some(load) = tables.listener_of(backend).and_then(|id| tables.listener_load(id))
            {
                load.add(wrong);
            }
        }
        self.off = off;
    }
}

/// A connection that is over, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    pub backend: u32,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    /// Payload.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Nanoseconds since boot.
    pub opened_ns: u64,
    pub ended_ns: u64,
    pub end: End,
}

/// Tells of a connection and marks it as told; its state then. None where it is another's by now. What is
/// told is told once: of a daemon that is killed in between, the line is lost.
fn note<F: Family, T: Flows>(
    tables: &T,
    met: &Met<'_, F>,
    other: Option<&Met<'_, F>>,
    over: &mut dyn FnMut(Over),
) -> Option<State> {
    let key = F::tuple(&met.slot.key());
    let backend = met.slot.backend().into();
    let read = |met: &Met<'_, F>| {
        let account = F::account(tables, met.index, met.slot)?;
        Some((account.payload.load(), account.at_ns.load()))
    };
    let (bytes_in, opened_ns) = read(met).unwrap_or_default();
    let (bytes_out, closed_ns) = other.and_then(read).unwrap_or_default();
    let before = flows::mark(met, State::LOGGED)?;
    if before.has(State::LOGGED) {
        return Some(before);
    }
    let socket =
        |addr: F::Addr, port| SocketAddr::new(address(addr.wide()), u16::from_be_bytes(port));
    // Where neither side said that it is over, it is now.
    let said = before.has(State::CLOSED) && closed_ns > 0;
    let ended_ns = if said { closed_ns } else { u64::from(tables.now_s()) * 1_000_000_000 };
    over(Over {
        backend,
        client: socket(key.src, key.sport),
        vip: socket(key.dst, key.dport),
        bytes_in,
        bytes_out,
        opened_ns,
        ended_ns: ended_ns.max(opened_ns),
        end: end(before),
    });
    Some(State(before.0 | State::LOGGED))
}

fn end(state: State) -> End {
    if state.has(State::RESET) {
        End::TakenOut
    } else if state.has(State::MEMBER_RST) && !state.has(State::REPLIED) {
        End::Refused
    } else if state.has(State::CLIENT_RST) {
        End::ClientReset
    } else if state.has(State::MEMBER_RST) {
        End::MemberReset
    } else if state.has(State::CLOSED) {
        End::Closed
    } else {
        End::Idle
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use xdp_lb_ebpf::family::{Key, Nat};
    use xdp_lb_ebpf::flows::Absent;
    use xdp_lb_ebpf::headers::Mac;
    use xdp_lb_ebpf::memory::Memory;

    const IDLE_S: u32 = 50;

    /// A connection of backend 0, counted, `age_s` old; the indexes of both entries.
    pub fn connection(tables: &Memory, port: u16, proto: u8, flags: u32, age_s: u32) -> (u32, u32) {
        let key = Key {
            src: [10, 0, 0, 1],
            dst: [10, 0, 0, 2],
            sport: port.to_be_bytes(),
            dport: [0, 80],
            proto,
        };
        let claim = |key: &Key<[u8; 4]>| {
            let words = V4::words(key);
            let home = flows::home::<V4, _>(tables, &words);
            flows::claim::<V4, _>(tables, &words, home, Absent::UNSURE).unwrap()
        };
        let (forward, reverse) = (claim(&key), claim(&key.turned()));
        let nat = |peer| Nat {
            src: [0; 4],
            dst: [0; 4],
            sport: [0; 2],
            dport: [0; 2],
            addr_delta: 0,
            full_delta: 0,
            backend: 0,
            mac: Mac::default(),
            ifindex: 1,
            peer,
        };
        let indexes = (forward.index, reverse.index);
        for met in [
            forward.publish(tables, &nat(indexes.1), flags | State::FORWARD),
            reverse.publish(tables, &nat(indexes.0), flags),
        ] {
            met.slot.seen_s().store(tables.now_s.load() - age_s);
        }
        if flags & State::CLOSED == 0 {
            tables.backend_loads[0].add(1);
            tables.listener_loads[0].add(1);
        }
        indexes
    }

    fn pass(sweep: &mut Sweep, tables: &Memory) {
        for _ in 0..PASS_S {
            sweep.slice(tables, &|_| Some(IDLE_S), &mut |_| ());
        }
    }

    #[test]
    fn what_has_expired_goes_and_the_rest_stays() {
        use xdp_lb_ebpf::abi::SCTP;
        let answered = State::REPLIED | State::ANSWERED;
        let rows = [
            ("answered, young", TCP, answered, IDLE_S, true),
            ("answered, idle", TCP, answered, IDLE_S + 1, false),
            ("handshake, young", TCP, 0, UNANSWERED_S, true),
            ("handshake, given up", TCP, State::REPLIED, UNANSWERED_S + 1, false),
            ("closed, its segments may be repeated", TCP, answered | State::CLOSED, CLOSED_S, true),
            ("closed", TCP, answered | State::CLOSED, CLOSED_S + 1, false),
            ("one-way UDP", UDP, 0, IDLE_S, true),
            ("UDP, idle", UDP, State::REPLIED, IDLE_S + 1, false),
            ("SCTP, idle", SCTP, answered, IDLE_S + 1, false),
        ];
        for (name, proto, flags, age_s, stays) in rows {
            let tables = Memory::new(64, 64, 1, 1);
            let (forward, reverse) = connection(&tables, 1, proto, flags, age_s);
            pass(&mut Sweep::default(), &tables);
            let live = |index: u32| State(tables.flows4[index as usize].state().load()).is_live();
            assert_eq!((live(forward), live(reverse)), (stays, stays), "{name}");
            let counted = u32::from(stays && flags & State::CLOSED == 0);
            assert_eq!(tables.backend_loads[0].load(), counted, "{name}");
            assert_eq!(tables.listener_loads[0].load(), counted, "{name}");
        }
    }

    #[test]
    fn either_direction_keeps_a_connection() {
        let tables = Memory::new(64, 64, 1, 1);
        let (forward, reverse) = connection(&tables, 1, UDP, 0, IDLE_S + 1);
        tables.flows4[reverse as usize].seen_s().store(tables.now_s.load());
        pass(&mut Sweep::default(), &tables);
        assert!(State(tables.flows4[forward as usize].state().load()).is_live());
    }

    #[test]
    fn half_a_connection_goes() {
        let tables = Memory::new(64, 64, 1, 1);
        let (forward, reverse) = connection(&tables, 1, TCP, 0, ORPHAN_S + 1);
        let slot = &tables.flows4[forward as usize];
        let met: Met<'_, V4> = Met { index: forward, slot, state: State(slot.state().load()) };
        assert!(flows::remove(&tables, &met));
        pass(&mut Sweep::default(), &tables);
        assert!(State(tables.flows4[reverse as usize].state().load()).is_empty());
    }

    #[test]
    fn what_a_killed_control_program_left_is_mended() {
        let tables = Memory::new(64, 64, 1, 1);
        let (forward, _) = connection(&tables, 1, TCP, State::REPLIED | State::ANSWERED, 0);
        // Killed after it had taken the slot, before it had given it back.
        let slot = &tables.flows4[forward as usize];
        slot.state().store(slot.state().load() & !0b11 | 0b01);
        let mut sweep = Sweep::default();
        for _ in 0..4 {
            pass(&mut sweep, &tables);
        }
        assert!(State(slot.state().load()).is_empty());
        assert_eq!(
            tables.flows4.iter().filter(|slot| slot.hop().load() & flows::HOP_BITS != 0).count(),
            1
        );
        assert_eq!((tables.backend_loads[0].load(), tables.listener_loads[0].load()), (0, 0));
    }

    #[test]
    fn names_are_known_after_a_pass() {
        let tables = Memory::new(64, 64, 1, 2);
        connection(&tables, 1, TCP, State::CLOSED, 0);
        let mut sweep = Sweep::default();
        assert!(sweep.may_name(1), "not known yet");
        pass(&mut sweep, &tables);
        assert!(sweep.may_name(0) && !sweep.may_name(1));
    }

    #[test]
    fn an_empty_table_is_known_by_a_pass() {
        let tables = Memory::new(64, 64, 1, 2);
        let mut sweep = Sweep::default();
        pass(&mut sweep, &tables);
        assert!(sweep.found_nothing());
        let (forward, reverse) = connection(&tables, 1, TCP, State::CLOSED, 0);
        sweep.slice(&tables, &|_| Some(IDLE_S), &mut |_| ());
        let seen = [forward, reverse].iter().any(|index| *index <= 64 / PASS_S);
        assert_eq!(sweep.found_nothing(), !seen, "half a pass");
        for _ in 1..PASS_S {
            sweep.slice(&tables, &|_| Some(IDLE_S), &mut |_| ());
        }
        assert!(!sweep.found_nothing());
    }

    #[test]
    fn lines_are_owed_once() {
        let answered = State::REPLIED | State::ANSWERED;
        let closed = answered | State::CLOSED;
        let refused = State::CLOSED | State::MEMBER_RST;
        /// A name, what is marked, its age, and how it ended, if that is told.
        type Row = (&'static str, u32, u32, Option<End>);
        let rows: [Row; 11] = [
            ("open", answered, 0, None),
            ("opening", 0, 0, None),
            ("a SYN and no more", 0, UNANSWERED_S + 1, None),
            ("finished", closed, 0, Some(End::Closed)),
            ("finished and forgotten", closed, CLOSED_S + 1, Some(End::Closed)),
            ("reset by the client", closed | State::CLIENT_RST, 0, Some(End::ClientReset)),
            ("reset by the member", closed | State::MEMBER_RST, 0, Some(End::MemberReset)),
            ("refused", refused, 0, Some(End::Refused)),
            ("its member was taken out", closed | State::RESET, 0, Some(End::TakenOut)),
            ("idle", answered, IDLE_S + 1, Some(End::Idle)),
            ("told already", closed | State::LOGGED, 0, None),
        ];
        for (name, flags, age_s, want) in rows {
            for accounted in [State::ACCOUNTED, 0] {
                let tables = Memory::new(64, 64, 1, 1);
                tables.now_s.store(1000);
                let (forward, reverse) = connection(&tables, 7, TCP, flags | accounted, age_s);
                for (index, payload, at_ns) in
                    [(forward, 5, 900_000_000_000), (reverse, 10, 990_500_000_000)]
                {
                    let account = &tables.accounts4[index as usize];
                    account.payload.store(payload);
                    account.at_ns.store(at_ns);
                }
                let (mut sweep, mut told) = (Sweep::default(), Vec::new());
                for _ in 0..3 * PASS_S {
                    sweep.slice(&tables, &|_| Some(IDLE_S), &mut |over| told.push(over));
                }
                let ended_ns =
                    if want == Some(End::Idle) { 1_000_000_000_000 } else { 990_500_000_000 };
                let over = |end| Over {
                    backend: 0,
                    client: "10.0.0.1:7".parse().unwrap(),
                    vip: "10.0.0.2:80".parse().unwrap(),
                    bytes_in: 5,
                    bytes_out: 10,
                    opened_ns: 900_000_000_000,
                    ended_ns,
                    end,
                };
                let want: Vec<_> = want.filter(|_| accounted > 0).map(over).into_iter().collect();
                assert_eq!(told, want, "{name}");
                assert_eq!(tables.flow_logs[0].lost.load(), 0, "{name}");
            }
        }
    }
}
