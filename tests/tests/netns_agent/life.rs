//! Starts, restarts, crashes, reboots, and what the agent costs.

use std::fs;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use agent_api::heartbeat::sealed::Opener;
use serde_json::{Value, json};
use xdp_lb_ebpf::abi::Meta;
use xdp_lb_tests::agent::{Agent, KEY, Options};
use xdp_lb_tests::clients::{TIMEOUT, http_get, https_get, udp_ask};
use xdp_lb_tests::lab::{FAMILIES, occupy};
use xdp_lb_tests::uploads::LOAD_BALANCER;

use super::traffic::under_load;
use super::world::{HTTP, TCP, TLS, UDP, certify, engine, lab, network, port, serve_all, servers};

/// For itself, in KiB. With what it has mapped, its program above all, a release build has 23 MiB; that
/// of the tests has more.
const OWN_KIB_MAX: u64 = 12 << 10;
const RESTARTS: usize = 3;

#[test]
fn netns_edge_60_a_restart_changes_no_packet() {
    restarts(|agent| agent.stop().expect("it ends"));
}

#[test]
fn netns_edge_60_a_crash_changes_no_packet() {
    restarts(|agent| agent.kill9());
}

fn restarts(end: fn(&mut Agent<'_>)) {
    let lab = lab();
    let _servers = servers(&lab);
    let mut agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    let haproxies = agent.processes("haproxy").expect("processes");
    let before = network(&agent).expect("the network");
    for id in [TCP, HTTP] {
        let done = AtomicBool::new(false);
        let outcomes = under_load(&lab, id, &done, || {
            for _ in 0..RESTARTS {
                end(&mut agent);
                agent.run().expect("it starts");
            }
        });
        for outcome in outcomes {
            assert_eq!(outcome.errors, [""; 0], "of {} requests", outcome.ok);
            assert!(outcome.ok > 100, "{}", outcome.ok);
        }
    }
    assert_eq!(network(&agent).expect("the network"), before);
    assert_eq!(agent.processes("haproxy").expect("processes"), haproxies);
    // It is found again: what it needs no more, it loses.
    agent.must(200, "DELETE", &format!("/1.0/listeners/{LOAD_BALANCER}"), b"").expect("deleted");
    assert_eq!(agent.processes("haproxy").expect("processes"), [0; 0]);
    let ask = || udp_ask(lab.vip(FAMILIES[0], port(UDP)), b"?", TIMEOUT).map(drop);
    lab.client.netns.enter(ask).expect("UDP is another object");
}

#[test]
fn netns_edge_60_a_reboot_brings_all_but_certificates_back() {
    let lab = lab();
    let _servers = servers(&lab);
    let mut agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    let before = network(&agent).expect("the network");
    agent.reboot().expect("off");
    // On a RAM disk.
    fs::remove_dir_all(agent.base().join("certs")).expect("certificates");
    agent.run().expect("on");

    for family in FAMILIES {
        let get = || http_get(lab.vip(family, port(TCP)), "/").map(|response| response.status);
        assert_eq!(lab.client.netns.enter(get).expect("layer 4 is back"), 200);
        let ask = || udp_ask(lab.vip(family, port(UDP)), b"?", TIMEOUT).map(drop);
        lab.client.netns.enter(ask).expect("UDP is back");
    }
    let kinds = |network: Vec<Value>| -> Vec<Vec<(Value, Value)>> {
        let rows = network.into_iter().skip(1).map(|rows| rows.as_array().cloned());
        let of = |row: &Value| (row["dst"].clone(), row["src"].clone());
        rows.map(|rows| rows.iter().flatten().map(of).collect()).collect()
    };
    assert_eq!(kinds(network(&agent).expect("the network")), kinds(before), "routes and rules");
    // The controller brings the certificates, and then the rest.
    certify(&agent, TLS).expect("certified");
    agent.reload(LOAD_BALANCER).expect("reloaded");
    let get = || https_get(lab.vip(FAMILIES[0], port(TLS)), "/");
    assert!(lab.client.netns.enter(get).expect("TLS").starts_with("HTTP/1.1 200"));
}

#[test]
fn netns_maps_of_another_version_are_made_anew() {
    let lab = lab();
    let _servers = servers(&lab);
    let mut agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    agent.stop().expect("it ends");
    let meta = format!("/sys/fs/bpf/xdp-lb/{}/META", agent.id);
    let mut value = vec!["99".to_owned()];
    value.resize(size_of::<Meta>(), "00".to_owned());
    let mut bpftool = Command::new("bpftool");
    bpftool.args(["map", "update", "pinned", &meta, "key", "hex", "00", "00", "00", "00"]);
    bpftool.args(["value", "hex"]).args(&value);
    assert!(bpftool.status().expect("bpftool").success());
    agent.run().expect("it starts");
    assert!(agent.log().contains("the pinned maps are of version"), "{}", agent.log());
    for family in FAMILIES {
        let get = || http_get(lab.vip(family, port(TCP)), "/").map(|response| response.status);
        assert_eq!(lab.client.netns.enter(get).expect("a response"), 200);
    }
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some("xdp"));
}

#[test]
fn netns_edge_60_a_restart_without_xdp_touches_no_haproxy() {
    let lab = lab();
    let mut agent = Agent::start(&lab).expect("an agent");
    let _other = occupy(&lab.amphora, "eth1").expect("another program");
    serve_all(&agent).expect("served");
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some("haproxy"));
    let haproxies = agent.processes("haproxy").expect("processes");
    agent.stop().expect("it ends");
    agent.run().expect("it starts");
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some("haproxy"));
    assert_eq!(agent.processes("haproxy").expect("processes"), haproxies);
}

