//! The flow table: two entries a connection, one for each direction, in an array of cache lines.
//!
//! A flow's hash names its **home** slot. It lives there, or in one of 55 other **candidates** of that
//! home: the rest of the home's set of 16 slots, then single slots of other sets. Each slot's `hop`
//! word has a bit for every candidate of which it is the home (as in hopscotch hashing, without the
//! hopping), so
//!
//! - a hit reads the home, and in a quarter of the cases (half full) one more line of the same page;
//! - a miss reads the home alone, when no flow of that home is elsewhere;
//! - every flow finds a slot until the table is nearly full, and no live flow moves or is evicted.
//!
//! # Who may write
//!
//! A slot is claimed by compare-and-swap of its state from empty, or from a flow that may be evicted,
//! to busy; only its claimant writes it, then publishes it with a new generation. A reader compares
//! the key, copies the rewrite out, and looks at the state again: where the generation differs, the
//! flow was evicted under its eyes. User space removes expired flows by the same steps through `mmap`.
//!
//! Two CPUs that insert the same key at once find each other by the home's hop word. Each writes the
//! key into the slot it claimed, and only then sets its bit and counts its arrival, in the upper 8 bits
//! of the word, by one addition. Where that returns the very word that [`find`] saw, nobody came in
//! between (unless 256 did, to this one home); else the second looks behind the bits once more, and
//! meets the first's key there, busy or live.

use crate::Reason;
use crate::family::{Family, Nat, Slot};
use crate::headers::Mac;
use crate::tables::Flows;

/// Slots of a set. A set is 1 KiB of IPv4 flows: never two pages.
const WAYS: u32 = 16;
/// Slots a flow may live in: as many bits of `hop`.
pub const CANDIDATES: u32 = 56;
/// Those bits; above them are the arrivals.
pub const HOP_BITS: u64 = (1 << CANDIDATES) - 1;
const ARRIVAL: u64 = 1 << CANDIDATES;
/// Candidates looked at for an empty slot before a flow that may go is evicted instead. A flood of
/// new flows then costs four lines a flow, as much as the flows it evicts did.
const EAGER: u32 = 4;

/// State of a slot: the phase, what is known of the connection, and the generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(pub u32);

impl State {
    const PHASE: u32 = 0b11;
    const EMPTY: u32 = 0;
    const BUSY: u32 = 1;
    const LIVE: u32 = 2;
    /// From the client. This entry speaks for the connection: it alone is counted.
    pub const FORWARD: u32 = 1 << 2;
    /// The member has sent something back.
    pub const REPLIED: u32 = 1 << 3;
    /// The client has answered that: it is real, and its flow is never evicted.
    pub const ANSWERED: u32 = 1 << 4;
    pub const CLIENT_FIN: u32 = 1 << 5;
    pub const MEMBER_FIN: u32 = 1 << 6;
    /// Reset, or finished both ways. No longer counted; may be evicted.
    pub const CLOSED: u32 = 1 << 7;
    /// Closed by the control program, since the member was taken out: both ends are told so when they
    /// say something.
    pub const RESET: u32 = 1 << 8;
    /// Keeps an account for the log.
    pub const ACCOUNTED: u32 = 1 << 9;
    /// Closed by a reset of this side. This and the next two: in the entry from the client alone.
    pub const CLIENT_RST: u32 = 1 << 10;
    pub const MEMBER_RST: u32 = 1 << 11;
    /// Its end is in the log, or counted as lost; user space says so.
    pub const LOGGED: u32 = 1 << 12;
    const GENERATION: u32 = 0xffff << 16;

