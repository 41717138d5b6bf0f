//! What `xdp-lb trace` says of a frame is what the kernel's program makes of it, on the same maps.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

#[path = "../../xdp-lb-ebpf/tests/bed/mod.rs"]
mod bed;
#[allow(dead_code, reason = "the rows run elsewhere")]
mod frames;
#[allow(dead_code, reason = "as above")]
#[path = "frames/kernel.rs"]
mod kernel;
#[path = "frames/mapped.rs"]
mod mapped;
#[path = "frames/sockets.rs"]
mod sockets;

use std::collections::{BTreeMap, HashSet};
use std::process;

use aya::maps::Array;
use bed::Random;
use frames::world::{self, FLOWS, Machine, NOW_S, Outcome, SEEDS, SOURCE_PORTS};
use frames::{Hex, Row, Step, Wire, rows};
use kernel::Kernel;
use xdp_lb::kernel::{Maps, Pins, Trial};
use xdp_lb::record::Record;
use xdp_lb::trace::names::Names;
use xdp_lb::trace::rehearse::{Rehearsed, rehearse};
use xdp_lb::trace::sockets::connections;
use xdp_lb_ebpf::Reason;
use xdp_lb_ebpf::abi::{Meta, VERSION};
use xdp_lb_ebpf::family::Key;
use zerocopy::transmute;

/// Frames of rows that were not sent as they are.
const CHANGED_PERCENT: u64 = 40;

/// Rows in any order, each on what the ones before it left, so that the table is full at times; and of
/// their last frames some with bytes changed, or cut short. A rehearsal that wrote to the maps would have
/// the kernel's program say something else.
#[test]
fn kernel_trace_agrees_for_a_thousand_random_frames() {
    let mut bench = Bench::new();
    let rows = rows::all();
    let mut random = Random(20_261_125);
    while bench.frames < 1000 {
        let row = &rows[random.below(rows.len() as u64) as usize];
        if random.below(4) == 0 {
            bench.kernel.forget();
            bench.sockets.clear();
        }
        bench.row(row, &mut random);
    }
    println!("{} frames: {:?}", bench.frames, bench.verdicts);
    for verdict in ["Pass", "Drop", "Tx", "Redirect"] {
        let seen = bench.verdicts.get(verdict).copied().unwrap_or(0);
        assert!(seen >= 10, "{seen} times {verdict}");
    }
}

struct Bench {
    kernel: Kernel,
    maps: Maps,
    sockets: HashSet<Key<[u8; 16]>>,
    frames: u32,
    verdicts: BTreeMap<String, u32>,
}

impl Bench {
    fn new() -> Self {
        let mut kernel = Kernel::new(FLOWS);
        world::build(&mut kernel);
        let maps = open(&mut kernel);
        Self { kernel, maps, sockets: HashSet::new(), frames: 0, verdicts: BTreeMap::new() }
    }

    fn row(&mut self, row: &Row, random: &mut Random) {
        self.steps(row);
        let mut bytes = row.sent.bytes.clone();
        if random.below(100) < CHANGED_PERCENT {
            change(&mut bytes, random);
        }
        self.send(&row.name, row.sent.by, &bytes);
        self.mend(row);
    }

    fn steps(&mut self, row: &Row) {
        self.kernel.set_clock(NOW_S);
        for step in &row.before {
            match step {
                Step::Sent(Wire { by, bytes }) | Step::Lost(Wire { by, bytes }) => {
                    self.send(&row.name, *by, bytes);
                }
                Step::Socket(..) => {
                    step.change(&mut self.kernel);
                    self.sockets = connections().unwrap();
                }
                _ => step.change(&mut self.kernel),
            }
        }
    }

    /// The world as it was before the row.
    fn mend(&mut self, row: &Row) {
        if row.before.iter().any(Step::changes_the_world) {
            world::build(&mut self.kernel);
            self.sockets.clear();
        }
    }

    /// Rehearses a frame, then runs it.
    fn send(&mut self, name: &str, by: u32, frame: &[u8]) {
        let mapped = self.maps.map_flows().unwrap();
        let trial = Trial::new(&self.maps, &mapped, &self.sockets).unwrap();
        let record = Record::default();
        let told = rehearse(&trial, &Names(&record), by, frame);
        let ran = self.kernel.send(by, frame);
        let want = outcome(&told);
        assert!(
            want == ran,
            "{name}\n sent   {:?}\n told   {want:?}\n kernel {ran:?}\n {:#?}",
            Hex(frame),
            told.steps
        );
        let verdict = format!("{:?}", told.verdict);
        let word = verdict.split('(').next().unwrap_or_default().to_owned();
        *self.verdicts.entry(word).or_default() += 1;
        self.frames += 1;
    }
}

fn outcome(told: &Rehearsed) -> Outcome {
    let often = |reason: &&Reason| told.reasons.iter().filter(|it| it == reason).count();
    let reasons = Reason::ALL.iter().flat_map(|reason| vec![*reason; often(&reason)]).collect();
    Outcome { verdict: told.verdict, frame: told.frame.clone(), reasons }
}

/// Up to three bytes, and perhaps the length; an Ethernet header is the least that the kernel runs.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next() as u8;
    }
    if random.below(4) == 0 {
        let length = random.below(bytes.len() as u64) as usize;
        bytes.truncate(length.max(14));
    }
}

/// The maps of an object that was loaded here. They are pinned for as long as it takes to open them.
fn open(kernel: &mut Kernel) -> Maps {
    let ([seed0, seed1], (snat_low, snat_span)) = (SEEDS, SOURCE_PORTS);
    let meta =
        Meta { version: VERSION, flows4: FLOWS, flows6: FLOWS, seed0, seed1, snat_low, snat_span };
    let meta: [u8; size_of::<Meta>()] = transmute!(meta);
    let mut metas: Array<_, [u8; size_of::<Meta>()]> =
        Array::try_from(kernel.object.map_mut("META").unwrap()).unwrap();
    metas.set(0, meta, 0).unwrap();
    let thread = format!("{:?}", std::thread::current().id());
    let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
    let pins = Pins::of(&format!("kernel-trace-{}-{digits}", process::id()).try_into().unwrap());
    pins.make().unwrap();
    // aya's own maps, of constants, begin with a dot.
    for (name, map) in kernel.object.maps().filter(|(name, _)| !name.starts_with('.')) {
        map.pin(pins.map(name)).unwrap();
    }
    let maps = Maps::open(&pins);
    pins.remove().unwrap();
    maps.unwrap()
}
