//! Ends the flows of members that were taken out, where that is asked for (HAProxy's `on-marked-down
//! shutdown-sessions`).
//!
//! A TCP connection is closed, and says so: whichever end sends its next segment is answered by a reset,
//! until the sweep has removed the flow. Without that, the segment would open a flow to another member, and
//! it would depend on that one's firewall whether the client hears anything. Of UDP and SCTP nothing is
//! left: what the client sends next opens a new flow.

use std::collections::BTreeSet;

use xdp_lb_ebpf::abi::TCP;
use xdp_lb_ebpf::family::{Family, Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, Met, State};
use xdp_lb_ebpf::tables::Flows;

/// Tries to mark a flow that the packet path marks at the same time; it has few marks.
const TRIES: u32 = 8;

/// Ends all flows of these backends, which take no new ones any more. How many there were.
pub fn reset<T: Flows>(tables: &T, backends: &BTreeSet<u32>) -> u64 {
    family::<V4, T>(tables, backends) + family::<V6, T>(tables, backends)
}

fn family<F: Family, T: Flows>(tables: &T, backends: &BTreeSet<u32>) -> u64 {
    let slots = (0..=F::mask(tables)).filter_map(|index| Some((index, F::slot(tables, index)?)));
    let mut ended = 0;
    for (index, slot) in slots {
        let state = State(slot.state().load());
        let is_open = state.is_live() && state.has(State::FORWARD) && !state.has(State::CLOSED);
        if is_open && backends.contains(&slot.backend().into()) {
            ended += u64::from(end(tables, &Met::<F> { index, slot, state }));
        }
    }
    ended
}

/// Whether it was open still.
fn end<F: Family, T: Flows>(tables: &T, forward: &Met<'_, F>) -> bool {
    // Found before the flow proves to be the same still: so it is this flow's other half.
    let other = flows::peer::<F, T>(tables, forward.index, forward.slot.peer());
    let proto = (forward.slot.key().as_ref().last().copied().unwrap_or(0) >> 32) as u8;
    if proto != TCP {
        let removed = flows::remove(tables, forward);
        if let Some(other) = other.filter(|_| removed) {
            flows::remove(tables, &other);
        }
        return removed;
    }
    let marked =
        |met: &Met<'_, F>| (0..TRIES).find_map(|_| flows::mark(met, State::CLOSED | State::RESET));
    let Some(before) = marked(forward) else {
        return false;
    };
    if let Some(other) = other {
        marked(&other);
    }
    // Not where the packet path closed it first: it has taken the connection off the count.
    let was_open = !before.has(State::CLOSED);
    if was_open {
        flows::uncount(tables, forward.slot.backend().into());
    }
    was_open
}

#[cfg(test)]
mod tests {
    use xdp_lb_ebpf::abi::{SCTP, UDP};
    use xdp_lb_ebpf::memory::Memory;

    use super::*;
    use crate::sweep::tests::connection;

    /// A row is a flow of backend 0, the backends that are reset, and what is left: its state's flags
    /// in both entries, none where they are gone, and the connections that are counted.
    #[test]
    fn what_is_left() {
        let answered = State::REPLIED | State::ANSWERED;
        let closed = answered | State::CLOSED;
        let reset_too = closed | State::RESET;
        let rows = [
            ("TCP", TCP, answered, 0, Some(reset_too), 0),
            ("TCP that nobody answered", TCP, 0, 0, Some(State::CLOSED | State::RESET), 0),
            ("TCP that is over", TCP, closed, 0, Some(closed), 0),
            ("UDP", UDP, answered, 0, None, 0),
            ("SCTP", SCTP, answered, 0, None, 0),
            ("another's", TCP, answered, 1, Some(answered), 1),
            ("another's, UDP", UDP, answered, 1, Some(answered), 1),
        ];
        for (row, proto, flags, backend, want, counted) in rows {
            let tables = Memory::new(64, 64, 1, 2);
            let (forward, reverse) = connection(&tables, 1, proto, flags, 0);
            let open = u64::from(backend == 0 && flags & State::CLOSED == 0);
            for ended in [open, 0] {
                assert_eq!(reset(&tables, &[backend].into()), ended, "{row}");
            }
            let states = [forward, reverse].map(|index| {
                let state = State(tables.flows4[index as usize].state().load());
                state.is_live().then_some(state.0 & 0xfff8)
            });
            assert_eq!(states, [want; 2], "{row}");
            let loads = [&tables.backend_loads[0], &tables.listener_loads[0]].map(|it| it.load());
            assert_eq!(loads, [counted; 2], "{row}");
        }
    }
}