    #[inline(always)]
    pub fn is_live(self) -> bool {
        self.0 & Self::PHASE == Self::LIVE
    }
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 & Self::PHASE == Self::EMPTY
    }
    #[inline(always)]
    pub fn is_busy(self) -> bool {
        self.0 & Self::PHASE == Self::BUSY
    }
    #[inline(always)]
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
    /// Same slot, same flow: flags may have changed.
    #[inline(always)]
    pub fn same_flow(self, later: State) -> bool {
        (self.0 ^ later.0) & (Self::PHASE | Self::GENERATION) == 0
    }
    #[inline(always)]
    fn busy(self) -> Self {
        Self(self.0 & Self::GENERATION | Self::BUSY)
    }
    #[inline(always)]
    fn empty(self) -> Self {
        Self(self.0 & Self::GENERATION | Self::EMPTY)
    }
    #[inline(always)]
    fn live(self, flags: u32) -> Self {
        Self((self.0 & Self::GENERATION).wrapping_add(1 << 16) | Self::LIVE | flags)
    }
    /// Whether a line of the log is lost with this entry: the connection was established, or the member
    /// refused it. Who says SYN and no more was accepted by nobody.
    #[inline(always)]
    pub fn owes_line(self) -> bool {
        let refused = self.has(Self::MEMBER_RST) && !self.has(Self::REPLIED);
        self.has(Self::ACCOUNTED | Self::FORWARD)
            && !self.has(Self::LOGGED)
            && (self.has(Self::ANSWERED) || refused)
    }
    /// A live flow that nobody answered, or that is over.
    #[inline(always)]
    pub fn may_be_evicted(self) -> bool {
        self.is_live() && (!self.has(Self::ANSWERED) || self.has(Self::CLOSED))
    }
    /// How gladly it is evicted `idle_s` seconds after its last packet; 0 for never.
    #[inline(always)]
    fn worth_evicting(self, idle_s: u32) -> u32 {
        if !self.may_be_evicted() {
            return 0;
        }
        // A flood evicts its like before it makes the log forget.
        let class = match self.has(Self::CLOSED) {
            true if self.owes_line() => 0,
            true => 2 << 16,
            false => 1 << 16,
        };
        class + 1 + (idle_s & 0xffff)
    }
}

/// A live entry as a reader met it.
pub struct Met<'a, F: Family> {
    pub index: u32,
    pub slot: &'a F::Slot,
    pub state: State,
}

/// The home of a key.
#[inline(always)]
pub fn home<F: Family, T: Flows>(tables: &T, key: &F::Words) -> u32 {
    let [seed, odd] = tables.seeds();
    let mut hash = seed;
    for word in key.as_ref() {
        hash = (hash ^ word).wrapping_mul(odd | 1);
        hash ^= hash >> 32;
    }
    // The upper half of one more product: every bit of the key has reached it.
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 & F::mask(tables)
}

/// The `n`th slot in which a flow with this home may live.
#[inline(always)]
pub fn candidate(home: u32, n: u32, mask: u32) -> u32 {
    // The first four in the same quarter of the set: what a flood evicts from one quarter has its home
    // there too, and no other line is touched.
    let way = (home & 12).wrapping_add(n & 12) & 12 | home.wrapping_add(n) & 3;
    // 40 sets for the last 40 slots: a set that is full says nothing of them. In whole sets, the first
    // flow was refused at 57 % (2^18 slots, worst of 40 fillings); so, at 71 % (of 200).
    let away = n / WAYS * (1 + 4 * (n % WAYS));
    let set = (home / WAYS) ^ away.wrapping_mul(stride(home));
    (set.wrapping_mul(WAYS) | way) & mask
}

/// Odd, so that the slots of a home differ: those of one way are in sets that differ by 1 to 3,
/// modulo 4.
#[inline(always)]
fn stride(home: u32) -> u32 {
    home.wrapping_mul(0x9e37_79b1) >> 3 | 1
}

/// Which candidate of `home` the slot `index` is.
#[inline(always)]
fn number(home: u32, index: u32, mask: u32) -> Option<u32> {
    let way = (index & 12).wrapping_sub(home & 12) & 12 | index.wrapping_sub(home) & 3;
    for group in 0..CANDIDATES.div_ceil(WAYS) {
        let n = group * WAYS + way;
        if candidate(home, n, mask) == index {
            return (n < CANDIDATES).then_some(n);
        }
    }
    None
}

