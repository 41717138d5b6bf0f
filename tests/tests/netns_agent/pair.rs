//! Two amphorae, one load balancer: who has the VIPs, by VRRP of Debian's keepalived, and what becomes of
//! connections when they move.

mod amphorae;

use std::fs;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use xdp_lb_tests::agent::Agent;
use xdp_lb_tests::lab::FAMILIES;
use xdp_lb_tests::uploads::uuid;

use self::amphorae::{
    Monitor, Pair, ROUND_ROBIN, Stock, act, answers, election_passes, establish, first_accepted,
    held, holds, kill_all, lab, neighbour, owned, serve, servers, standby, start_vrrp, survivors,
    until, unwell,
};
use super::world::{HTTP, TCP};

/// Over each family, to each listener.
const ESTABLISHED: usize = 200;
/// Of those of SOURCE_IP. The two amphorae have the same ring and choose the same source port, but where
/// two connections want the same one: who comes first has it, and that may be the other one by now. Of
/// 200 connections to one member, and 48,128 ports, that is a third of a pair on average.
const SURVIVORS_MIN: usize = 190;

#[test]
fn netns_edges_39_46_47_64_65_the_vips_are_where_a_listener_is_and_only_once() {
    let lab = lab();
    let _servers = servers(&lab);
    let pair = Pair::plug(&lab);
    for agent in &pair.agents {
        assert_eq!(owned(agent), [].into(), "plugging leaves that to VRRP");
        let path = format!("/1.0/interface/{}", agent.host.v4);
        let found = agent.must(200, "GET", &path, b"").expect("an interface");
        assert_eq!(found, json!({ "message": "OK", "interface": "eth1" }));
    }
    pair.start_vrrp();
    election_passes(&pair.agents[1]);
    for agent in &pair.agents {
        assert_eq!(owned(agent), [].into(), "without a listener VRRP is in its fault state");
        assert!(unwell(agent).is_some_and(|why| why.contains("there is no listener")));
    }

    pair.serve();
    let master = pair.master();
    let all = [
        "192.0.2.10",
        "2001:db8:1::10",
        "from 192.0.2.10 priority 100",
        "from 2001:db8:1::10 priority 100",
        "to 192.0.2.0/24 by link",
        "to 2001:db8:1::/64 by link",
        "to default by 192.0.2.1",
        "to default by 2001:db8:1::1",
    ];
    until("it has all", || owned(&pair.agents[master]) == all.map(str::to_owned).into());
    assert_eq!(owned(&pair.agents[1 - master]), [].into());
    pair.answers();
    pair.router_follows(master);

    // What they tell the health manager must not differ, or members change all the time.
    let checked = |heartbeat: &Value| {
        let pool = &heartbeat["pools"][format!("{}:{}", uuid(HTTP + 1000), uuid(HTTP))];
        let members = pool["members"].as_object().cloned().unwrap_or_default();
        // Those of IPv6 too, where the standby has no address of its own.
        members.len() == 2 * lab.members.len() && members.values().all(|status| status == "UP")
    };
    let told = pair.agents.each_ref().map(|agent| {
        let heartbeat = agent.heartbeat_when("all members up", checked).expect("a heartbeat");
        let listeners = heartbeat["listeners"].as_object().cloned().unwrap_or_default();
        let open = listeners.into_iter().map(|(id, listener)| (id, listener["status"].clone()));
        (open.collect::<Vec<_>>(), heartbeat["pools"].clone())
    });
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].0.len(), 3);
}

#[test]
fn netns_edges_39_68_a_dead_master_is_replaced_and_its_connections_go_on() {
    let lab = lab();
    let _servers = servers(&lab);
    let mut pair = Pair::plug(&lab);
    pair.serve();
    pair.start_vrrp();
    let master = pair.master();
    let other = 1 - master;
    pair.answers();
    pair.router_follows(master);
    let sticks = pair.http_members();
    let kinds = [TCP, ROUND_ROBIN].into_iter().flat_map(|id| FAMILIES.map(|family| (id, family)));
    let established: Vec<_> =
        kinds.map(|(id, family)| (id, family, establish(&lab, family, id, ESTABLISHED))).collect();

    let died = Instant::now();
    pair.dies(master);
    let accepted = thread::scope(|scope| {
        let lab = &lab;
        let accepted =
            FAMILIES.map(|family| scope.spawn(move || first_accepted(lab, family, died)));
        accepted.map(|accepted| accepted.join().expect("a connection"))
    });
    assert_eq!(holds(&pair.agents[other]), 2);
    eprintln!("a new connection after {accepted:?} over {FAMILIES:?}");
    for (id, family, mut connections) in established {
        let alive = survivors(&mut connections);
        let name = if id == TCP { "SOURCE_IP" } else { "ROUND_ROBIN" };
        eprintln!("{name} over {family:?}: {alive} of {ESTABLISHED} go on");
        assert!(id != TCP || alive >= SURVIVORS_MIN, "{alive} of {ESTABLISHED} over {family:?}");
    }
    pair.answers();
    pair.router_follows(other);
    assert_eq!(pair.http_members(), sticks, "the two HAProxies are peers");
}

