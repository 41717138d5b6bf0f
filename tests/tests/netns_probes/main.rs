//! Every kind of health probe against members that pass, fail, hang, reset, answer slowly and
//! answer garbage, over IPv4 and IPv6; and that none of them leaves anything behind.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod members;
mod raw;
mod rows;
mod world;

use std::fs;
use std::time::Duration;

use agent_api::Probe;
use members::{OK, answer, hang, secure};
use rows::{http, https};
use world::{LONG, World};
use xdp_lb::health::probe::Patience;
use xdp_lb_tests::balancer::until;
use xdp_lb_tests::lab::FAMILIES;
use xdp_lb_tests::servers::{Server, sctp_missing};

#[test]
fn netns_tcp_and_udp() {
    let world = World::new();
    world.streams(&rows::tcp());
    rows::tcp_without_a_server(&world);
    rows::udp(&world);
}

#[test]
fn netns_http() {
    World::new().streams(&rows::http_rows());
}

#[test]
fn netns_tls() {
    World::new().streams(&rows::tls());
}

#[test]
fn netns_ping() {
    rows::ping(&World::new());
}

#[test]
fn netns_sctp() {
    let world = World::new();
    match sctp_missing() {
        Some(_) => rows::sctp_by_hand(&world),
        None => rows::sctp_by_the_kernel(&world),
    }
}

#[test]
fn netns_probes_leave_no_descriptor() {
    let world = World::new();
    let serve = |serve| Server::tcp(world.member(), 0, serve).unwrap();
    let plain = serve(|stream, _| answer(stream, OK));
    let secure = serve(|stream, _| secure(stream, OK));
    let silent = serve(|stream, _| hang(stream));
    let udp = Server::udp(world.member(), 0).unwrap();
    let passing = [
        (Probe::Tcp, plain.port),
        (Probe::TlsHello, secure.port),
        (http(&[200]), plain.port),
        (https(&[200]), secure.port),
        (Probe::Ping, 0),
        (Probe::UdpConnect, udp.port),
    ];
    // Whatever comes of them before their time is over, in the middle of something.
    let hurried = [
        (Probe::Tcp, 1),
        (Probe::TlsHello, silent.port),
        (http(&[200]), silent.port),
        (https(&[200]), silent.port),
        (Probe::UdpConnect, 1),
        (Probe::Sctp, 1),
    ];
    let hurry = Patience { connect: Duration::from_millis(5), read: Duration::from_millis(1) };
    world.probing(|runtime, prober| {
        let open = || fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let before = open();
        for family in FAMILIES {
            for _ in 0..250 {
                for (probe, port) in &passing {
                    let at = world.member().addr(family, *port);
                    let seen = runtime.block_on(prober.probe(probe, at, LONG));
                    assert_eq!(seen, Ok(()), "{probe:?}, {family:?}");
                }
                for (probe, port) in &hurried {
                    let at = world.member().addr(family, *port);
                    let seen = runtime.block_on(prober.probe(probe, at, hurry));
                    assert!(!seen.is_err_and(|failure| failure.is_ours()), "{probe:?}, {family:?}");
                }
            }
        }
        // The members have theirs in the same process, and may not have seen the last reset yet.
        until("no descriptor is left", || (open() == before).then_some(()));
    });
}