/// The hop word of a home under which a key was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent(u64);

impl Absent {
    /// No word that [`claim`] could meet: its own bit is not set yet.
    pub const UNSURE: Self = Self(u64::MAX);
}

/// Looks a key up.
#[inline(always)]
pub fn find<'a, F: Family, T: Flows>(
    tables: &'a T,
    key: &F::Words,
    home: u32,
) -> Result<Met<'a, F>, Absent> {
    let first = F::slot(tables, home).ok_or(Absent::UNSURE)?;
    // Before the slots that it names: who comes later is seen in it by `claim`.
    let hop = first.hop().load();
    let state = State(first.state().load());
    if state.is_live() && first.holds(key) {
        return Ok(Met { index: home, slot: first, state });
    }
    // Its own slot among them: a flow that is about to live there is none yet, but no absence.
    let others = if state.is_busy() { hop & HOP_BITS } else { hop & HOP_BITS & !1 };
    if others == 0 {
        return Err(Absent(hop));
    }
    let index = F::elsewhere(tables, key, home, others);
    if index == NOWHERE {
        return Err(Absent(hop));
    }
    let slot = F::slot(tables, index).ok_or(Absent::UNSURE)?;
    let state = State(slot.state().load());
    if !state.is_live() || !slot.holds(key) {
        return Err(Absent::UNSURE);
    }
    Ok(Met { index, slot, state })
}

/// No slot.
pub const NOWHERE: u32 = u32::MAX;

/// The slot, of those candidates of `home` that `hop` names, in which a key lives, or is about to or
/// has just ceased to (busy); else [`NOWHERE`].
#[inline(always)]
pub fn elsewhere<F: Family, T: Flows>(tables: &T, key: &F::Words, home: u32, mut hop: u64) -> u32 {
    for _ in 0..CANDIDATES {
        if hop == 0 {
            break;
        }
        let index = candidate(home, lowest(hop), F::mask(tables));
        hop &= hop - 1;
        let Some(slot) = F::slot(tables, index) else {
            break;
        };
        if !State(slot.state().load()).is_empty() && slot.holds(key) {
            return index;
        }
    }
    NOWHERE
}

/// Number of the lowest bit set; `bits` is not zero. BPF has no instruction for it.
#[inline(always)]
fn lowest(bits: u64) -> u32 {
    let mut below = (bits & bits.wrapping_neg()).wrapping_sub(1);
    below -= below >> 1 & 0x5555_5555_5555_5555;
    below = (below & 0x3333_3333_3333_3333) + (below >> 2 & 0x3333_3333_3333_3333);
    below = (below + (below >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (below.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

/// A slot that is ours to write: busy, with its key, and found through its home already.
pub struct Claimed<'a, F: Family> {
    pub index: u32,
    pub slot: &'a F::Slot,
    home: u32,
    bit: u64,
    state: State,
}

/// Why no slot was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// All candidates hold live flows.
    Full,
    /// Another CPU is inserting the same key, or has, or is removing it.
    Rival,
}

impl From<Refused> for Reason {
    #[inline(always)]
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Reason::TableFull,
            Refused::Rival => Reason::Contended,
        }
    }
}

/// Takes a slot for a key that was not found.
#[inline(always)]
pub fn claim<'a, F: Family, T: Flows>(
    tables: &'a T,
    key: &F::Words,
    home: u32,
    absent: Absent,
) -> Result<Claimed<'a, F>, Refused> {
    let settled = F::settle(tables, key, home, absent.0);
    if settled == RIVAL {
        return Err(Refused::Rival);
    }
    let (n, state) = ((settled >> 32) as u32, State(settled as u32));
    if n >= CANDIDATES {
        return Err(Refused::Full);
    }
    let index = candidate(home, n, F::mask(tables));
    let slot = F::slot(tables, index).ok_or(Refused::Full)?;
    Ok(Claimed { index, slot, home, bit: 1 << n, state })
}

