//! What users are told of their traffic: the same of both engines.

use anyhow::Result;
use serde_json::json;
use xdp_lb_tests::agent::{Agent, Options};
use xdp_lb_tests::clients::{download, http_get, upload};
use xdp_lb_tests::lab::{FAMILIES, Host};
use xdp_lb_tests::uploads::{LOAD_BALANCER, Speaks, uuid};

use super::world::{TCP, engine, frontend, haproxy, lab, port, servers};

/// Requests of a few bytes each, in each family.
const REQUESTS: u64 = 25;
/// Bytes of one large response, and of one large request, in each family.
const BULK: u64 = 8 << 20;

/// Bytes that one carries at most.
const SEGMENT: u64 = 1460;

/// The sums of what the health manager was told of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    bytes_in: u64,
    bytes_out: u64,
    connections: u64,
    /// Segments that clients and members sent again, which are bytes to us and not to HAProxy.
    sent_again: u64,
}

/// As one engine serves it, with nothing but heartbeats to go by.
fn figures(options: Options, by: &str) -> Figures {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start_on(&lab, &lab.amphora, options).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    let frontends = [frontend(&lab, TCP, Speaks::Tcp)];
    agent.serve(LOAD_BALANCER, &haproxy(&agent, &frontends)).expect("served");
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some(by));

    let mut opened = 0;
    lab.client.netns.enter(|| {
        for family in FAMILIES {
            let at = lab.vip(family, port(TCP));
            for _ in 0..REQUESTS {
                http_get(at, "/").expect("a response");
            }
            download(at, BULK).expect("a large response");
            upload(at, BULK).expect("a large request");
            opened += REQUESTS + 2;
        }
    });
    let figures = told(&agent, opened).expect("heartbeats");
    let hosts = lab.members.iter().chain([&lab.client]);
    Figures { sent_again: hosts.map(sent_again).sum(), ..figures }
}

/// TCP's `RetransSegs` of a host.
fn sent_again(host: &Host) -> u64 {
    let text = host.netns.run("cat", &["/proc/net/snmp"]).expect("the counters");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
    let named = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RetransSegs");
    named.and_then(|(_, value)| value.parse().ok()).expect("a number")
}

/// Adds up all heartbeats until the last connection is told of and is over.
fn told(agent: &Agent<'_>, opened: u64) -> Result<Figures> {
    let mut sums = Figures::default();
    loop {
        let heartbeat = agent.next_heartbeat()?;
        let stats = &heartbeat["listeners"][uuid(TCP)]["stats"];
        let figure = |name: &str| stats[name].as_u64().unwrap_or(0);
        sums.bytes_in += figure("rx");
        sums.bytes_out += figure("tx");
        sums.connections += figure("totconns");
        let nothing_new = ["rx", "tx", "totconns", "conns"].iter().all(|name| figure(name) == 0);
        if sums.connections >= opened && nothing_new {
            return Ok(sums);
        }
    }
}

#[test]
fn netns_edges_28_29_both_engines_tell_the_same_of_the_same_traffic() {
    let ours = figures(Options::default(), "xdp");
    let haproxy = figures(Options { bpf: false, ..Options::default() }, "haproxy");
    assert_eq!(ours.connections, 2 * (REQUESTS + 2));
    assert_eq!(ours.connections, haproxy.connections);
    let again = ours.sent_again;
    for (name, ours, haproxy) in
        [("in", ours.bytes_in, haproxy.bytes_in), ("out", ours.bytes_out, haproxy.bytes_out)]
    {
        assert!(haproxy > 2 * BULK, "{name}: {haproxy}");
        let may_differ = haproxy / 100 + again * SEGMENT;
        assert!(ours.abs_diff(haproxy) <= may_differ, "{name}: {ours}, and HAProxy {haproxy}");
        eprintln!("bytes {name}: {ours}, and HAProxy {haproxy}; segments sent again: {again}");
    }
}
