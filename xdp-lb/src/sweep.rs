//! Removes flows that have expired, and sees to it that what is counted is what is there.
//!
//! A pass reads both flow tables through `mmap`, a slice each second, by the packet path's own steps:
//! a flow that a packet touches meanwhile is either gone before, or stays.

use std::collections::{BTreeMap, BTreeSet};

use xdp_lb_ebpf::abi::{TCP, UDP};
use xdp_lb_ebpf::family::{Family, Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, Met, State};
use xdp_lb_ebpf::tables::Flows;

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
    /// there.
    pub fn slice<T: Flows>(&mut self, tables: &T, idle_s: &dyn Fn(u32) -> Option<u32>) {
        self.part::<V4, T>(tables, idle_s);
        self.part::<V6, T>(tables, idle_s);
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

    fn part<F: Family, T: Flows>(&mut self, tables: &T, idle_s: &dyn Fn(u32) -> Option<u32>) {
        let slots = F::mask(tables) / PASS_S + 1;
        let first = self.turn * slots;
        for index in first..=F::mask(tables).min(first + slots - 1) {
            if let Some(slot) = F::slot(tables, index) {
                self.look::<F, T>(tables, index, slot, idle_s);
            }
        }
    }

    fn look<F: Family, T: Flows>(
        &mut self,
        tables: &T,
        index: u32,
        slot: &F::Slot,
        idle_s: &dyn Fn(u32) -> Option<u32>,
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
            }
            return;
        }
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
            sweep.slice(tables, &|_| Some(IDLE_S));
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
        sweep.slice(&tables, &|_| Some(IDLE_S));
        let seen = [forward, reverse].iter().any(|index| *index <= 64 / PASS_S);
        assert_eq!(sweep.found_nothing(), !seen, "half a pass");
        for _ in 1..PASS_S {
            sweep.slice(&tables, &|_| Some(IDLE_S));
        }
        assert!(!sweep.found_nothing());
    }
}