/// Every candidate holds a flow that stays.
pub const FULL: u64 = u64::MAX;
/// The key is elsewhere by now.
pub const RIVAL: u64 = u64::MAX - 1;

/// [`claim`]: which candidate it is in the upper half, and the state it had in the lower; or [`FULL`]
/// or [`RIVAL`].
#[inline(always)]
pub fn settle<F: Family, T: Flows>(tables: &T, key: &F::Words, home: u32, absent: u64) -> u64 {
    let Some((n, state)) = vacancy::<F, T>(tables, home) else {
        return FULL;
    };
    let index = candidate(home, n, F::mask(tables));
    let (Some(slot), Some(at)) = (F::slot(tables, index), F::slot(tables, home)) else {
        return FULL;
    };
    slot.write_key(key);
    // The slot is ours, so its bit was not set: nothing is carried.
    let hop = at.hop().add(1 << n | ARRIVAL);
    if hop != absent && F::elsewhere(tables, key, home, hop & HOP_BITS) != NOWHERE {
        at.hop().and(!(1 << n));
        slot.state().store(state.empty().0);
        return RIVAL;
    }
    u64::from(n) << 32 | u64::from(state.0)
}

/// The nearest empty slot, else the one most worth evicting, made busy: which candidate it is, and the
/// state it had.
#[inline(always)]
fn vacancy<F: Family, T: Flows>(tables: &T, home: u32) -> Option<(u32, State)> {
    let mask = F::mask(tables);
    let now_s = tables.now_s();
    let (mut best, mut worth) = (0, 0);
    for n in 0..CANDIDATES {
        if n >= EAGER && worth > 0 {
            break;
        }
        let slot = F::slot(tables, candidate(home, n, mask))?;
        let state = State(slot.state().load());
        if state.is_empty() {
            if slot.state().cas(state.0, state.busy().0) {
                return Some((n, state));
            }
            continue;
        }
        let this = state.worth_evicting(now_s.wrapping_sub(slot.seen_s().load()));
        if this > worth {
            (best, worth) = (n, this);
        }
    }
    if worth == 0 {
        return None;
    }
    let index = candidate(home, best, mask);
    let slot = F::slot(tables, index)?;
    let state = State(slot.state().load());
    let taken = state.may_be_evicted() && take::<F, T>(tables, index, slot, state);
    taken.then_some((best, state))
}

impl<'a, F: Family> Claimed<'a, F> {
    /// Shows the flow to readers, with `flags` of [`State`]. Whole, or not at all: the state is
    /// written last.
    #[inline(always)]
    pub fn publish<T: Flows>(self, tables: &T, nat: &Nat<F::Addr>, flags: u32) -> Met<'a, F> {
        self.slot.write_nat(nat);
        self.slot.seen_s().store(tables.now_s());
        let state = self.state.live(flags);
        self.slot.state().store(state.0);
        Met { index: self.index, slot: self.slot, state }
    }

    #[inline(always)]
    pub fn give_back<T: Flows>(self, tables: &T) {
        if let Some(home) = F::slot(tables, self.home) {
            home.hop().and(!self.bit);
        }
        self.slot.state().store(self.state.empty().0);
    }
}

/// Turns a live entry into a busy one of ours: its home forgets it, and its connection is no longer
/// counted. False where someone was faster.
#[inline(always)]
fn take<F: Family, T: Flows>(tables: &T, index: u32, slot: &F::Slot, state: State) -> bool {
    if !slot.state().cas(state.0, state.busy().0) {
        return false;
    }
    let home = home::<F, T>(tables, &slot.key());
    if let (Some(at), Some(n)) = (F::slot(tables, home), number(home, index, F::mask(tables))) {
        at.hop().and(!(1 << n));
    }
    if state.has(State::FORWARD) && !state.has(State::CLOSED) {
        uncount(tables, slot.backend().into());
    }
    if state.owes_line() {
        count_lost(tables, slot.backend().into());
    }
    true
}

