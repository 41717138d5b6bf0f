//! Two engines, one load balancer.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use xdp_lb_tests::agent::{Agent, Options};
use xdp_lb_tests::clients::{
    Connection, Connections, Outcome, TIMEOUT, http_get, https_get, requests, sctp_ask, udp_ask,
};
use xdp_lb_tests::lab::{FAMILIES, Family, Lab, occupy};
use xdp_lb_tests::servers::sctp_missing;
use xdp_lb_tests::uploads::{Frontend, LOAD_BALANCER, Speaks, uuid};

use super::world::{
    HTTP, SCTP, TCP, TLS, UDP, engine, frontend, haproxy, lab, port, serve_all, servers,
};

/// A name, what is done again and again, and all that comes of it.
type Kind<'a> = (&'a str, &'a (dyn Fn() -> String + Sync), BTreeSet<String>);

const ROUNDS: usize = 20;
const MOVES: usize = 6;

#[test]
fn netns_edges_34_37_40_41_all_kinds_of_listeners_carry_traffic_at_once() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");

    let inside = |work: &(dyn Fn() -> String + Sync)| {
        lab.client.netns.enter(|| (0..ROUNDS).map(|_| work()).collect::<BTreeSet<_>>())
    };
    for family in FAMILIES {
        let at = |id| lab.vip(family, port(id));
        let peer = |id| http_get(at(id), "/").expect("a response").peer.ip().to_string();
        let ask = |id| udp_ask(at(id), b"?", TIMEOUT).expect("an answer").member;
        let tcp = || peer(TCP);
        let http = || peer(HTTP);
        let tls = || https_get(at(TLS), "/").expect("TLS")[..12].to_owned();
        let udp = || ask(UDP);
        let sctp = || sctp_ask(at(SCTP), b"?", TIMEOUT).expect("SCTP").member;
        let vip = |family| lab.vip(family, 0).ip().to_string();
        let own = lab.amphora.addr(Family::V4, 0).ip().to_string();
        let members = || ["m1", "m2"].map(str::to_owned);
        let mut kinds: Vec<Kind<'_>> = vec![
            // Members see a packet of XDP's from the VIP.
            ("TCP", &tcp, [vip(family)].into()),
            // One of HAProxy's from the interface's own address, which it has in IPv4 only.
            ("HTTP", &http, [own, vip(Family::V6)].into()),
            ("TLS", &tls, ["HTTP/1.1 200".to_owned()].into()),
            ("UDP", &udp, members().into()),
        ];
        if let Some(reason) = sctp_missing() {
            eprintln!("SCTP is left out: {reason}");
        } else {
            kinds.push(("SCTP", &sctp, members().into()));
        }
        thread::scope(|scope| {
            let asked = kinds.iter().map(|(name, work, want)| {
                scope.spawn(move || assert_eq!(inside(*work), *want, "{name} over {family:?}"))
            });
            for asked in asked.collect::<Vec<_>>() {
                asked.join().expect("all answered");
            }
        });
    }
    for (id, by) in [(TCP, "xdp"), (HTTP, "haproxy"), (TLS, "haproxy"), (UDP, "xdp")] {
        assert_eq!(engine(&agent, id).expect("status").as_deref(), Some(by), "{id}");
    }
    let all = if sctp_missing().is_none() { 5 } else { 4 };
    let told = |heartbeat: &Value| {
        let listeners = heartbeat["listeners"].as_object().expect("listeners");
        let counted = listeners.values().filter(|it| it["status"] == "OPEN").count();
        counted == all && heartbeat["pools"].as_object().is_some_and(|pools| pools.len() == all)
    };
    agent.heartbeat_when("all listeners", told).expect("a heartbeat");
}