#[test]
fn netns_edges_39_46_the_check_moves_the_vips_away_from_who_cannot_serve() {
    let lab = lab();
    let _servers = servers(&lab);
    let mut pair = Pair::plug(&lab);
    pair.serve();
    pair.start_vrrp();
    let master = pair.master();
    let other = 1 - master;
    for agent in &mut pair.agents {
        assert_eq!(unwell(agent), None);
        // It would mend what breaks.
        agent.stop().expect("it ends");
    }
    let link = format!("/sys/fs/bpf/xdp-lb/{}/link_eth1", pair.agents[master].id);
    fs::remove_file(link).expect("it was attached");
    // The kernel detaches when it comes to it.
    let detached = "no XDP program is attached to eth1";
    let is_detached = |why: String| why.contains(detached);
    until(detached, || unwell(&pair.agents[master]).is_some_and(is_detached));
    until("the other one has the VIPs", || holds(&pair.agents[other]) == 2);
    assert_eq!(pair.master(), other);
    pair.answers();

    kill_all(&pair.agents[other], "haproxy");
    let why = unwell(&pair.agents[other]).expect("HAProxy is dead");
    assert!(why.contains("HAProxy does not answer at "), "{why}");
    for agent in &mut pair.agents {
        agent.run().expect("it starts");
        assert_eq!(unwell(agent), None);
    }
}

#[test]
fn netns_edges_39_55_a_stock_amphora_is_a_peer() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start_on(&lab, &lab.amphora, standby()).expect("an agent");
    let (host, netns) = (neighbour(&lab), &neighbour(&lab).netns);
    agent.plug_vip(json!({})).expect("plugged");
    serve(&agent, &[(&agent.id, agent.host.v4), ("stock", host.v4)]);

    let stock = Stock::start(&lab, host, 100);
    until("the stock one is master", || held(netns, &lab) == 2);
    start_vrrp(&agent, 90, host);
    election_passes(&agent);
    assert_eq!(holds(&agent), 0, "it hears the master");
    stock.stop();
    until("the VIPs are ours", || holds(&agent) == 2);
    assert_eq!(held(netns, &lab), 0);
    answers(&lab, TCP);
    answers(&lab, HTTP);

    // Of a higher priority, but nobody is preempted.
    let stock = Stock::start(&lab, host, 100);
    election_passes(&agent);
    assert_eq!([holds(&agent), held(netns, &lab)], [2, 0], "it hears ours");
    act(&agent, "stop");
    assert_eq!(holds(&agent), 0);
    until("the VIPs are the stock one's", || held(netns, &lab) == 2);
    stock.stop();
}

#[test]
fn netns_edges_32_55_60_vrrp_outlives_the_agent_and_does_as_it_is_told() {
    let lab = lab();
    let _servers = servers(&lab);
    let mut pair = Pair::plug(&lab);
    pair.serve();
    pair.start_vrrp();
    let master = pair.master();
    let keepalived = |agent: &Agent<'_>| agent.processes("keepalived").expect("processes");
    let agent = &mut pair.agents[master];
    let before = keepalived(agent);
    assert_eq!(before.len(), 2, "keepalived, and its part that is VRRP");

    let monitor = Monitor::start(agent);
    agent.stop().expect("it ends");
    agent.run().expect("it starts");
    agent.kill9();
    agent.run().expect("it starts");
    ["start", "reload", "start"].into_iter().for_each(|action| act(agent, action));
    pair.answers();
    assert_eq!(monitor.seen(), [""; 0], "the VIPs stay, and are not added again");
    assert_eq!(keepalived(&pair.agents[master]), before);

    // Dead, it takes no VIP away: who comes after it must not leave them where they are.
    kill_all(&pair.agents[master], "keepalived");
    until("it is started again", || keepalived(&pair.agents[master]).len() == 2);
    election_passes(&pair.agents[master]);
    let master = pair.master();
    pair.answers();

    let agent = &mut pair.agents[master];
    act(agent, "stop");
    assert_eq!(owned(agent), [].into());
    let silent = "no heartbeat: VRRP is configured and keepalived does not run";
    until("its heart is silent", || agent.log().contains(silent));
    agent.stop().expect("it ends");
    agent.run().expect("it starts");
    assert_eq!(keepalived(agent), [0; 0], "a stop holds");
    assert!(agent.base().join("vrrp/octavia-keepalived.conf").exists());
    act(agent, "start");
    agent.heartbeat().expect("a heartbeat");
    assert_eq!(pair.master(), 1 - master);
}

#[test]
fn netns_edge_60_a_master_that_reboots_comes_back_as_a_standby() {
    let lab = lab();
    let _servers = servers(&lab);
    let mut pair = Pair::plug(&lab);
    pair.serve();
    pair.start_vrrp();
    let master = pair.master();
    let other = 1 - master;
    pair.agents[master].reboot().expect("off");
    until("the other one has the VIPs", || holds(&pair.agents[other]) == 2);
    let agent = &mut pair.agents[master];
    agent.run().expect("on");
    assert_eq!(agent.processes("keepalived").expect("processes").len(), 2);
    assert_eq!(unwell(agent), None);
    agent.heartbeat().expect("a heartbeat");
    assert_eq!(owned(agent), [].into());

    act(&pair.agents[other], "stop");
    until("the VIPs are back", || holds(&pair.agents[master]) == 2);
    pair.answers();
    pair.router_follows(master);
}
