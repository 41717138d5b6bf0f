//! New flows spread over members as the weights say; known flows stay where they are.

use xdp_lb::ring::{self, Candidate};
use xdp_lb_ebpf::abi::{Algorithm, BACKEND_UP, Backend, Listener};
use xdp_lb_ebpf::memory::Memory;
use xdp_lb_ebpf::select;
use zerocopy::FromZeros;

const FLOWS: u32 = 100_000;

const WEIGHTS: [(&str, &[u16]); 5] = [
    ("alike", &[1; 10]),
    ("small ones", &[1, 2, 3, 4]),
    ("hundreds", &[100, 200, 256, 150]),
    ("primes", &[13, 7, 11, 17, 19]),
    ("one drains", &[1, 0, 1]),
];

#[test]
fn shares_follow_weights() {
    for (row, weights) in WEIGHTS {
        for algorithm in [Algorithm::RoundRobin, Algorithm::SourceIp, Algorithm::SourceIpPort] {
            let (tables, listener) = pool(algorithm, weights);
            let mut counts = vec![0; weights.len()];
            (0..FLOWS).for_each(|flow| counts[select(&tables, &listener, flow)] += 1);
            // A hash deals flows out as dice would: three standard deviations are not the ring's.
            let chance = if algorithm == Algorithm::RoundRobin { 0.0 } else { 3.0 };
            near(&format!("{row}, {algorithm:?}"), &counts, weights, chance);
        }
    }
}

/// Of ten members one leaves for good, or goes down: flows of the others that would move if they were new.
#[test]
fn maglev_moves_few() {
    let all = [1; 10];
    let (tables, listener) = pool(Algorithm::SourceIpPort, &all);
    let before: Vec<usize> = (0..FLOWS).map(|flow| select(&tables, &listener, flow)).collect();
    for gone in 0..all.len() {
        let mut weights = all;
        weights[gone] = 0;
        let (tables, listener) = pool(Algorithm::SourceIpPort, &weights);
        let own = before.iter().filter(|was| **was == gone).count();
        let pairs =
            (0..FLOWS).map(|flow| (before[flow as usize], select(&tables, &listener, flow)));
        let moved = pairs.filter(|(was, is)| was != is).count();
        assert!(moved * 4 <= own * 5, "member {gone}: {moved} moved, {own} were its own");
    }
}

/// LEAST_CONNECTIONS while connections come and go at random.
#[test]
fn least_connections_stays_even() {
    for (row, weights) in WEIGHTS {
        let (tables, listener) = pool(Algorithm::LeastConnections, weights);
        let mut open: Vec<usize> = Vec::new();
        let mut random = 1_u64;
        for flow in 0..FLOWS {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            if open.len() >= 2000 {
                let over = open.swap_remove((random >> 33) as usize % open.len());
                tables.backend_loads[over].add(1_u32.wrapping_neg());
            }
            let member = select(&tables, &listener, flow);
            tables.backend_loads[member].add(1);
            open.push(member);
        }
        let counts: Vec<u32> = tables.backend_loads.iter().map(|load| load.load()).collect();
        near(row, &counts, weights, 0.0);
    }
}

/// A listener whose ring is the control program's.
fn pool(algorithm: Algorithm, weights: &[u16]) -> (Memory, Listener) {
    let mut tables = Memory::new(64, 64, 1, weights.len());
    let members: Vec<Candidate> = weights
        .iter()
        .enumerate()
        .map(|(member, weight)| Candidate {
            hash: ring::stable_hash(&[10, 0, 0, member as u8, 0, 80]),
            weight: *weight,
            up: true,
        })
        .collect();
    let order = match algorithm {
        Algorithm::RoundRobin => ring::smooth(weights, ring::SMOOTH_MAX),
        Algorithm::LeastConnections => (0..weights.len()).filter(|n| weights[*n] > 0).collect(),
        // As long as with all members alike: one that left for good has no weight here.
        Algorithm::SourceIp | Algorithm::SourceIpPort => {
            ring::maglev(&members, ring::maglev_length(weights, 65_521).max(1021))
        }
    };
    tables.ring = order.into_iter().map(|member| member as u32).collect();
    for (backend, weight) in tables.backends.iter_mut().zip(weights) {
        *backend = Backend { weight: *weight, flags: BACKEND_UP, ..Backend::default() };
    }
    let listener = Listener {
        ring_len: tables.ring.len() as u32,
        connections_max: u32::MAX,
        seed: 0x1234_5678,
        algorithm: algorithm as u8,
        ..Listener::new_zeroed()
    };
    (tables, listener)
}

/// Every flow from another address and port.
fn select(tables: &Memory, listener: &Listener, flow: u32) -> usize {
    let client = xdp_lb_ebpf::abi::mapped((0x0a00_0000 + flow).to_be_bytes());
    let port = (1024 + (flow % 60_000) as u16).to_be_bytes();
    select::backend(tables, listener, &client, port).expect("members are up") as usize
}

/// Within 2 % of the weights, or one connection where that is more, and `chance` standard deviations of
/// as many throws of dice.
fn near(row: &str, counts: &[u32], weights: &[u16], chance: f64) {
    let flows: u32 = counts.iter().sum();
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    for (member, (count, weight)) in counts.iter().zip(weights).enumerate() {
        let fair = f64::from(flows) * f64::from(*weight) / total;
        let off = (f64::from(*count) - fair).abs();
        let share = fair / f64::from(flows);
        let noise = chance * (fair * (1.0 - share)).sqrt();
        assert!(
            off <= (0.02 * fair).max(1.0) + noise,
            "{row}: member {member} {count}, fair {fair}"
        );
    }
}
