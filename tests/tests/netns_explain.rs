//! `xdp-lb explain` of load balancers that run: who serves what, why, and what would change it.

use std::process::Command;

use serde_json::{Value, json};
use xdp_lb_tests::agent::Agent;
use xdp_lb_tests::balancer::{Balancer, Listener, program};
use xdp_lb_tests::lab::{FAMILIES, Lab, LabOptions};
use xdp_lb_tests::servers::Server;
use xdp_lb_tests::uploads::{Frontend, LOAD_BALANCER, Speaks, haproxy, member, uuid};

fn explain(arguments: &[&str]) -> String {
    let output = Command::new(program()).arg("explain").args(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "xdp-lb explain {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn explained(name: &str) -> Value {
    serde_json::from_str(&explain(&["--name", name, "--json"])).expect("JSON")
}

/// Address, state, reason and change of each member of the first pool of a listener.
fn members(listener: &Value) -> Vec<[&str; 4]> {
    let members = listener["pools"][0]["members"].as_array().expect("members");
    let keys = ["address", "state", "reason", "change"];
    members.iter().map(|it| keys.map(|key| it[key].as_str().unwrap_or_default())).collect()
}

#[test]
fn netns_members_of_the_packet_path() {
    let lab = Lab::up(LabOptions::default()).expect("a lab");
    let [one, two, three] = &lab.members[..] else { panic!("three are made") };
    let mut servers: Vec<_> =
        lab.members.iter().map(|host| Server::http(host, 80).expect("a server")).collect();
    let mut web = Listener::new("web", "tcp", 80, [one, two, three]);
    web.pool = "monitor = { type = \"tcp\", delay_s = 1, rise = 2, fall = 1 }";
    web.members[1].1 = 0;
    let mut balancer = Balancer::start(&lab, &[web], &[]);
    drop(servers.pop());
    balancer.until_record("that two are down", |record| {
        let backends = record["backends"].as_array().into_iter().flatten();
        backends.filter(|it| it["state"] == "down").count() == FAMILIES.len()
    });
    let check = |explained: &Value| {
        let web = &explained["listeners"][0];
        assert_eq!(web["engine"], "xdp");
        assert_eq!(web["protocol"], "TCP");
        assert_eq!(web["reason"], "layer 4; 2 of 6 members are up");
        assert_eq!(web["pools"][0]["algorithm"], "ROUND_ROBIN");
        assert_eq!(web["pools"][0]["monitor"]["type"], "TCP");
        let v4 = members(web).into_iter().filter(|it| !it[0].starts_with('['));
        let [addr1, addr2, addr3] = [one, two, three].map(|host| format!("{}:80", host.v4));
        let refused = format!("connection refused at {addr3}");
        let want = [
            [&addr1[..], "up", "", ""],
            [&addr2, "draining", "drained: weight 0", "a weight above 0"],
            [&addr3, "down", &refused, "2 probes in a row that pass (TCP every 1 s)"],
        ];
        assert_eq!(v4.collect::<Vec<_>>(), want);
    };
    let explained_now = explained(&balancer.name);
    assert!(explained_now["daemon"].is_string(), "{explained_now}");
    check(&explained_now);
    let table = explain(&["--name", &balancer.name]);
    assert!(table.contains("drained: weight 0"), "{table}");

    // It needs no daemon.
    balancer.stop();
    let explained_now = explained(&balancer.name);
    assert_eq!(explained_now["daemon"], Value::Null);
    check(&explained_now);
    balancer.run();

    one.netns.ip(&["link set eth0 down".to_owned()]).expect("it is gone");
    let flush = ["neighbour flush all dev eth1".to_owned()];
    lab.amphora.netns.ip(&flush).expect("it is forgotten");
    balancer.until_record("that it does not answer", |record| {
        let mut backends = record["backends"].as_array().into_iter().flatten();
        let silent = format!("{} on eth1 does not answer for its MAC", one.v4);
        backends.any(|it| it["why"] == silent)
    });
    let explained_now = explained(&balancer.name);
    let address = format!("{}:80", one.v4);
    let member = members(&explained_now["listeners"][0]).into_iter().find(|it| it[0] == address);
    let [_, state, _, change] = member.expect("it is a member");
    assert_eq!(state, "down");
    assert!(change.contains("its Neutron port"), "{change}");
}

#[test]
fn netns_listeners_of_both_engines() {
    let lab = Lab::up(LabOptions::default()).expect("a lab");
    let agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    let members_of = || lab.members.iter().map(|host| (host.v4.into(), 80, 1)).collect();
    let mut http = Frontend::new(2, 8080, Speaks::Http, members_of());
    http.disabled = vec![1];
    let tcp = Frontend::new(1, 80, Speaks::Tcp, members_of());
    let vips = [lab.vip(FAMILIES[0], 0).ip()];
    agent.serve(LOAD_BALANCER, &haproxy(&agent.base(), &vips, &[tcp, http])).expect("served");

    let explained = explained(&agent.id);
    let listener = |id: u32| {
        let mut listeners = explained["listeners"].as_array().into_iter().flatten();
        listeners.find(|it| it["id"] == uuid(id)).unwrap_or_else(|| panic!("{explained}"))
    };
    let [tcp, http] = [1, 2].map(listener);
    assert_eq!((&tcp["engine"], &tcp["change"]), (&json!("xdp"), &Value::Null));
    assert_eq!(http["engine"], "haproxy");
    assert_eq!(http["reason"], "the listener speaks HTTP");
    assert_eq!(http["change"], "a listener of protocol TCP");
    assert_eq!(http["pools"][0]["members"][1]["id"], member(2, 1));
    let [address1, address2] = [0, 1].map(|index| format!("{}:80", lab.members[index].v4));
    let of_http = members(http);
    assert_eq!(of_http[0], [&address1, "no check", "", ""]);
    assert_eq!(of_http[1], [&address2, "MAINT", "it, or its pool, is disabled", "enabling it"]);
    assert_eq!(explained["warnings"], json!([]));
}
