//! What frames tell of their connection: that it is answered, finished or reset.

use crate::account::Account;
use crate::family::Family;
use crate::flows::{self, Met, State};
use crate::headers::{FIN, RST, SYN};
use crate::tables::{Tables, Way};

/// The account of a direction of a flow, if it has one.
#[inline(always)]
pub fn account<'a, F: Family, T: Tables>(tables: &'a T, met: &Met<'a, F>) -> Option<&'a Account> {
    if met.state.has(State::ACCOUNTED) { F::account(tables, met.index, met.slot) } else { None }
}

/// What a frame says about its connection, as the [`State`] bits that follow from it; none for the
/// many frames that say nothing new.
#[inline(always)]
pub fn news(state: State, way: Way, flags: u8) -> Option<u32> {
    let mut bits = 0;
    if flags & (FIN | RST) != 0 {
        bits = match way {
            _ if state.has(State::CLOSED) => State::CLOSED,
            Way::In if flags & RST != 0 => State::CLOSED | State::CLIENT_RST,
            Way::Out if flags & RST != 0 => State::CLOSED | State::MEMBER_RST,
            Way::In => State::CLIENT_FIN,
            Way::Out => State::MEMBER_FIN,
        };
    }
    if flags & RST == 0 && !state.has(State::ANSWERED) {
        if way == Way::Out && !state.has(State::REPLIED) {
            bits |= State::REPLIED;
        }
        if way == Way::In && state.has(State::REPLIED) && flags & SYN == 0 {
            bits |= State::ANSWERED;
        }
    }
    (bits != 0).then_some(bits)
}

/// What a frame has told of its connection: the flow as it was met, and the [`State`] bits to be added.
pub struct Progress {
    pub index: u32,
    pub state: State,
    pub peer: u32,
    pub backend: u32,
    pub news: u32,
}

/// Writes the news into both entries of a connection, and stops counting it when it is over.
#[inline(always)]
pub fn progress<F: Family, T: Tables>(tables: &T, progress: &Progress) {
    let Progress { index, state, peer, backend, news } = *progress;
    let Some(slot) = F::slot(tables, index) else {
        return;
    };
    let met: &Met<'_, F> = &Met { index, slot, state };
    let Some(other) = flows::peer::<F, T>(tables, index, peer) else {
        return;
    };
    let (forward, reverse) = if state.has(State::FORWARD) { (met, &other) } else { (&other, met) };
    let fins = State::CLIENT_FIN | State::MEMBER_FIN;
    // Before anybody sees that it is closed. What does not close it is followed by what does.
    if news & (fins | State::CLOSED) != 0
        && !forward.state.has(State::CLOSED)
        && let Some(account) = account(tables, reverse)
    {
        account.at_ns.store(tables.now_ns());
    }
    let Some(before) = flows::mark(forward, news) else {
        return;
    };
    let mut mirrored = news & (State::REPLIED | State::ANSWERED | State::CLOSED);
    let mut closes = news & State::CLOSED != 0;
    if State(before.0 | news).has(fins) && !before.has(State::CLOSED) && !closes {
        let with_news: Met<'_, F> =
            Met { state: State(before.0 | news), index: forward.index, slot: forward.slot };
        // Not where another CPU closed it first: it has taken the connection off the count.
        closes = flows::mark(&with_news, State::CLOSED).is_some_and(|was| !was.has(State::CLOSED));
        mirrored |= State::CLOSED;
    }
    flows::mark(reverse, mirrored);
    if closes && !before.has(State::CLOSED) {
        flows::uncount(tables, backend);
    }
}
