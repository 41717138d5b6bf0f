//! Nanoseconds per packet, of the program alone.
//!
//! Every sample has one beside it of the same driver with an empty program; the difference counts.
//! Rounds go through all entries in turn, and those in which the empty program was slow, because
//! somebody else had the machine, are left out.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::maps::MapInfo;
use aya::programs::{ProgramFd, Xdp, loaded_programs};
use aya_obj::programs::XdpAttachType;
use xdp_lb_ebpf::bench::{Flow, Work};

use crate::balancer::{Balancer, Sizes};
use crate::driver::{self, Driver, FRAMES_MAX, FRAMES_MIN};
use crate::frames::{Kind, Says, Segment, arp};
use crate::report::{Cost, Program, quantile};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
/// Frames looked at one by one before anything is measured.
const CHECKED: u32 = 256;
/// A sample with an empty program this much slower than the best one was disturbed.
const DISTURBED: f64 = 1.15;
/// What is kept of the rounds even so.
const KEPT_MIN: f64 = 0.34;

/// Slots of each flow table for flows that are known: more than the caches of any machine.
const SLOTS: u32 = 1 << 20;
const MEMBERS: u16 = 10;
/// A million flows have other needs: members whose ports suffice, slots.
const SLOTS_FULL: u32 = 1 << 22;
const MEMBERS_FULL: u16 = 100;
const MEMBERS_NEW: u16 = 200;

/// Flows in the working set: one; the caches'; the 100,000 of a busy amphora, as a power of two.
const FLOWS: [u32; 3] = [1, 1 << 14, 1 << 17];
const FLOWS_QUICK: [u32; 2] = [1, 1 << 14];
const FLOWS_FULL: u32 = 1 << 20;

pub struct Plan {
    pub rounds: u32,
    /// Of one sample.
    pub frames: u32,
    pub quick: bool,
    pub full: bool,
    /// Whether flows of TCP keep accounts for the log.
    pub logged: bool,
}

/// Something to measure.
struct Entry {
    name: String,
    flows: Option<u32>,
    want: u32,
    measured: Driver,
    empty: Driver,
    /// Nanoseconds by round: all of it, and with an empty program.
    samples: Vec<(f64, f64)>,
}

pub fn run(plan: &Plan) -> Result<(Vec<Cost>, Vec<Program>)> {
    ensure!(
        (FRAMES_MIN..=FRAMES_MAX).contains(&plan.frames),
        "{FRAMES_MIN} to {FRAMES_MAX} frames make a sample"
    );
    let began = Instant::now();
    let sizes =
        |slots, members| Sizes { flows4: slots, flows6: slots, members, logged: plan.logged };
    let known = Balancer::start("bench-known", sizes(SLOTS, MEMBERS))?;
    let opened = u64::from(plan.frames + CHECKED) * u64::from(plan.rounds + 1);
    // Half full at the end.
    let slots = u32::try_from((opened * 4).next_power_of_two())?;
    let new = Balancer::start("bench-new", sizes(slots, MEMBERS_NEW))?;
    let full = plan.full.then(|| Balancer::start("bench-full", sizes(SLOTS_FULL, MEMBERS_FULL)));
    let full = full.transpose()?;

    let flows: &[u32] = if plan.quick { &FLOWS_QUICK } else { &FLOWS };
    let mut entries = vec![same("empty", None, XDP_TX, &arp())?];
    entries.extend(established(&known, flows)?);
    if let Some(full) = &full {
        entries.extend(established(full, &[FLOWS_FULL])?);
    }
    entries.extend(unknown(&known, &new)?);
    for entry in &mut entries {
        entry.check()?;
    }
    for round in 0..plan.rounds {
        eprint!("\rbench: round {} of {} ", round + 1, plan.rounds);
        // Once a second in earnest; a round takes about as long.
        for balancer in [&known, &new].into_iter().chain(&full) {
            balancer.kernel.maps.set_clock(began.elapsed().as_secs() as u32 + 2);
        }
        for entry in &mut entries {
            let pair = (entry.measured.sample(plan.frames)?, entry.empty.sample(plan.frames)?);
            entry.samples.push(pair);
        }
    }
    eprintln!();
    Ok((entries.iter().map(Entry::cost).collect(), programs(&known)?))
}

/// Known flows, both directions, in working sets of the sizes `flows`.
fn established(balancer: &Balancer, flows: &[u32]) -> Result<Vec<Entry>> {
    let program = program(balancer)?;
    let mut entries = Vec::new();
    for kind in Kind::ALL {
        // UDP differs from TCP in what it does, not in what it remembers: a million are left out.
        let Some(most) = flows.iter().max().filter(|most| kind.is_tcp() || **most < FLOWS_FULL)
        else {
            continue;
        };
        let replies = establish(&program, kind, *most)?;
        let first = Segment::from_client(kind, Says::Ack, 0);
        let reply = replies.first().context("no flow")?;
        for count in flows {
            let name = format!("{} forward", kind.name());
            let work = first.work(Some(*count));
            entries.push(entry(&name, Some(kind), Some(*count), XDP_TX, &work, &[], &program)?);
        }
        for count in flows {
            let name = format!("{} reply", kind.name());
            let listed: Vec<Flow> =
                replies.iter().take(*count as usize).map(Segment::flow).collect();
            let work = reply.work(Some(*count));
            entries.push(entry(&name, Some(kind), Some(*count), XDP_TX, &work, &listed, &program)?);
        }
    }
    Ok(entries)
}

