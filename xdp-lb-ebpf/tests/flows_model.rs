//! The flow table against a plain map, and with two writers at once.

mod bed;

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bed::{Numbered, Random, audit, audit_loads, insert, random_key, rewrite_of};
use proptest::prelude::*;
use xdp_lb_ebpf::family::{Key, Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, Refused, State};
use xdp_lb_ebpf::memory::Memory;

#[derive(Clone, Debug)]
enum Step {
    Insert { key: u64, answered: bool },
    Answer { key: u64 },
    Close { key: u64 },
    Remove { key: u64 },
    Wait { seconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..150_u64;
    prop_oneof![
        6 => (key.clone(), any::<bool>())
            .prop_map(|(key, answered)| Step::Insert { key, answered }),
        1 => key.clone().prop_map(|key| Step::Answer { key }),
        1 => key.clone().prop_map(|key| Step::Close { key }),
        2 => key.prop_map(|key| Step::Remove { key }),
        1 => (1..100_u32).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn ipv4_as_a_plain_map(steps in prop::collection::vec(step(), 1..400)) {
        as_a_plain_map::<V4>(&steps);
    }

    #[test]
    fn ipv6_as_a_plain_map(steps in prop::collection::vec(step(), 1..400)) {
        as_a_plain_map::<V6>(&steps);
    }
}

/// The model knows every flow and its flags. A flow that is not answered, or closed, may be gone
/// from the table; then it leaves the model too.
fn as_a_plain_map<F: Numbered>(steps: &[Step]) {
    let tables = F::memory(64, 1, 4);
    let mut model: HashMap<u64, u32> = HashMap::new();
    for step in steps {
        match *step {
            Step::Insert { key: number, answered } => {
                let flags = State::FORWARD | if answered { State::ANSWERED } else { 0 };
                match open::<F>(&tables, &key::<F>(number), flags) {
                    Ok(()) => assert_eq!(model.insert(number, flags), None, "{number} was there"),
                    Err(None) => assert!(model.contains_key(&number), "{number} was not there"),
                    Err(Some(refused)) => {
                        assert_eq!(refused, Refused::Full);
                        let staying = model.values().copied().filter(|flags| stays(*flags)).count();
                        assert!(staying >= flows::CANDIDATES as usize);
                    }
                }
            }
            Step::Answer { key } => flag::<F>(&tables, &mut model, key, State::ANSWERED),
            Step::Close { key } => flag::<F>(&tables, &mut model, key, State::CLOSED),
            Step::Remove { key: number } => {
                assert_eq!(
                    remove::<F>(&tables, &key::<F>(number)),
                    model.remove(&number).is_some()
                );
            }
            Step::Wait { seconds } => {
                tables.now_s.add(seconds);
            }
        }
        model.retain(|number, flags| {
            let there = state::<F>(&tables, &key::<F>(*number));
            assert!(there.is_some() || !stays(*flags), "{number} was evicted");
            there.is_some_and(|state| {
                assert_eq!(state.0 & 0xfffc, *flags, "flags of {number}");
                true
            })
        });
        assert_eq!(audit::<F>(&tables).len(), model.len());
        audit_loads(&tables);
    }
}

fn stays(flags: u32) -> bool {
    State(flags).has(State::ANSWERED) && !State(flags).has(State::CLOSED)
}

fn flag<F: Numbered>(tables: &Memory, model: &mut HashMap<u64, u32>, number: u64, flag: u32) {
    let words = F::words(&key::<F>(number));
    let home = flows::home::<F, _>(tables, &words);
    let met = flows::find::<F, _>(tables, &words, home).ok();
    assert_eq!(met.is_some(), model.contains_key(&number));
    let (Some(met), Some(flags)) = (met, model.get_mut(&number)) else {
        return;
    };
    let before = flows::mark(&met, flag).expect("nobody else writes");
    if flag == State::CLOSED && !before.has(State::CLOSED) {
        flows::uncount(tables, met.slot.backend().into());
    }
    *flags |= flag;
}

/// Two writers insert, answer, close and remove the same 96 keys in 64 slots; a reader looks on.
#[test]
fn ipv4_two_writers() {
    two_writers::<V4>();
}

#[test]
fn ipv6_two_writers() {
    two_writers::<V6>();
}

fn two_writers<F: Numbered>() {
    const ROUNDS: u64 = 40;
    const STEPS: u64 = 4000;
    for round in 0..ROUNDS {
        let tables = F::memory(64, 1, 4);
        let (start, over) = (Barrier::new(3), AtomicBool::new(false));
        thread::scope(|scope| {
            let writers = [1, 2].map(|writer| {
                let (tables, start) = (&tables, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut random = Random(round << 8 | writer);
                    for _ in 0..STEPS {
                        write::<F>(tables, &mut random);
                    }
                })
            });
            scope.spawn(|| {
                start.wait();
                let mut random = Random(round << 8);
                while !over.load(Ordering::Relaxed) {
                    read::<F>(&tables, &key::<F>(random.below(96)));
                }
            });
            let ended = writers.map(|writer| writer.join());
            over.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|end| end.expect("no writer panics"));
        });
        audit::<F>(&tables);
        audit_loads(&tables);
    }
}

