//! What the tests of the flow table share: random keys, and the audit of a table at rest.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::HashMap;

use xdp_lb_ebpf::family::{Family, Key, Nat, Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, Met, Refused, State};
use xdp_lb_ebpf::headers::Mac;
use xdp_lb_ebpf::memory::Memory;
use xdp_lb_ebpf::tables::Flows;

/// SplitMix64: the same numbers everywhere, from one seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub fn mixed(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Addresses that a number names.
pub trait Numbered: Family {
    const NAME: &'static str;
    fn addr(number: u64) -> Self::Addr;
    /// Tables whose flow table of this family has `slots`, the other 64.
    fn memory(slots: u32, listeners: usize, backends: usize) -> Memory;
}

impl Numbered for V4 {
    const NAME: &'static str = "IPv4";
    fn addr(number: u64) -> [u8; 4] {
        (number as u32).to_be_bytes()
    }
    fn memory(slots: u32, listeners: usize, backends: usize) -> Memory {
        Memory::new(slots, 64, listeners, backends)
    }
}

impl Numbered for V6 {
    const NAME: &'static str = "IPv6";
    fn addr(number: u64) -> [u8; 16] {
        (u128::from(number) | 0x2001_0db8 << 96).to_be_bytes()
    }
    fn memory(slots: u32, listeners: usize, backends: usize) -> Memory {
        Memory::new(64, slots, listeners, backends)
    }
}

pub fn random_key<F: Numbered>(random: &mut Random) -> Key<F::Addr> {
    let ports = random.next().to_be_bytes();
    Key {
        src: F::addr(random.next()),
        dst: F::addr(random.next()),
        sport: [ports[0], ports[1]],
        dport: [ports[2], ports[3]],
        proto: 6,
    }
}

/// The live entries of a table that nobody writes to, each key once.
///
/// # Panics
///
/// Where a slot is busy, a key is there twice or not found, or a hop bit points to anything but a
/// live entry of its home.
pub fn audit<F: Numbered>(tables: &impl Flows) -> HashMap<Vec<u64>, State> {
    let mask = F::mask(tables);
    let mut live = HashMap::new();
    let mut bits = 0;
    for Met { index, slot, state } in slots::<F>(tables) {
        assert!(!state.is_busy(), "{} slot {index} is still busy", F::NAME);
        let hop = slot.hop().load() & flows::HOP_BITS;
        bits += hop.count_ones() as usize;
        for n in (0..64).filter(|n| hop >> n & 1 == 1) {
            let at = flows::candidate(index, n, mask);
            let there = F::slot(tables, at).expect("within the table");
            let home = flows::home::<F, _>(tables, &there.key());
            let right = State(there.state().load()).is_live() && home == index;
            assert!(right, "{} slot {index}: hop bit {n} points to slot {at}", F::NAME);
        }
        if !state.is_live() {
            continue;
        }
        let key = slot.key();
        let home = flows::home::<F, _>(tables, &key);
        let twice = live.insert(key.as_ref().to_vec(), state);
        assert!(twice.is_none(), "{} slot {index}: its key is there twice", F::NAME);
        let Ok(met) = flows::find::<F, _>(tables, &key, home) else {
            panic!("{} slot {index}: not found from its home {home}", F::NAME);
        };
        assert_eq!(met.index, index, "{}", F::NAME);
    }
    assert_eq!(bits, live.len(), "{}: hop bits and live entries", F::NAME);
    live
}

/// How many entries have their other half, in a table that nobody writes to.
///
/// # Panics
///
/// Where two entries refer to each other, but are not the two directions of one connection.
pub fn audit_pairs<F: Numbered>(tables: &impl Flows) -> usize {
    let mut paired = 0;
    for Met { index, slot, state } in slots::<F>(tables).filter(|met| met.state.is_live()) {
        let nat = slot.nat();
        let Some(other) = flows::peer::<F, _>(tables, index, nat.peer) else { continue };
        let proto = (slot.key().as_ref().last().expect("a key has words") >> 32) as u8;
        let Nat { src, dst, sport, dport, backend, .. } = nat;
        let sent = Key { src, dst, sport, dport, proto };
        let one = other.slot.holds(&F::words(&sent.turned()))
            && other.slot.backend() == backend
            && other.state.has(State::FORWARD) != state.has(State::FORWARD);
        assert!(one, "{} slots {index} and {}: of two connections", F::NAME, other.index);
        paired += 1;
    }
    paired
}

/// Compares connection counts with the table: the live forward entries that are not closed.
///
/// # Panics
///
/// Where they differ.
pub fn audit_loads(tables: &impl Flows) {
    let (mut backends, mut listeners) = (HashMap::new(), HashMap::new());
    for id in open::<V4>(tables).chain(open::<V6>(tables)) {
        *backends.entry(id).or_insert(0) += 1;
        *listeners.entry(tables.listener_of(id).expect("of our backends")).or_insert(0) += 1;
    }
    for (id, load) in (0..).map_while(|id| Some((id, tables.backend_load(id)?.load()))) {
        let there = backends.get(&id).copied().unwrap_or(0);
        assert_eq!(load, there, "connections of backend {id}: counted, and there");
    }
    for (id, load) in (0..).map_while(|id| Some((id, tables.listener_load(id)?.load()))) {
        let there = listeners.get(&id).copied().unwrap_or(0);
        assert_eq!(load, there, "connections of listener {id}: counted, and there");
    }
}

/// Backends of the connections that count.
fn open<F: Family>(tables: &impl Flows) -> impl Iterator<Item = u32> {
    let counts =
        |state: State| state.is_live() && state.has(State::FORWARD) && !state.has(State::CLOSED);
    slots::<F>(tables).filter(move |met| counts(met.state)).map(|met| met.slot.backend().into())
}

fn slots<F: Family>(tables: &impl Flows) -> impl Iterator<Item = Met<'_, F>> {
    (0..=F::mask(tables)).map(|index| {
        let slot = F::slot(tables, index).expect("within the table");
        Met { index, slot, state: State(slot.state().load()) }
    })
}

/// A rewrite of which every field follows from the key, so that a mix of two is found out.
pub fn rewrite_of<F: Numbered>(key: &Key<F::Addr>, backend: u16) -> Nat<F::Addr> {
    let seed = F::words(key).as_ref().iter().fold(1, |hash, word| mixed(hash ^ word));
    let mut random = Random(seed);
    let ports = random.next().to_be_bytes();
    Nat {
        src: F::addr(random.next()),
        dst: F::addr(random.next()),
        sport: [ports[0], ports[1]],
        dport: [ports[2], ports[3]],
        addr_delta: random.next() as u16,
        full_delta: random.next() as u16,
        backend,
        mac: Mac(random.next() >> 16),
        ifindex: random.next() as u32,
        peer: random.next() as u32,
    }
}

/// Inserts a flow as the path does. None in the error: it is there already.
pub fn insert<F: Numbered>(
    tables: &Memory,
    key: &Key<F::Addr>,
    nat: &Nat<F::Addr>,
    flags: u32,
) -> Result<u32, Option<Refused>> {
    let words = F::words(key);
    let home = flows::home::<F, _>(tables, &words);
    let Err(absent) = flows::find::<F, _>(tables, &words, home) else {
        return Err(None);
    };
    let claimed = flows::claim::<F, _>(tables, &words, home, absent).map_err(Some)?;
    Ok(claimed.publish(tables, nat, flags).index)
}
