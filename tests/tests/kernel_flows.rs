//! The flow table in the kernel: filled to its capacity, flooded, and written by two CPUs at once.
//! The frames go through the program; the table is looked at as user space does.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

#[path = "../../xdp-lb-ebpf/tests/bed/mod.rs"]
mod bed;
#[allow(dead_code, reason = "the rows are other tests'")]
mod frames;
#[allow(dead_code, reason = "as above")]
#[path = "frames/kernel.rs"]
mod kernel;
#[path = "frames/mapped.rs"]
mod mapped;
#[allow(dead_code, reason = "as above")]
#[path = "frames/sockets.rs"]
mod sockets;

use std::hint;
use std::net::IpAddr;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use aya::maps::Array;
use bed::{Numbered, Random, audit, audit_loads, audit_pairs};
use frames::frame::{Body, Frame, TCP, say};
use frames::world::{
    self, Flow, LAN, Machine, NOW_S, ROUND, SEEDS, Verdict, WAN, backend_id, flow,
};
use kernel::Kernel;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use xdp_lb::kernel::{FlowTables, Maps, Pins, Table, total};
use xdp_lb_ebpf::Reason;
use xdp_lb_ebpf::abi::{ListenerCounters, Meta, VERSION};
use xdp_lb_ebpf::checksum;
use xdp_lb_ebpf::family::{Address, Key, Nat, Slot, V4, V6};
use xdp_lb_ebpf::flows::{self, State};
use xdp_lb_ebpf::headers::Mac;
use xdp_lb_ebpf::limits::FLOWS_CAPACITY_PERCENT;
use zerocopy::transmute;

#[test]
fn kernel_ipv4_filled_by_frames() {
    filled_by_frames::<V4>();
}

#[test]
fn kernel_ipv6_filled_by_frames() {
    filled_by_frames::<V6>();
}