#[test]
fn netns_edge_60_an_interface_that_comes_late_is_taken_in() {
    let lab = lab();
    let _servers = servers(&lab);
    let mut agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    agent.reboot().expect("off");
    let host = &lab.amphora.netns;
    let becomes = |mac: &str| host.run("ip", &["link", "set", "eth1", "address", mac]);
    becomes("02:00:00:00:00:99").expect("another interface");
    agent.run().expect("on");
    becomes(&agent.mac).expect("the interface");
    // IPv6 is not asked for members before the kernel is done with its own addresses.
    let up = |status: &Value| {
        let members = status["members"].as_array().cloned().unwrap_or_default();
        !members.is_empty() && members.iter().all(|member| member["state"] == "up")
    };
    agent.status_when("all members up", up).expect("it is taken in");
    for family in FAMILIES {
        let get = || http_get(lab.vip(family, port(TCP)), "/").map(|response| response.status);
        assert_eq!(lab.client.netns.enter(get).expect("a response"), 200);
    }
}

#[test]
fn netns_edges_2_61_62_63_an_agent_without_a_configuration_waits_for_it() {
    let lab = lab();
    let mut agent = Agent::prepare(&lab, &lab.amphora, Options::default()).expect("an agent");
    agent.spawn().expect("it starts");
    assert!(agent.ask("GET", "/", b"").is_err(), "it refuses connections, and answers no 404");
    agent.write_config().expect("a configuration");
    assert!(agent.next_heartbeat().expect("a heartbeat")["listeners"].is_object());
    assert!(agent.ask("GET", "/", b"").is_err(), "its certificate is missing");
    agent.write_certificates().expect("certificates");
    agent.until_ready().expect("it is ready");
    let version = agent.must(200, "GET", "/", b"").expect("an answer");
    assert_eq!(version, json!({ "api_version": "1.0" }));
    // cloud-init restarts it behind its own back.
    agent.stop().expect("it ends");
    agent.run().expect("it starts");
    agent.must(200, "GET", "/1.0/info", b"").expect("an answer");
    let inside = agent.inside();
    assert!(inside.is_err(), "nothing was plugged: there is no namespace");
}

#[test]
fn netns_edge_43_an_interface_vanishes_and_another_comes_in_its_place() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    let ifindex = |status: &Value| {
        status["interfaces"][0]["standing"]["attached"]["ifindex"].as_u64().unwrap_or(0)
    };
    let before = ifindex(&agent.status().expect("status"));
    // Nova takes the interface away without a word, and brings another.
    agent.inside().expect("it").ip(&["link delete eth1".to_owned()]).expect("unplugged");
    agent.status_when("eth1 missing", |status| ifindex(status) == 0).expect("status");
    lab.plug_in_amphora("02:00:00:00:00:77").expect("plugged in");
    lab.amphora.netns.run("ip", &["address", "flush", "dev", "eth1"]).expect("as Nova leaves it");
    agent.plug_vip(json!({ "mac_address": "02:00:00:00:00:77" })).expect("plugged");
    let after = ifindex(&agent.status().expect("status"));
    assert!(after != 0 && after != before, "{before} {after}");
    for family in FAMILIES {
        let get = || http_get(lab.vip(family, port(TCP)), "/").map(|response| response.status);
        assert_eq!(lab.client.netns.enter(get).expect("a response"), 200);
    }
    assert_eq!(engine(&agent, TCP).expect("status").as_deref(), Some("xdp"));
}

#[test]
fn netns_what_the_agent_costs() {
    let lab = lab();
    let mut agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    agent.stop().expect("it ends");
    let started = Instant::now();
    agent.spawn().expect("it starts");
    agent.heartbeat().expect("a heartbeat");
    let first_heartbeat = started.elapsed();
    agent.until_ready().expect("ready");
    let ready = started.elapsed();
    // Until the first passes over the flow tables are done.
    for _ in 0..6 {
        agent.heartbeat().expect("a heartbeat");
    }
    let [own_kib, all_kib] = agent.resident_kib().expect("memory");
    eprintln!(
        "first heartbeat after {first_heartbeat:?}, ready after {ready:?}, {own_kib} KiB of its own, \
         {all_kib} KiB resident"
    );
    assert!(own_kib < OWN_KIB_MAX, "{own_kib}");
}

#[test]
fn netns_edge_66_one_line_has_heartbeats_sealed_whatever_the_controller_writes() {
    let lab = lab();
    let mut agent = Agent::prepare(&lab, &lab.amphora, Options::default()).expect("an agent");
    agent.write_certificates().expect("written");
    agent.write_config().expect("written");
    let own = agent.folder().join("xdp-lb.conf");
    fs::write(own, "[xdp_lb]\nheartbeat_envelope = sealed\n").expect("written");
    agent.run().expect("it runs");

    let mut opener = Opener::new(KEY.as_bytes());
    let mut opens = |agent: &Agent<'_>, when: &str| {
        let datagram = agent.next_datagram().expect("a heartbeat");
        let opened = opener.open(&datagram).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(opened.amphora, agent.id, "{when}");
    };
    opens(&agent, "from the start");
    let config = fs::read(agent.folder().join("amphora-agent.conf")).expect("a file");
    agent.must(202, "PUT", "/1.0/config", &config).expect("taken");
    for _ in 0..2 {
        opens(&agent, "after a configuration of the controller's");
    }
    agent.stop().expect("stopped");
    agent.run().expect("it runs");
    for _ in 0..3 {
        opens(&agent, "after a restart");
    }
}
