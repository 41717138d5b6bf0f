//! The flow table filled to its stated capacity, and beyond.

mod bed;

use bed::{Numbered, Random, audit, insert, random_key, rewrite_of};
use xdp_lb_ebpf::family::{Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, Refused, State};
use xdp_lb_ebpf::limits::FLOWS_CAPACITY_PERCENT;
use xdp_lb_ebpf::memory::Memory;

/// Slots as a power of two, and how many fillings.
const ROWS: [(u32, u64); 4] = [(6, 50), (10, 50), (14, 5), (18, 1)];

#[test]
fn ipv4_up_to_capacity_none_is_refused() {
    up_to_capacity::<V4>();
}

#[test]
fn ipv6_up_to_capacity_none_is_refused() {
    up_to_capacity::<V6>();
}

#[test]
fn ipv4_beyond_what_fits_new_flows_are_refused() {
    beyond::<V4>();
}

#[test]
fn ipv6_beyond_what_fits_new_flows_are_refused() {
    beyond::<V6>();
}

/// What the capacity was stated from.
#[test]
#[ignore = "a measurement: minutes"]
fn first_refusals() {
    for (bits, seeds) in [(10, 2000), (14, 300), (18, 200), (20, 12)] {
        let filled = |seed| fill::<V4>(bits, seed, 1 << bits).1.len() as f64 / f64::from(1 << bits);
        let mut loads: Vec<f64> = (0..seeds).map(filled).collect();
        loads.sort_by(f64::total_cmp);
        println!("2^{bits} slots: least {:.3}, median {:.3}", loads[0], loads[loads.len() / 2]);
    }
}

fn up_to_capacity<F: Numbered>() {
    for (bits, seeds) in ROWS {
        let wanted = (1_u64 << bits) * u64::from(FLOWS_CAPACITY_PERCENT) / 100;
        for seed in 0..seeds {
            let (tables, keys) = fill::<F>(bits, seed, wanted);
            assert_eq!(keys.len() as u64, wanted, "{} 2^{bits}, seed {seed}", F::NAME);
            intact::<F>(&tables, &keys);
        }
    }
}

fn beyond<F: Numbered>() {
    for seed in 0..5 {
        let (tables, keys) = fill::<F>(10, seed, 1 << 10);
        let mut more = Random(!seed);
        let mut placed = 0;
        for _ in 0..1000 {
            let key = random_key::<F>(&mut more);
            match insert::<F>(&tables, &key, &rewrite_of::<F>(&key, 0), State::ANSWERED) {
                Ok(_) => placed += 1,
                Err(refused) => assert_eq!(refused, Some(Refused::Full), "seed {seed}"),
            }
        }
        assert_eq!(audit::<F>(&tables).len(), keys.len() + placed, "{} seed {seed}", F::NAME);
        intact::<F>(&tables, &keys);
    }
}

/// A table of `1 << bits` slots with as many answered flows as fit, at most `wanted`.
fn fill<F: Numbered>(bits: u32, seed: u64, wanted: u64) -> (Memory, Vec<F::Words>) {
    let mut random = Random(seed);
    let mut tables = F::memory(1 << bits, 1, 1);
    tables.seeds = [random.next(), random.next()];
    let mut keys = Vec::new();
    for _ in 0..wanted {
        let key = random_key::<F>(&mut random);
        if insert::<F>(&tables, &key, &rewrite_of::<F>(&key, 0), State::ANSWERED).is_err() {
            break;
        }
        keys.push(F::words(&key));
    }
    (tables, keys)
}

fn intact<F: Numbered>(tables: &Memory, keys: &[F::Words]) {
    for key in keys {
        let home = flows::home::<F, _>(tables, key);
        let met = flows::find::<F, _>(tables, key, home).expect("evicted");
        assert!(met.slot.holds(key));
    }
    audit::<F>(tables);
}