fn write<F: Numbered>(tables: &Memory, random: &mut Random) {
    let key = key::<F>(random.below(96));
    let words = F::words(&key);
    match random.below(8) {
        0..5 => {
            let answered = if random.below(4) == 0 { State::ANSWERED } else { 0 };
            // Refused or there already: both are right while another writes.
            let _ = open::<F>(tables, &key, State::FORWARD | answered);
        }
        5 => {
            let home = flows::home::<F, _>(tables, &words);
            let Ok(met) = flows::find::<F, _>(tables, &words, home) else { return };
            let backend = met.slot.backend();
            let closed = flows::mark(&met, State::CLOSED);
            if closed.is_some_and(|before| !before.has(State::CLOSED)) {
                flows::uncount(tables, backend.into());
            }
        }
        _ => {
            remove::<F>(tables, &key);
        }
    }
}

/// Reads as the path does.
fn read<F: Numbered>(tables: &Memory, key: &Key<F::Addr>) {
    let words = F::words(key);
    let home = flows::home::<F, _>(tables, &words);
    let Ok(met) = flows::find::<F, _>(tables, &words, home) else { return };
    let nat = met.slot.nat();
    if met.state.same_flow(State(met.slot.state().load())) {
        assert_eq!(nat, rewrite_of::<F>(key, backend_of::<F>(&words)), "half an entry");
    }
}

/// Opens a flow as the path does: counted, and given back where there is no room.
fn open<F: Numbered>(
    tables: &Memory,
    key: &Key<F::Addr>,
    flags: u32,
) -> Result<(), Option<Refused>> {
    let backend = backend_of::<F>(&F::words(key));
    // Counted first: who evicts the flow the moment it is there finds it counted.
    assert!(flows::count_within(tables, 0, u32::MAX));
    tables.backend_loads[usize::from(backend)].add(1);
    let opened = insert::<F>(tables, key, &rewrite_of::<F>(key, backend), flags);
    if opened.is_err() {
        flows::uncount(tables, backend.into());
    }
    opened.map(drop)
}

fn remove<F: Numbered>(tables: &Memory, key: &Key<F::Addr>) -> bool {
    let words = F::words(key);
    let home = flows::home::<F, _>(tables, &words);
    flows::find::<F, _>(tables, &words, home).is_ok_and(|met| flows::remove(tables, &met))
}

fn state<F: Numbered>(tables: &Memory, key: &Key<F::Addr>) -> Option<State> {
    let words = F::words(key);
    let home = flows::home::<F, _>(tables, &words);
    flows::find::<F, _>(tables, &words, home).map(|met| met.state).ok()
}

fn key<F: Numbered>(number: u64) -> Key<F::Addr> {
    random_key::<F>(&mut Random(number))
}

fn backend_of<F: Numbered>(words: &F::Words) -> u16 {
    words.as_ref()[0] as u16 % 4
}
