//! The flow table as real frames fill it: capacity, floods, and connection counts.

mod bed;

use std::thread;

use bed::{Numbered, Random, audit, audit_loads, audit_pairs};
use xdp_lb_ebpf::abi::{BACKEND_UP, Backend, Listener, ListenerKey, TCP};
use xdp_lb_ebpf::family::{Address, Key, V4, V6};
use xdp_lb_ebpf::flows::{self, State};
use xdp_lb_ebpf::headers::{ACK, FIN, RST, SYN};
use xdp_lb_ebpf::limits::FLOWS_CAPACITY_PERCENT;
use xdp_lb_ebpf::memory::Memory;
use xdp_lb_ebpf::path::{self, Routed};
use xdp_lb_ebpf::{Packet, Reason, parse};
use zerocopy::{FromZeros, IntoBytes};

const SLOTS: u32 = 1 << 12;
const MEMBERS: u64 = 8;
const VIP: u64 = 0x0a00_0001;
const CLIENTS: u64 = 0x6400_0000;

#[test]
fn ipv4_filled_by_frames() {
    filled_by_frames::<V4>();
}

#[test]
fn ipv6_filled_by_frames() {
    filled_by_frames::<V6>();
}

#[test]
fn ipv4_ends_that_are_not_logged_go_last_and_are_counted() {
    unlogged::<V4>();
}

#[test]
fn ipv6_ends_that_are_not_logged_go_last_and_are_counted() {
    unlogged::<V6>();
}

/// A table full of connections that are over: first those go whose end is in the log, then those of
/// which it is not, each of them counted.
fn unlogged<F: Numbered + Routed>() {
    let mut tables = tables::<F>(SLOTS);
    for listener in tables.listeners.values_mut() {
        listener.logged = 1;
    }
    let count = u64::from(SLOTS) / 2 * u64::from(FLOWS_CAPACITY_PERCENT) / 100;
    for client in 0..count {
        establish::<F>(&tables, client).unwrap_or_else(|why| panic!("client {client}: {why:?}"));
        send::<F>(&tables, &key::<F>(client), RST).expect("it goes on to the member");
    }
    let lost = || tables.flow_logs[0].lost.load();
    // The sweep has seen half of those that are left.
    let entries = || {
        let mets = (0..SLOTS).filter_map(|index| flows::at::<F, _>(&tables, index));
        mets.filter(|met| met.state.has(State::FORWARD))
    };
    assert_eq!(entries().count() as u64 + lost(), count);
    for met in entries().step_by(2) {
        assert_eq!(flows::mark(&met, State::LOGGED), Some(met.state));
    }
    let closed = |logged: bool| {
        let closed = entries().filter(|met| met.state.has(State::CLOSED));
        closed.filter(|met| met.state.has(State::LOGGED) == logged).count() as u64
    };
    let (logged, unlogged, lost_before) = (closed(true), closed(false), lost());
    // New connections, which stay open.
    for client in count..count + u64::from(SLOTS) / 4 {
        establish::<F>(&tables, client).unwrap_or_else(|why| panic!("client {client}: {why:?}"));
    }
    let (gone, lost) = (logged - closed(true), lost() - lost_before);
    assert_eq!(lost, unlogged - closed(false));
    assert!(lost > 0 && lost < gone / 2, "{lost} lines lost, {gone} not needed any more gone");
}