/// Empties a slot whose claimant has died. Whether its connection is still counted nobody knows.
pub fn abandon<F: Family, T: Flows>(tables: &T, met: &Met<'_, F>) -> bool {
    let home = home::<F, T>(tables, &met.slot.key());
    if let (Some(at), Some(n)) = (F::slot(tables, home), number(home, met.index, F::mask(tables))) {
        at.hop().and(!(1 << n));
    }
    met.slot.state().cas(met.state.0, met.state.empty().0)
}

/// What lives in a slot.
#[inline(always)]
pub fn at<F: Family, T: Flows>(tables: &T, index: u32) -> Option<Met<'_, F>> {
    let slot = F::slot(tables, index)?;
    let state = State(slot.state().load());
    state.is_live().then_some(Met { index, slot, state })
}

/// Removes one entry. False where it has changed since `met`.
#[inline(always)]
pub fn remove<F: Family, T: Flows>(tables: &T, met: &Met<'_, F>) -> bool {
    let taken = take::<F, T>(tables, met.index, met.slot, met.state);
    if taken {
        met.slot.state().store(met.state.empty().0);
    }
    taken
}

/// The other direction of the connection, while both are there.
#[inline(always)]
pub fn peer<'a, F: Family, T: Flows>(tables: &'a T, index: u32, peer: u32) -> Option<Met<'a, F>> {
    let slot = F::slot(tables, peer)?;
    let state = State(slot.state().load());
    (state.is_live() && slot.peer() == index).then_some(Met { index: peer, slot, state })
}

/// Adds `flags` to a flow's state, unless the slot has become another's. Returns the flags it had.
#[inline(always)]
pub fn mark<F: Family>(met: &Met<'_, F>, flags: u32) -> Option<State> {
    let mut state = met.state;
    // Twice: another CPU may set a flag of its own in between.
    for _ in 0..2 {
        if state.has(flags) {
            return Some(state);
        }
        if met.slot.state().cas(state.0, state.0 | flags) {
            return Some(state);
        }
        state = State(met.slot.state().load());
        if !met.state.same_flow(state) {
            return None;
        }
    }
    None
}

/// The client has another MAC or interface from now on; false where the slot has become another's:
/// this is written without a claim, and must not meet the slot's next flow.
#[inline(always)]
pub fn move_client<F: Family>(met: &Met<'_, F>, mac: Mac, ifindex: u32) -> bool {
    let seen = met.slot.client();
    let same = met.state.same_flow(State(met.slot.state().load()));
    if same {
        met.slot.move_client(seen, mac, ifindex);
    }
    same
}

/// Counts a connection more; false, and nothing counted, where that is over `max`.
#[inline(always)]
pub fn count_within<T: Flows>(tables: &T, listener: u32, max: u32) -> bool {
    let Some(load) = tables.listener_load(listener) else {
        return false;
    };
    if load.add(1) >= max {
        load.add(1u32.wrapping_neg());
        return false;
    }
    true
}

/// Takes back [`count_within`].
#[inline(always)]
pub fn uncount_listener<T: Flows>(tables: &T, listener: u32) {
    if let Some(load) = tables.listener_load(listener) {
        load.add(1u32.wrapping_neg());
    }
}

/// A connection of `backend` is over.
#[inline(always)]
pub fn uncount<T: Flows>(tables: &T, backend: u32) {
    if let Some(load) = tables.backend_load(backend) {
        load.add(1u32.wrapping_neg());
    }
    if let Some(listener) = tables.listener_of(backend) {
        uncount_listener(tables, listener);
    }
    tables.count_closed(backend);
}

/// A connection of `backend` is not in the log and never will be.
#[inline(always)]
pub fn count_lost<T: Flows>(tables: &T, backend: u32) {
    let listener = tables.listener_of(backend);
    if let Some(logs) = listener.and_then(|listener| tables.flow_logs(listener)) {
        logs.lost.add(1);
    }
}