/// What no flow is known of.
fn unknown(known: &Balancer, new: &Balancer) -> Result<Vec<Entry>> {
    let (known, new) = (program(known)?, program(new)?);
    let mut entries = Vec::new();
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        let work = Segment::from_client(kind, Says::Syn, 0).work(None);
        let name = format!("{} new flow", kind.name());
        entries.push(entry(&name, Some(kind), None, XDP_TX, &work, &[], &new)?);
    }
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        // The kernel is asked for a socket. Numbered apart from the flows that are opened above.
        let stray = Segment::from_client(kind, Says::SynAck, 0).work(None);
        let work = Work { written: 1 << 31, ..stray };
        let name = format!("{} no connection", kind.name());
        entries.push(entry(&name, Some(kind), None, XDP_DROP, &work, &[], &new)?);
    }
    for kind in [Kind::Tcp4, Kind::Tcp6] {
        let elsewhere = Segment { dport: 81, ..Segment::from_client(kind, Says::Ack, 0) };
        let name = format!("{} no listener", kind.name());
        entries.push(entry(&name, Some(kind), None, XDP_PASS, &elsewhere.work(None), &[], &known)?);
    }
    entries.push(same("arp", Some(known.fd()?), XDP_PASS, &arp())?);
    Ok(entries)
}

/// Opens flows as clients and members would, and returns what the members then send.
fn establish(program: &Xdp, kind: Kind, flows: u32) -> Result<Vec<Segment>> {
    let send = |segment: Segment| {
        let (verdict, out) = driver::pass(program, &segment.frame())?;
        ensure!(verdict == XDP_TX, "verdict {verdict} on {segment:?}");
        Ok(out)
    };
    let open = |flow| {
        let sent = send(Segment::from_client(kind, Says::Syn, flow))?;
        let answer = Segment::answer(kind, Says::SynAck, &sent);
        send(answer)?;
        send(Segment::from_client(kind, Says::Ack, flow))?;
        Ok(Segment { says: Says::Ack, ..answer })
    };
    (0..flows).map(open).collect()
}

fn program(balancer: &Balancer) -> Result<Xdp> {
    Ok(Xdp::from_pin(balancer.pins.program(), XdpAttachType::Interface)?)
}

fn same(name: &str, target: Option<&ProgramFd>, want: u32, work: &Work) -> Result<Entry> {
    Ok(Entry {
        name: name.to_owned(),
        flows: None,
        want,
        measured: Driver::load(None, work, &[], target)?,
        empty: Driver::load(None, work, &[], None)?,
        samples: Vec::new(),
    })
}

fn entry(
    name: &str,
    kind: Option<Kind>,
    flows: Option<u32>,
    want: u32,
    work: &Work,
    listed: &[Flow],
    target: &Xdp,
) -> Result<Entry> {
    Ok(Entry {
        name: name.to_owned(),
        flows,
        want,
        measured: Driver::load(kind, work, listed, Some(target.fd()?))?,
        empty: Driver::load(kind, work, listed, None)?,
        samples: Vec::new(),
    })
}

impl Entry {
    /// Another verdict than is meant means another work than is meant.
    fn check(&mut self) -> Result<()> {
        for _ in 0..CHECKED {
            let verdict = self.measured.verdict()?;
            let (name, want) = (&self.name, self.want);
            ensure!(verdict == want, "{name}: verdict {verdict} in place of {want}");
        }
        Ok(())
    }

    fn cost(&self) -> Cost {
        let empty: Vec<f64> = self.samples.iter().map(|(_, empty)| *empty).collect();
        let least = quantile(&empty, 0.0) * DISTURBED;
        let limit = least.max(quantile(&empty, KEPT_MIN));
        let kept = self.samples.iter().filter(|(_, empty)| *empty <= limit);
        let net: Vec<f64> = kept.map(|(all, empty)| all - empty).collect();
        Cost {
            name: self.name.clone(),
            flows: self.flows,
            median_ns: quantile(&net, 0.5),
            p25_ns: quantile(&net, 0.25),
            least_ns: quantile(&net, 0.0),
            driver_ns: quantile(&empty, 0.5),
            rounds: net.len(),
        }
    }
}

/// Sizes of the programs, by the map that all of them count in.
fn programs(balancer: &Balancer) -> Result<Vec<Program>> {
    let reasons = MapInfo::from_pin(balancer.pins.map("REASONS"))?.id();
    let mut programs = Vec::new();
    // Those of others may end meanwhile.
    for info in loaded_programs().flatten() {
        if info.map_ids().ok().flatten().is_some_and(|ids| ids.contains(&reasons)) {
            programs.push(Program {
                name: info.name_as_str().unwrap_or_default().to_owned(),
                verified_instructions: info.verified_instruction_count().unwrap_or_default(),
                instructions: info.size_translated().unwrap_or_default() / 8,
                machine_code_bytes: info.size_jitted(),
            });
        }
    }
    Ok(programs)
}