/// All flows up to the stated capacity are established; beyond what fits a new one is refused and
/// counted, and those established go on.
fn filled_by_frames<F: Numbered>() {
    const SLOTS: u32 = 1 << 16;
    let (kernel, maps, mapped) = start::<F>(SLOTS);
    let tables = maps.table(&mapped);
    let mut flows = fill::<F>(&kernel, SLOTS);
    assert_eq!(established::<F>(&kernel, &tables, &flows), flows.len() * 2);
    let mut refused = 0;
    for n in flows.len() as u32..SLOTS {
        match establish(&kernel, &client::<F>(n)) {
            Some(flow) => flows.push(flow),
            None => {
                if refused == 0 {
                    let taken = flows.len() * 200 / SLOTS as usize;
                    println!("{}: first refused at {taken} % of the slots", F::NAME);
                }
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    let for_want = [Reason::TableFull, Reason::PortsExhausted];
    assert_eq!(for_want.map(|reason| counted(&maps, reason)).iter().sum::<u64>(), refused);
    assert_eq!(exhausted(&maps), refused);
    assert_eq!(established::<F>(&kernel, &tables, &flows), flows.len() * 2);
}

#[test]
fn kernel_ipv4_a_flood_displaces_no_established_flow() {
    flood::<V4>();
}

#[test]
fn kernel_ipv6_a_flood_displaces_no_established_flow() {
    flood::<V6>();
}

/// A table at its capacity, and ten SYNs for each slot.
fn flood<F: Numbered>() {
    const SLOTS: u32 = 1 << 14;
    let (kernel, maps, mapped) = start::<F>(SLOTS);
    let tables = maps.table(&mapped);
    let flows = fill::<F>(&kernel, SLOTS);
    let mut opened = 0;
    for n in 0..SLOTS * 10 {
        // Refused now and then, where all candidates are established.
        let new = client::<F>(flows.len() as u32 + n);
        opened += u32::from(open(&kernel, &new).is_some());
        if n % 64 == 0 {
            maps.set_clock(NOW_S + n / 64);
        }
    }
    println!("{}: {opened} of {} SYNs went on", F::NAME, SLOTS * 10);
    assert!(opened > SLOTS);
    established::<F>(&kernel, &tables, &flows);
}

#[test]
fn kernel_ipv4_two_cpus_write_at_once() {
    two_cpus::<V4>();
}

#[test]
fn kernel_ipv6_two_cpus_write_at_once() {
    two_cpus::<V6>();
}

/// Two CPUs open, answer, finish and reset the connections of the same clients: of a few, and of as
/// many as the table has hardly room for. User space looks on.
fn two_cpus<F: Numbered>() {
    const SLOTS: u32 = 128;
    const CLIENTS: [usize; 2] = [8, 60];
    const ROUNDS: u64 = 30;
    const STEPS: u32 = 3000;
    let Some(cpus) = two_of_our_cpus() else {
        println!("one CPU: nobody writes at once");
        return;
    };
    let (mut kernel, maps, mapped) = start::<F>(SLOTS);
    let tables = maps.table(&mapped);
    // Two clients to a port: those whose member is the same want the same source port too.
    let clients: Vec<_> = (0..60).map(|n| client::<F>(n).sport(5000 + n as u16 / 2)).collect();
    let (mut seen, mut live, mut paired) = (0, 0, 0);
    for round in 0..ROUNDS {
        kernel.forget();
        let clients = &clients[..CLIENTS[round as usize % 2]];
        let (steps, over) = ([AtomicU32::new(0), AtomicU32::new(0)], AtomicBool::new(false));
        thread::scope(|scope| {
            let writers = [0, 1].map(|me| {
                let (kernel, steps) = (&kernel, &steps);
                scope.spawn(move || {
                    run_on(cpus[me]);
                    let (mut same, mut own) = (Random(round), Random(!round << 1 | me as u64));
                    for step in 0..STEPS {
                        write(kernel, clients, (&mut same, &mut own), || meet(steps, me, step));
                    }
                })
            });
            let reader = scope.spawn(|| {
                let mut random = Random(round);
                let mut seen = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..16 {
                        let index = random.below(SLOTS.into()) as u32;
                        seen += u64::from(read::<F>(&tables, clients, index));
                    }
                    // The writers shall have the two CPUs, most of the time.
                    thread::sleep(Duration::from_micros(200));
                }
                seen
            });
            let ended = writers.map(|writer| writer.join());
            over.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|end| end.expect("no writer panics"));
            seen += reader.join().expect("the reader does not panic");
        });
        let entries = audit::<F>(&tables).len();
        let right = (0..SLOTS).filter(|index| read::<F>(&tables, clients, *index)).count();
        assert_eq!(right, entries);
        live += entries;
        paired += audit_pairs::<F>(&tables);
        audit_loads(&tables);
    }
    let contended = counted(&maps, Reason::Contended);
    println!(
        "{}: {contended} frames met another CPU, {seen} entries seen whole; {live} left at rest, \
         {paired} of them with their other half",
        F::NAME
    );
    assert!(seen > 0 && paired > 0);
}

/// One step of a writer: a client says something, and what its member hears is answered. `same` is
/// alike on both CPUs, and both send at once.
fn write(
    kernel: &Kernel,
    clients: &[Flow],
    (same, own): (&mut Random, &mut Random),
    meet: impl FnOnce(),
) {
    let pair = same.below(clients.len() as u64 / 2) * 2;
    // Mostly the very same client.
    let client = &clients[(pair + u64::from(own.below(4) == 0)) as usize];
    let says = ["S", "S", "S", "A", "FA", "R"][own.below(6) as usize];
    let answers = ["SA", "SA", "FA", "FA", "R"][own.below(5) as usize];
    // Now and then by another router.
    let [_, _, n @ ..] = client.client_mac;
    let client = &client.client_mac(mac(if own.below(4) == 0 { 2 } else { 1 }, n));
    let frame = client.sent(say(says)).bytes();
    meet();
    let Some(flow) = at_member(client, says, kernel.run(WAN, &frame)) else { return };
    let (verdict, frame) = kernel.run(LAN, &flow.answered(say(answers)).bytes());
    if verdict == Verdict::Redirect(WAN) {
        // The source port may be another client's by now.
        let heard_by = known([0, 1, 2, 3, 4, 5].map(|at| frame[at]), clients);
        assert_eq!(frame, heard_by.heard(say(answers)).bytes(), "half an entry");
    }
}

/// Waits for the other writer to come as far; not for long, since it may not be running.
fn meet(steps: &[AtomicU32; 2], me: usize, step: u32) {
    steps[me].store(step, Ordering::SeqCst);
    for _ in 0..2000 {
        if steps[1 - me].load(Ordering::SeqCst) >= step {
            break;
        }
        hint::spin_loop();
    }
}

/// Reads the entry of a slot's key as the path does. Whether it is in that slot, and stayed there.
fn read<F: Numbered>(tables: &Table<'_>, clients: &[Flow], index: u32) -> bool {
    let words = F::slot(tables, index).unwrap().key();
    let home = flows::home::<F, _>(tables, &words);
    let Ok(met) = flows::find::<F, _>(tables, &words, home) else { return false };
    // As an interrupt may hold a reader up, so that the slot becomes another flow's meanwhile.
    (0..100).for_each(|_| hint::spin_loop());
    let nat = met.slot.nat();
    if !met.state.same_flow(State(met.slot.state().load())) {
        return false;
    }
    let forward = met.state.has(State::FORWARD);
    let client = known(nat.mac.bytes(), clients);
    let member = u32::from(nat.backend) - backend_id(ROUND, client.family, 1) + 1;
    // Ours towards the member: what this entry writes, or what it is found by.
    let [.., ports] = words.as_ref() else { unreachable!("a key has words") };
    let ours = if forward { nat.sport } else { ((ports >> 16) as u16).to_ne_bytes() };
    let flow = client.member(member as u8).source_port(u16::from_be_bytes(ours));
    let (key, want) = entry::<F>(&flow, forward, nat.peer);
    assert_eq!((words.as_ref(), nat), (F::words(&key).as_ref(), want), "half an entry");
    met.index == index
}

/// What the table holds of a flow in one direction.
fn entry<F: Numbered>(flow: &Flow, forward: bool, peer: u32) -> (Key<F::Addr>, Nat<F::Addr>) {
    let [sent, taken, answered, heard] =
        [flow.sent(say("")), flow.taken(say("")), flow.answered(say("")), flow.heard(say(""))]
            .map(|frame| key::<F>(&frame));
    let addr_delta =
        checksum::fold(sent.src.difference(&taken.src) + sent.dst.difference(&taken.dst));
    let ports = checksum::difference(&sent.sport, &taken.sport)
        + checksum::difference(&sent.dport, &taken.dport);
    let full_delta = checksum::fold(u32::from(addr_delta) + ports);
    // Back again the same is taken away: in ones' complement, the complement.
    let (key, to, turn) = if forward { (sent, taken, 0) } else { (answered, heard, 0xffff) };
    let nat = Nat {
        src: to.src,
        dst: to.dst,
        sport: to.sport,
        dport: to.dport,
        addr_delta: addr_delta ^ turn,
        full_delta: full_delta ^ turn,
        backend: backend_id(ROUND, flow.family, flow.member) as u16,
        mac: Mac::new(flow.client_mac),
        ifindex: WAN,
        peer,
    };
    (key, nat)
}

fn key<F: Numbered>(frame: &Frame) -> Key<F::Addr> {
    let Body::Tcp(sport, dport, _) = &frame.body else { unreachable!("all flows are TCP") };
    let [src, dst] = [frame.src, frame.dst].map(|at| F::Addr::narrow(world::wide(at)));
    Key { src, dst, sport: sport.to_be_bytes(), dport: dport.to_be_bytes(), proto: TCP }
}

/// As many established flows as the table is said to hold.
fn fill<F: Numbered>(kernel: &Kernel, slots: u32) -> Vec<Flow> {
    let fit = slots / 2 * FLOWS_CAPACITY_PERCENT / 100;
    let flow = |n| establish(kernel, &client::<F>(n)).unwrap_or_else(|| panic!("client {n}"));
    (0..fit).map(flow).collect()
}

/// All of `flows` are in the table, whole, and a client's next frame goes where the first went. How
/// many entries there are.
fn established<F: Numbered>(kernel: &Kernel, tables: &Table<'_>, flows: &[Flow]) -> usize {
    let live = audit::<F>(tables);
    audit_pairs::<F>(tables);
    audit_loads(tables);
    let kept = live.values().filter(|state| state.has(State::ANSWERED)).count();
    assert_eq!(kept, flows.len() * 2, "{}: entries of established flows", F::NAME);
    for flow in flows {
        let words = F::words(&key::<F>(&flow.sent(say("A"))));
        let met = flows::find::<F, _>(tables, &words, flows::home::<F, _>(tables, &words)).ok();
        let other = met.and_then(|met| flows::peer::<F, _>(tables, met.index, met.slot.peer()));
        assert!(other.is_some_and(|other| other.state.has(State::ANSWERED)), "{flow:?}");
        carried(kernel, flow.sent(say("A")), flow.taken(say("A")));
    }
    live.len()
}

/// None where it is refused.
fn establish(kernel: &Kernel, client: &Flow) -> Option<Flow> {
    let flow = open(kernel, client)?;
    carried(kernel, flow.answered(say("SA")), flow.heard(say("SA")));
    carried(kernel, flow.sent(say("A")), flow.taken(say("A")));
    Some(flow)
}

fn open(kernel: &Kernel, client: &Flow) -> Option<Flow> {
    at_member(client, "S", kernel.run(WAN, &client.sent(say("S")).bytes()))
}

/// What became of a frame of a client: the flow as its member knows it, where it went on to one.
fn at_member(client: &Flow, says: &'static str, ran: (Verdict, Vec<u8>)) -> Option<Flow> {
    let (verdict, frame) = ran;
    if verdict != Verdict::Redirect(LAN) {
        return None;
    }
    let ports = if client.client.is_ipv4() { 34 } else { 54 };
    let source_port = u16::from_be_bytes([frame[ports], frame[ports + 1]]);
    // The last byte of its MAC is a member's number.
    let flow = client.member(frame[5]).source_port(source_port);
    assert_eq!(frame, flow.taken(say(says)).bytes(), "{flow:?}");
    Some(flow)
}

fn carried(kernel: &Kernel, from: Frame, to: Frame) {
    let want = (Verdict::Redirect(to.by), to.bytes());
    assert_eq!(kernel.run(from.by, &from.bytes()), want, "{from:?}");
}

/// The `n`th client: an address and a port at random, and a MAC that says `n`.
fn client<F: Numbered>(n: u32) -> Flow {
    let mut random = Random(n.into());
    let client = IpAddr::from(F::addr(random.next()).wide()).to_canonical();
    let family = if client.is_ipv4() { world::V4 } else { world::V6 };
    // A port that may be kept towards the member, nearly always.
    let sport = random.next() as u16 | 0x1000;
    Flow { client, client_mac: mac(1, n.to_be_bytes()), ..flow(family, TCP, ROUND) }.sport(sport)
}

/// Of the `n`th client by one of its routers.
fn mac(router: u8, [a, b, c, d]: [u8; 4]) -> [u8; 6] {
    [2, router, a, b, c, d]
}

/// The client that has a MAC, by the router that has it.
fn known(client_mac: [u8; 6], clients: &[Flow]) -> Flow {
    let [_, _, n @ ..] = client_mac;
    clients[u32::from_be_bytes(n) as usize].client_mac(client_mac)
}

/// The program, on maps of which user space has `slots` in its memory.
fn start<F: Numbered>(slots: u32) -> (Kernel, Maps, FlowTables) {
    let mut kernel = Kernel::new(slots);
    world::build(&mut kernel);
    let [seed0, seed1] = SEEDS;
    let meta =
        Meta { version: VERSION, flows4: slots, flows6: slots, seed0, seed1, ..Meta::default() };
    let meta: [u8; size_of::<Meta>()] = transmute!(meta);
    let mut metas: Array<_, [u8; size_of::<Meta>()]> =
        Array::try_from(kernel.object.map_mut("META").unwrap()).unwrap();
    metas.set(0, meta, 0).unwrap();
    // Pinned for as long as it takes to open them.
    let name = format!("kernel-flows-{}-{:?}", process::id(), thread::current().id());
    let pins = Pins::of(&name.to_lowercase().replace(['(', ')'], "-").try_into().unwrap());
    pins.make().unwrap();
    // aya's own maps, of constants, begin with a dot.
    for (name, map) in kernel.object.maps().filter(|(name, _)| !name.starts_with('.')) {
        map.pin(pins.map(name)).unwrap();
    }
    let maps = Maps::open(&pins);
    pins.remove().unwrap();
    let maps = maps.unwrap();
    let mapped = maps.map_flows().unwrap();
    (kernel, maps, mapped)
}

fn counted(tables: &Maps, reason: Reason) -> u64 {
    tables.reasons.get(&(reason as u32), 0).unwrap().iter().sum()
}

/// New flows that found no slot or no source port.
fn exhausted(tables: &Maps) -> u64 {
    (0..tables.listener_load.len() as u32)
        .map(|id| total::<ListenerCounters, _>(&tables.listener_counters, id).unwrap().exhausted)
        .sum()
}

/// Two of the CPUs we may run on.
fn two_of_our_cpus() -> Option<[usize; 2]> {
    let ours = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut cpus = (0..CpuSet::count()).filter(|cpu| ours.is_set(*cpu).unwrap());
    Some([cpus.next()?, cpus.next()?])
}

/// Keeps this thread on one CPU.
fn run_on(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &only).unwrap();
}