#[test]
fn netns_edge_38_a_listener_moves_between_engines_under_load() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    let plain = frontend(&lab, TCP, Speaks::Tcp);
    let proxied = Frontend { server: " send-proxy", ..plain.clone() };
    agent.serve(LOAD_BALANCER, &haproxy(&agent, std::slice::from_ref(&plain))).expect("served");

    let done = AtomicBool::new(false);
    let mut moves = Vec::new();
    let outcomes = under_load(&lab, TCP, &done, || {
        for turn in 0..MOVES {
            let to = if turn % 2 == 0 { &proxied } else { &plain };
            agent.serve(LOAD_BALANCER, &haproxy(&agent, std::slice::from_ref(to))).expect("served");
            moves.push(engine(&agent, TCP).expect("status"));
        }
    });
    let want: Vec<_> = ["haproxy", "xdp"].into_iter().cycle().take(MOVES).collect();
    let moves: Vec<_> = moves.iter().map(|by| by.as_deref().unwrap_or_default()).collect();
    assert_eq!(moves, want);
    for outcome in outcomes {
        assert_eq!(outcome.errors, [""; 0], "of {} requests", outcome.ok);
        assert!(outcome.ok > 100, "{}", outcome.ok);
    }
    // It ends with the last connection that it had, and those are closed by now.
    agent
        .status_when("no HAProxy", |_| agent.processes("haproxy").is_ok_and(|it| it.is_empty()))
        .expect("nothing needs it");

    // One that is kept open over a move to XDP stays with HAProxy, and one to HAProxy with XDP.
    let serve = |frontend: &Frontend| {
        agent
            .serve(LOAD_BALANCER, &haproxy(&agent, std::slice::from_ref(frontend)))
            .expect("served");
    };
    let open = || {
        let at = lab.vip(FAMILIES[0], port(TCP));
        lab.client.netns.enter(|| Connection::open(at)).expect("a connection")
    };
    let mut by_xdp = open();
    serve(&proxied);
    let mut by_haproxy = open();
    let peer = |connection: &mut Connection| connection.get("/").map(|response| response.peer.ip());
    let own = lab.amphora.addr(FAMILIES[0], 0).ip();
    let vip = lab.vip(FAMILIES[0], 0).ip();
    let peers = (peer(&mut by_xdp).expect("XDP"), peer(&mut by_haproxy).expect("HAProxy"));
    assert!(peers.0 == vip && peers.1 != vip, "{peers:?}, {own}");
    serve(&plain);
    assert_eq!(peer(&mut by_xdp).expect("XDP"), peers.0);
    assert_eq!(peer(&mut by_haproxy).expect("HAProxy"), peers.1);
    // Deleted, it carries nothing more.
    agent.must(200, "DELETE", &format!("/1.0/listeners/{LOAD_BALANCER}"), b"").expect("deleted");
    assert!(peer(&mut by_haproxy).is_err());
}

/// Requests over IPv4 and IPv6, each on a connection of its own and on connections that are kept, for as
/// long as `work` takes.
pub fn under_load(lab: &Lab, id: u32, done: &AtomicBool, work: impl FnOnce()) -> Vec<Outcome> {
    let more = |_| !done.load(Ordering::Relaxed);
    let load = |family, connections| {
        lab.client.netns.enter(|| requests(lab.vip(family, port(id)), connections, 2, more))
    };
    thread::scope(|scope| {
        let loads = FAMILIES.into_iter().flat_map(|family| {
            [Connections::Fresh, Connections::Kept]
                .map(|connections| scope.spawn(move || load(family, connections)))
        });
        let loads: Vec<_> = loads.collect();
        // The load ends also where the work does not go well.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let outcomes = loads.into_iter().map(|load| load.join().expect("no client panics"));
        let outcomes = outcomes.collect();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcomes
    })
}

#[test]
fn netns_edge_35_an_unchanged_reload_touches_nothing() {
    let lab = lab();
    let agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    let kinds = [(TCP, Speaks::Tcp), (HTTP, Speaks::Http), (TLS, Speaks::Tls)];
    let frontends = kinds.map(|(id, speaks)| frontend(&lab, id, speaks));
    let haproxies = agent.processes("haproxy").expect("processes");
    assert_eq!(haproxies.len(), 2, "a master and a worker");
    // Until the members' next hops are known.
    let up = |status: &Value| {
        let members = status["members"].as_array().cloned().unwrap_or_default();
        !members.is_empty() && members.iter().all(|member| member["state"] == "up")
    };
    agent.status_when("all members up", up).expect("status");
    let before = agent.log().len();

    agent.serve(LOAD_BALANCER, &haproxy(&agent, &frontends)).expect("the same");
    agent.serve_lvs(&uuid(UDP), &agent.stored_lvs(&uuid(UDP)).expect("stored")).expect("the same");

    let log = agent.log().split_off(before);
    let wrote = |line: &&str| {
        ["backend ", "ring at", " is listener", "HAProxy", "keepalived"]
            .iter()
            .any(|what| line.contains(what))
    };
    assert_eq!(log.lines().filter(wrote).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(agent.processes("haproxy").expect("processes"), haproxies);
}

#[test]
fn netns_without_xdp_tcp_is_haproxys_and_comes_back() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    let other = occupy(&lab.amphora, "eth1").expect("another program");
    serve_all(&agent).expect("served");
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some("haproxy"));
    assert_eq!(engine(&agent, UDP).expect("status"), None, "nobody can");
    let status = agent.status().expect("status");
    let listeners = status["listeners"].as_array().expect("listeners");
    let why =
        listeners.iter().find(|it| it["id"] == uuid(TCP).as_str()).expect("it")["why"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("another XDP program")), "{why}");
    for family in FAMILIES {
        let get = || http_get(lab.vip(family, port(TCP)), "/").map(|response| response.status);
        assert_eq!(lab.client.netns.enter(get).expect("a response"), 200);
    }

    drop(other);
    let by_xdp = |status: &Value| {
        let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
        listeners.iter().any(|it| it["id"] == uuid(TCP).as_str() && it["by"] == "xdp")
    };
    agent.status_when("XDP again", by_xdp).expect("status");
    let get = || http_get(lab.vip(FAMILIES[0], port(TCP)), "/").map(|response| response.status);
    assert_eq!(lab.client.netns.enter(get).expect("a response"), 200);
}

