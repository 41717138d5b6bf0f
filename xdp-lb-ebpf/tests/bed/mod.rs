//! What the tests of the flow table share: random keys, and the audit of a table at rest.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::HashMap;

use xdp_lb_ebpf::cell::Word32;
use xdp_lb_ebpf::family::{Family, Key, Nat, Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, Refused, State};
use xdp_lb_ebpf::headers::Mac;
use xdp_lb_ebpf::memory::Memory;

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
    fn slots(tables: &Memory) -> u32;
    /// Tables whose flow table of this family has `slots`, the other 64.
    fn memory(slots: u32, listeners: usize, backends: usize) -> Memory;
}

impl Numbered for V4 {
    const NAME: &'static str = "IPv4";
    fn addr(number: u64) -> [u8; 4] {
        (number as u32).to_be_bytes()
    }
    fn slots(tables: &Memory) -> u32 {
        tables.flows4.len() as u32
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
    fn slots(tables: &Memory) -> u32 {
        tables.flows6.len() as u32
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
pub fn audit<F: Numbered>(tables: &Memory) -> HashMap<Vec<u64>, State> {
    let mask = F::mask(tables);
    let mut live = HashMap::new();
    let mut bits = 0;
    for index in 0..F::slots(tables) {
        let slot = F::slot(tables, index).expect("within the table");
        let state = State(slot.state().load());
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

/// Compares connection counts with the table: the live forward entries that are not closed.
///
/// # Panics
///
/// Where they differ.
pub fn audit_loads(tables: &Memory) {
    let mut backends = vec![0; tables.backend_loads.len()];
    let mut listeners = vec![0; tables.listener_loads.len()];
    let mut count = |state: State, backend: u16| {
        if state.is_live() && state.has(State::FORWARD) && !state.has(State::CLOSED) {
            backends[usize::from(backend)] += 1;
            listeners[tables.backends[usize::from(backend)].listener as usize] += 1;
        }
    };
    tables.flows4.iter().for_each(|slot| count(State(slot.state().load()), slot.backend()));
    tables.flows6.iter().for_each(|slot| count(State(slot.state().load()), slot.backend()));
    let loads = |words: &[Word32]| words.iter().map(Word32::load).collect::<Vec<_>>();
    assert_eq!(loads(&tables.backend_loads), backends, "connections of each backend");
    assert_eq!(loads(&tables.listener_loads), listeners, "connections of each listener");
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
