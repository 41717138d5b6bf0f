//! The agent at work, and Octavia's own health manager with a database that believes it.

use serde_json::{Value, json};
use xdp_lb_tests::agent::{Agent, KEY};
use xdp_lb_tests::lab::Family;
use xdp_lb_tests::manager::Manager;
use xdp_lb_tests::servers::Server;
use xdp_lb_tests::uploads::{Frontend, LOAD_BALANCER, Speaks, member, uuid};

use super::world::{haproxy, lab, port};

/// With a monitor; and without.
const PROBED: u32 = 1;
const FREE: u32 = 2;

/// HAProxy's lines of a monitor of TCP, as Octavia has them.
const CHECK: &str = " check inter 1s fall 2 rise 2";

#[test]
fn netns_edges_22_to_27_octavia_shows_what_becomes_of_members() {
    let lab = lab();
    let at = |host: usize| lab.members[host].addr(Family::V4, 0).ip();
    let servers = |host: usize| Server::http(&lab.members[host], 80).expect("HTTP");
    let (_first, mut second) = (servers(0), Some(servers(1)));
    let agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    // Two that share the traffic, one of weight 0, one that is disabled.
    let members = vec![(at(0), 80, 1), (at(1), 80, 1), (at(0), 81, 0), (at(0), 82, 1)];
    let probed = Frontend {
        server: CHECK,
        pool: "    timeout check 1s\n",
        disabled: vec![3],
        ..Frontend::new(PROBED, port(PROBED), Speaks::Tcp, members)
    };
    let _drained = Server::http(&lab.members[0], 81).expect("HTTP");
    let free = Frontend::new(FREE, port(FREE), Speaks::Tcp, vec![(at(0), 80, 1), (at(1), 80, 1)]);
    agent.serve(LOAD_BALANCER, &haproxy(&agent, &[probed, free])).expect("served");

    let pool = |listener: u32, members: usize| {
        let members: Vec<_> = (0..members).map(|at| member(listener, at)).collect();
        json!({"id": uuid(listener + 1000), "protocol": "TCP", "members": members})
    };
    let described = json!({
        "key": KEY, "amphora": agent.id, "load_balancer": LOAD_BALANCER,
        "listeners": [
            {"id": uuid(PROBED), "protocol": "TCP"}, {"id": uuid(FREE), "protocol": "TCP"},
        ],
        "pools": [pool(PROBED, 4), pool(FREE, 2)],
    });
    let mut manager = Manager::start(&described).expect("a health manager");
    let status = |held: &Value| {
        let of = |kind: &str, id: String| held[kind][id].as_str().unwrap_or_default().to_owned();
        let mut all =
            vec![of("load_balancer", LOAD_BALANCER.to_owned()), of("pool", uuid(PROBED + 1000))];
        all.extend((0..4).map(|at| of("member", member(PROBED, at))));
        all.extend([of("pool", uuid(FREE + 1000)), of("member", member(FREE, 0))]);
        all
    };
    let mut shown = |what: &str, want: [&str; 8]| {
        let mut held = Value::Null;
        for _ in 0..60 {
            manager.hears(&agent.next_datagram().expect("a heartbeat")).expect("sent");
            held = manager.held().expect("a database");
            if status(&held) == want {
                return held;
            }
        }
        panic!("{what}: {:?}, not {want:?}: {held}\n{}", status(&held), agent.log());
    };
    let free = ["ONLINE", "NO_MONITOR"];
    let with_free = |of: [&'static str; 6]| {
        let [a, b, c, d, e, f] = of;
        [a, b, c, d, e, f, free[0], free[1]]
    };
    let well = with_free(["ONLINE", "ONLINE", "ONLINE", "ONLINE", "DRAINING", "OFFLINE"]);
    shown("all are well", well);
    second.take();
    let degraded = with_free(["DEGRADED", "DEGRADED", "ONLINE", "ERROR", "DRAINING", "OFFLINE"]);
    shown("one has failed", degraded);
    let second = servers(1);
    shown("it is back", well);
    drop((second, _first));
    let error = with_free(["ERROR", "ERROR", "ERROR", "ERROR", "DRAINING", "OFFLINE"]);
    let held = shown("nobody is left", error);
    assert_eq!(held["health_rows"], 1);
}
