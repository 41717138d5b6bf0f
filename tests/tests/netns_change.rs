//! What clients do not notice: other documents, other daemons, other programs, an interface that
//! comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use xdp_lb_tests::balancer::{Balancer, Listener};
use xdp_lb_tests::clients::{Connection, Connections, Outcome, http_get, requests};
use xdp_lb_tests::flood::mac_of;
use xdp_lb_tests::lab::{FAMILIES, Host, Lab, LabOptions};
use xdp_lb_tests::servers::Server;

const REQUESTS: u64 = 10_000;
const CHANGES: u64 = 200;
const RESTARTS: usize = 5;

#[test]
fn netns_no_request_fails_while_the_document_changes() {
    let lab = lab(6);
    let _servers = serve(&lab);
    let all: Vec<_> = lab.members.iter().collect();
    let mut balancer = Balancer::start(&lab, &[web(&all, |_| 1)], &[]);
    let done = AtomicBool::new(false);
    let more = |request| request < REQUESTS / 2 || !done.load(Ordering::Relaxed);
    let outcomes = under_load(&lab, &[Connections::Fresh], &more, || {
        for change in 0..CHANGES {
            // Any three stay, others come and go; the weights are others each time.
            let kept: Vec<_> = (0..6).filter(|member| (change + member) % 4 != 0).collect();
            let members: Vec<_> = kept.iter().map(|member| all[*member as usize]).collect();
            balancer.reload(&[web(&members, |index| 1 + (change as u16 * 7 + index) % 50)]);
        }
        done.store(true, Ordering::Relaxed);
    });
    let requests: u32 = outcomes.iter().map(|outcome| outcome.ok).sum();
    assert!(u64::from(requests) >= REQUESTS, "{requests}");
    balancer.reload(&[web(&all, |_| 1)]);
    let opened = balancer.listener("web", "/moved/opened");
    assert_eq!(opened, u64::from(requests), "also by members that left and came again");
    eprintln!("{requests} requests, {CHANGES} changes");
}

#[test]
fn netns_no_connection_fails_while_the_daemon_is_killed() {
    restarts(|balancer| balancer.kill9());
}

#[test]
fn netns_no_connection_fails_while_the_program_is_replaced() {
    restarts(|balancer| balancer.stop());
}

/// Each start puts a program of its own in the place of the one before.
fn restarts(end: fn(&mut Balancer<'_>)) {
    let lab = lab(2);
    let _servers = serve(&lab);
    let mut balancer =
        Balancer::start(&lab, &[web(&lab.members.iter().collect::<Vec<_>>(), |_| 1)], &[]);
    let mut kept = FAMILIES.map(|family| {
        lab.client.netns.enter(|| {
            let mut kept = Connection::open(lab.vip(family, 80)).expect("open");
            let peer = kept.get("/").expect("an answer").peer;
            (kept, peer)
        })
    });
    let mut programs = vec![program(&lab)];
    let done = AtomicBool::new(false);
    let more = |_| !done.load(Ordering::Relaxed);
    let outcomes = under_load(&lab, &[Connections::Fresh, Connections::Kept], &more, || {
        for _ in 0..RESTARTS {
            end(&mut balancer);
            balancer.run();
            programs.push(program(&lab));
        }
        done.store(true, Ordering::Relaxed);
    });
    let requests: u32 = outcomes.iter().map(|outcome| outcome.ok).sum();
    eprintln!("{requests} requests, {RESTARTS} restarts");
    let starts = programs.len();
    programs.sort();
    programs.dedup();
    assert_eq!(programs.len(), starts, "a program more than once: {programs:?}");
    for (kept, peer) in &mut kept {
        assert_eq!(kept.get("/").expect("of before the restarts").peer, *peer);
    }
}

#[test]
fn netns_an_interface_that_comes_back_is_used_again() {
    let lab = lab(2);
    let _servers = serve(&lab);
    let balancer =
        Balancer::start(&lab, &[web(&lab.members.iter().collect::<Vec<_>>(), |_| 1)], &[]);
    let mac = lab.amphora.netns.enter(|| mac_of("eth1")).expect("a MAC");
    let mut kept = FAMILIES.map(|family| {
        lab.client.netns.enter(|| Connection::open(lab.vip(family, 80))).expect("open")
    });
    for _ in 0..2 {
        lab.unplug_amphora().expect("unplugged");
        balancer.until_record("missing", |record| record["interfaces"][0]["standing"] == "missing");
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        lab.plug_in_amphora(&mac).expect("plugged in");
        balancer.until_record("attached", |record| {
            record["interfaces"][0]["standing"]["attached"].is_object()
        });
        balancer.until_up();
        for (family, kept) in FAMILIES.into_iter().zip(&mut kept) {
            lab.client
                .netns
                .enter(|| http_get(lab.vip(family, 80), "/"))
                .expect("a new connection");
            kept.get("/").expect("of before");
        }
    }
}

fn lab(members: u8) -> Lab {
    Lab::up(LabOptions { members, ..LabOptions::default() }).expect("a lab")
}

fn serve(lab: &Lab) -> Vec<Server> {
    lab.members.iter().map(|host| Server::http(host, 80).expect("http")).collect()
}

fn web<'a>(members: &[&'a Host], weight: impl Fn(u16) -> u16) -> Listener<'a> {
    let members = (0..).zip(members).map(|(index, member)| (*member, weight(index))).collect();
    Listener { members, ..Listener::new("web", "tcp", 80, []) }
}

/// Requests in both families while `act` acts, none of which may fail.
fn under_load(
    lab: &Lab,
    kinds: &[Connections],
    more: &(impl Fn(u64) -> bool + Sync),
    act: impl FnOnce(),
) -> Vec<Outcome> {
    let ask = |vip, kind| lab.client.netns.enter(|| requests(vip, kind, 2, more));
    let outcomes = thread::scope(|scope| {
        let mut asking = Vec::new();
        for (family, kind) in
            FAMILIES.into_iter().flat_map(|family| kinds.iter().map(move |kind| (family, *kind)))
        {
            let vip = lab.vip(family, 80);
            asking.push(scope.spawn(move || ask(vip, kind)));
        }
        act();
        asking.into_iter().map(|asking| asking.join().expect("clients")).collect::<Vec<_>>()
    });
    for outcome in &outcomes {
        assert_eq!(outcome.errors, [""; 0]);
        assert!(outcome.ok > 0);
    }
    outcomes
}

/// The id of the program on `eth1`.
fn program(lab: &Lab) -> String {
    let shown = lab.amphora.netns.run("ip", &["link", "show", "eth1"]).expect("ip");
    let id = shown.split("prog/xdp id ").nth(1).and_then(|rest| rest.split_whitespace().next());
    id.expect("a program").to_owned()
}