#[test]
fn netns_without_a_program_tcp_is_haproxys_and_status_says_why() {
    let lab = lab();
    let _servers = servers(&lab);
    let options = Options { bpf: false, ..Default::default() };
    let mut agent = Agent::start_on(&lab, &lab.amphora, options).expect("an agent");
    serve_all(&agent).expect("served");
    let get = || http_get(lab.vip(FAMILIES[0], port(TCP)), "/").map(|response| response.status);
    assert_eq!(lab.client.netns.enter(get).expect("HAProxy serves"), 200);
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some("haproxy"));
    let error = agent.status().expect("status")["warnings"].to_string();
    assert!(error.contains("is not a BPF file system"), "{error}");

    // The machine is mended.
    agent.stop().expect("it ends");
    agent.options.bpf = true;
    agent.run().expect("it starts");
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some("xdp"));
    assert_eq!(lab.client.netns.enter(get).expect("XDP serves"), 200);
}

#[test]
fn netns_edge_39_what_is_not_ours_reaches_the_kernel() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    for family in FAMILIES {
        // Of the VIPs too: HAProxy's peers are at 1025 of an address of ours.
        let at = lab.vip(family, 1025);
        let listener = agent.inside().expect("it").enter(|| TcpListener::bind(at)).expect("a port");
        let connect = || TcpStream::connect_timeout(&at, TIMEOUT).map(drop);
        lab.client.netns.enter(connect).expect("it listens");
        drop(listener);
        let closed = lab.client.netns.enter(connect).expect_err("nobody listens");
        assert_eq!(closed.kind(), ErrorKind::ConnectionRefused, "by the kernel");
        // An ICMP error of the kernel's own.
        let ask = || udp_ask(at, b"?", TIMEOUT).map(drop);
        let closed = lab.client.netns.enter(ask).expect_err("nobody listens");
        assert_eq!(closed.kind(), ErrorKind::ConnectionRefused, "by the kernel");
    }
}

#[test]
fn netns_edge_70_a_client_that_sticks_is_drained_to_and_not_to_what_is_disabled() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    let pool = "    stick-table type ipv6 size 10k\n    stick on src\n";
    let mut sticky = Frontend { pool, ..frontend(&lab, TCP, Speaks::Tcp) };
    let serve = |sticky: &Frontend| {
        agent.serve(LOAD_BALANCER, &haproxy(&agent, std::slice::from_ref(sticky))).expect("served");
    };
    serve(&sticky);
    let ask = || {
        let get = || http_get(lab.vip(FAMILIES[0], port(TCP)), "/").expect("a response").member;
        lab.client.netns.enter(|| (0..4).map(|_| get()).collect::<BTreeSet<_>>())
    };
    let first = ask();
    assert_eq!(first.len(), 1, "{first:?}");
    let name = first.first().cloned().unwrap_or_default();
    let host = lab.members.iter().position(|host| host.name == name).expect("a member");
    // Both families of that host.
    let its = [2 * host, 2 * host + 1];
    its.iter().for_each(|index| sticky.members[*index].2 = 0);
    serve(&sticky);
    assert_eq!(ask(), first, "it drains");
    sticky.disabled = its.to_vec();
    serve(&sticky);
    let other = ask();
    assert!(other.len() == 1 && other != first, "{other:?}");
}
