//! A flood of SYNs that nobody stands behind, which fills the flow table many times over.

use std::thread;

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use xdp_lb_tests::balancer::{Balancer, Listener};
use xdp_lb_tests::clients::{Connection, Connections, requests};
use xdp_lb_tests::flood::{Flood, mac_of};
use xdp_lb_tests::lab::{Family, Lab, LabOptions};
use xdp_lb_tests::payload;
use xdp_lb_tests::servers::Server;

/// SYNs beside each piece of the transfer, so that it is under way for as long as the flood.
const STEP: u64 = 10_000;
const PIECE: usize = 100_000;

#[test]
fn netns_an_ipv4_transfer_outlives_five_million_syns() {
    flood(Family::V4, 5_000_000);
}

#[test]
fn netns_an_ipv6_transfer_outlives_a_million_syns() {
    flood(Family::V6, 1_000_000);
}

/// `syns` is how many the balancer must meet.
fn flood(family: Family, syns: u64) {
    stay_on_one_cpu();
    let lab = Lab::up(LabOptions { members: 2, ..LabOptions::default() }).expect("a lab");
    let _servers: Vec<_> =
        lab.members.iter().map(|host| Server::http(host, 80).expect("http")).collect();
    let web = Listener {
        // However long the flood takes: one of the connections says nothing in it.
        listener: "idle_timeout_s = 3600",
        ..Listener::new("web", "tcp", 80, &lab.members)
    };
    let balancer = Balancer::start(&lab, &[web], &["--flows4", "65536", "--flows6", "65536"]);
    let vip = lab.vip(family, 80);
    let mac = lab.amphora.netns.enter(|| mac_of("eth1")).expect("a MAC");
    // From the other end of the amphora's wire: the answers to nobody end in the switch.
    let mut flood = lab.switch.enter(|| Flood::new("amphora", mac, vip)).expect("a flood");

    let open = || Connection::open(vip).expect("before the flood");
    let [mut busy, mut idle] = lab.client.netns.enter(|| [open(), open()]);
    let [busy_was, idle_was] = [&mut busy, &mut idle].map(|kept| kept.get("/").expect("an answer"));
    let (path, want) = (format!("/bytes/{PIECE}"), payload::bytes(PIECE as u64, PIECE));
    set_cookies(&lab, false);
    let mut sent = 0;
    while sent < syns || met(&balancer) < syns {
        assert!(sent < 2 * syns, "{} of {sent} SYNs met", met(&balancer));
        thread::scope(|scope| {
            scope.spawn(|| flood.send(STEP).expect("SYNs"));
            let piece = busy.get(&path).expect("a piece in the flood");
            assert_eq!((&piece.member, piece.peer), (&busy_was.member, busy_was.peer));
            assert!(piece.body == want, "other bytes after {sent} SYNs");
        });
        sent += STEP;
    }
    eprintln!("{} of {sent} SYNs met", met(&balancer));
    assert_eq!(idle.get("/").expect("after the flood"), idle_was);
    set_cookies(&lab, true);
    let fresh = lab.client.netns.enter(|| requests(vip, Connections::Fresh, 4, |n| n < 200));
    assert_eq!((fresh.ok, &fresh.errors[..]), (200, &[][..]));
}

/// Keeps what this thread starts from now on, and the packets it sends, on the CPU it is on.
///
/// There a SYN is taken through the whole lab by the very call that sends it, and no queue overflows.
/// Where another CPU polls the amphora's veth, nothing holds the flood up: the veth's ring dropped 57 %
/// of all frames, the queues behind it a quarter to a third each, and a member whose repetitions were
/// lost five times in a row was silent for over 5 s (`ss`: cwnd 1, backoff 4). The flow was in the
/// table all the time.
fn stay_on_one_cpu() {
    let mut cpu = CpuSet::new();
    cpu.set(sched_getcpu().expect("a CPU")).expect("in range");
    sched_setaffinity(Pid::from_raw(0), &cpu).expect("the CPU it is on");
}

/// Without SYN cookies members answer only what their queues hold, and most SYNs cost no answer's way
/// back: less than half of the time. With them, members can be reached while the queues are full.
fn set_cookies(lab: &Lab, on: bool) {
    for member in &lab.members {
        let value = if on { "1" } else { "0" };
        member.netns.sysctl("ipv4/tcp_syncookies", value).expect("SYN cookies");
    }
}

/// New flows, let in or not.
fn met(balancer: &Balancer<'_>) -> u64 {
    let stats = balancer.stats();
    let counts = ["/moved/opened", "/limited", "/unserved", "/exhausted"];
    counts.iter().filter_map(|count| stats["listeners"][0].pointer(count)?.as_u64()).sum()
}