/// All flows up to the stated capacity are established; beyond what fits a new one is refused and
/// counted, and those established go on.
fn filled_by_frames<F: Numbered + Routed>() {
    let tables = tables::<F>(SLOTS);
    let capacity = u64::from(SLOTS) / 2 * u64::from(FLOWS_CAPACITY_PERCENT) / 100;
    for client in 0..capacity {
        establish::<F>(&tables, client).unwrap_or_else(|why| panic!("client {client}: {why:?}"));
    }
    let (mut established, mut refused) = (capacity, 0);
    for client in capacity..u64::from(SLOTS) {
        match establish::<F>(&tables, client) {
            Ok(()) => established += 1,
            Err(reason) => {
                assert_eq!(reason, Reason::TableFull, "client {client}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(tables.counters.lock().expect("nobody panicked").listeners[&0].exhausted, refused);
    let live = audit::<F>(&tables);
    assert_eq!(live.len() as u64, established * 2);
    assert_eq!(audit_pairs::<F>(&tables), live.len());
    assert!(live.values().all(|state| state.has(State::ANSWERED)));
    audit_loads(&tables);
    for client in 0..capacity {
        let key = key::<F>(client);
        send::<F>(&tables, &key, ACK).unwrap_or_else(|why| panic!("client {client}: {why:?}"));
    }
}

#[test]
fn ipv4_a_flood_displaces_no_answered_flow() {
    flood::<V4>();
}

#[test]
fn ipv6_a_flood_displaces_no_answered_flow() {
    flood::<V6>();
}

/// A table half full of answered flows, and ten SYNs for each slot.
fn flood<F: Numbered + Routed>() {
    let tables = tables::<F>(SLOTS);
    let answered = u64::from(SLOTS) / 4;
    for client in 0..answered {
        establish::<F>(&tables, client).unwrap_or_else(|why| panic!("client {client}: {why:?}"));
    }
    for client in 0..u64::from(SLOTS) * 10 {
        // Refused now and then, where all candidates are answered.
        let _ = send::<F>(&tables, &key::<F>(answered + client), SYN);
        if client % 64 == 0 {
            tables.now_s.add(1);
        }
    }
    for client in 0..answered {
        let there = send::<F>(&tables, &key::<F>(client), ACK);
        there.unwrap_or_else(|why| panic!("client {client}: {why:?}"));
    }
    let live = audit::<F>(&tables);
    let kept = live.values().filter(|state| state.has(State::ANSWERED)).count();
    assert_eq!(kept as u64, answered * 2);
    audit_loads(&tables);
}

#[test]
fn ipv4_ports_of_flows_nobody_answered_are_given_again() {
    few_ports::<V4>();
}

#[test]
fn ipv6_ports_of_flows_nobody_answered_are_given_again() {
    few_ports::<V6>();
}

/// Half of a hundred ports a member in established flows, and then more SYNs than there are ports: all
/// find one. Established flows keep theirs; where they have all, a new flow is refused.
fn few_ports<F: Numbered + Routed>() {
    let mut tables = tables::<F>(SLOTS);
    tables.source_ports = (4096, 100);
    let established = MEMBERS * 50;
    for client in 0..established {
        establish::<F>(&tables, client).unwrap_or_else(|why| panic!("client {client}: {why:?}"));
    }
    for client in established..MEMBERS * 1000 {
        let sent = send::<F>(&tables, &key::<F>(client), SYN);
        sent.unwrap_or_else(|why| panic!("client {client}: {why:?}"));
    }
    let refused = (MEMBERS * 1000..MEMBERS * 2000)
        .filter_map(|client| establish::<F>(&tables, client).err())
        .inspect(|why| assert_eq!(*why, Reason::PortsExhausted))
        .count() as u64;
    assert!(refused >= MEMBERS * 950, "{refused} refused");
    for client in 0..established {
        let there = send::<F>(&tables, &key::<F>(client), ACK);
        there.unwrap_or_else(|why| panic!("client {client}: {why:?}"));
    }
    audit::<F>(&tables);
    audit_loads(&tables);
}

/// Two CPUs open and close the same few connections: each is counted once, and taken off once.
#[test]
fn ipv4_connection_counts_with_two_writers() {
    two_writers::<V4>();
}

#[test]
fn ipv6_connection_counts_with_two_writers() {
    two_writers::<V6>();
}

fn two_writers<F: Numbered + Routed>() {
    for round in 0..30 {
        let tables = tables::<F>(256);
        thread::scope(|scope| {
            for writer in 0..2 {
                let tables = &tables;
                scope.spawn(move || {
                    let mut random = Random(round << 1 | writer);
                    for _ in 0..3000 {
                        let key = key::<F>(random.below(60));
                        let flags =
                            [SYN, SYN, ACK, FIN | ACK, FIN | ACK, RST][random.below(6) as usize];
                        let Ok(sent) = send::<F>(tables, &key, flags) else { continue };
                        let flags =
                            [SYN | ACK, ACK, FIN | ACK, FIN | ACK][random.below(4) as usize];
                        let _ = send::<F>(tables, &sent.turned(), flags);
                    }
                });
            }
        });
        audit::<F>(&tables);
        audit_pairs::<F>(&tables);
        audit_loads(&tables);
    }
}

/// One listener, its members each behind the interface the frames come by.
fn tables<F: Numbered>(slots: u32) -> Memory {
    let mut tables = F::memory(slots, 1, MEMBERS as usize);
    let listener = Listener {
        ring_len: MEMBERS as u32,
        connections_max: u32::MAX,
        seed: 0x1234_5678,
        ..Listener::new_zeroed()
    };
    let vip = F::addr(VIP).wide();
    tables
        .listeners
        .insert(ListenerKey { addr: vip, port: [0, 80], proto: TCP, zero: 0 }, listener);
    tables.ring = (0..MEMBERS as u32).collect();
    for (member, backend) in (0..).zip(&mut tables.backends) {
        *backend = Backend {
            addr: F::addr(0x0a01_0000 + member).wide(),
            source: vip,
            port: [0x1f, 0x90],
            ifindex: 1,
            weight: 1,
            flags: BACKEND_UP,
            ..Backend::default()
        };
    }
    tables
}

/// A client's address and port, at random.
fn key<F: Numbered>(client: u64) -> Key<F::Addr> {
    let [a, b, ..] = Random(client).next().to_be_bytes();
    // The port is one we may keep towards the member: 4096 and up.
    let sport = [a | 0x10, b];
    Key { src: F::addr(CLIENTS + client), dst: F::addr(VIP), sport, dport: [0, 80], proto: TCP }
}

fn establish<F: Numbered + Routed>(tables: &Memory, client: u64) -> Result<(), Reason> {
    let key = key::<F>(client);
    let sent = send::<F>(tables, &key, SYN)?;
    assert_eq!(send::<F>(tables, &sent.turned(), SYN | ACK)?, key.turned());
    assert_eq!(send::<F>(tables, &key, ACK)?, sent);
    Ok(())
}

/// Sends a frame through the path, and says what it became.
fn send<F: Numbered + Routed>(
    tables: &Memory,
    key: &Key<F::Addr>,
    flags: u8,
) -> Result<Key<F::Addr>, Reason> {
    let mut frame = frame::<F>(key, flags);
    path::frame(&mut Packet::new(&mut frame), 1, tables)?;
    let packet = Packet::new(&mut frame);
    let ip = F::datagram(&packet).expect("what leaves is whole");
    Ok(parse::segment(&packet, &ip).expect("what leaves is whole").key)
}

/// TCP without payload; nobody looks at its checksums.
fn frame<F: Numbered + Routed>(key: &Key<F::Addr>, flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match F::VERSION {
        4 => frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0]),
        _ => frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, TCP, 64]),
    }
    frame.extend(key.src.as_bytes());
    frame.extend(key.dst.as_bytes());
    frame.extend(key.sport);
    frame.extend(key.dport);
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
