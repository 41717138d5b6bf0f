//! Edges of the contract, one after the other, at a real amphora.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;

use serde_json::json;
use socket2::{Domain, Socket, Type};
use xdp_lb_tests::agent::Agent;
use xdp_lb_tests::clients::{TIMEOUT, http_get, udp_ask_on};
use xdp_lb_tests::lab::{FAMILIES, Family, Lab, LabOptions};
use xdp_lb_tests::uploads::{self, LOAD_BALANCER, Speaks, uuid};

use super::world::{
    HTTP, TCP, UDP, engine, frontend, haproxy, lab, members, network, port, serve_all, servers,
    vips,
};

/// What is asked, and the status and the words that must come.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, u16, &'a str);

#[test]
fn netns_edges_1_to_11_55_71_72_what_is_asked_is_answered_as_octavia_knows_it() {
    let lab = lab();
    let agent = Agent::start(&lab).expect("an agent");
    let id = &agent.id;
    let missing = json!({ "subnet_cidr": "192.0.2.0/24", "gateway": null,
        "mac_address": "02:00:00:00:00:99", "vrrp_ip": null, "mtu": null });
    let missing = missing.to_string();
    let nowhere = "/1.0/plug/vip/192.0.2.10";
    let before = [
        ("1: a path that is none", "GET", "/1.0/x", "", 404, "http_code"),
        ("2: the version", "GET", "//", "", 200, r#"{"api_version":"1.0"}"#),
        (
            "8: the interface is not there yet",
            "POST",
            nowhere,
            &missing,
            404,
            r#""details":"No suitable network interface found""#,
        ),
        ("9: to delete what is not there", "DELETE", "/1.0/listeners/x", "", 200, "OK"),
        ("47: no interface has it", "GET", "/1.0/interface/192.0.2.5", "", 404, "not found"),
    ];
    ask(&agent, &before);

    agent.plug_vip(json!({})).expect("plugged");
    let again = json!({ "subnet_cidr": "192.0.2.0/24", "gateway": "192.0.2.1",
        "mac_address": agent.mac, "vrrp_ip": "192.0.2.5", "mtu": 1500 })
    .to_string();
    let network = json!({ "mac_address": agent.mac, "mtu": 1500, "fixed_ips": [{
        "ip_address": "192.0.2.5", "subnet_cidr": "192.0.2.0/24", "host_routes": [] }] })
    .to_string();
    let good = haproxy(&agent, &[frontend(&lab, HTTP, Speaks::Http)]);
    let line = "    timeout client 50000\n";
    let told = |more: &str| good.replacen(line, &format!("{more}{line}"), 1);
    let regex = "    acl 00000000-0000-4000-8000-000000000077 path -m reg (\n";
    let (bad_regex, command) = (told(regex), told("    lua-load /tmp/x.lua\n"));
    let udp = uploads::lvs(UDP, "UDP", &vips(&lab), port(UDP), &members(&lab.members));
    let script = udp.replace(
        "        weight 1\n",
        "        weight 1\n        MISC_CHECK {\n            \
        misc_path \"/bin/sh -c id\"\n            misc_timeout 3\n        }\n",
    );
    let upload = format!("/1.0/loadbalancer/{id}/{LOAD_BALANCER}/haproxy");
    let any = format!("/1.0/loadbalancer/another/{LOAD_BALANCER}/haproxy");
    let listener = format!("/1.0/listeners/{id}/{}/udp_listener", uuid(UDP));
    let act = |object: &str, action: &str| format!("/1.0/loadbalancer/{object}/{action}");
    let (reload, start, stop) =
        (act(LOAD_BALANCER, "reload"), act(LOAD_BALANCER, "start"), act(LOAD_BALANCER, "stop"));
    let (udp_reload, unknown) = (act(&uuid(UDP), "reload"), act(&uuid(99), "reload"));
    let stored = format!("/1.0/loadbalancer/{LOAD_BALANCER}/haproxy");
    let after: [Row<'_>; 17] = [
        ("7: plugged again", "POST", nowhere, &again, 409, "Interface already exists"),
        (
            "7: as a network",
            "POST",
            "/1.0/plug/network",
            &network,
            202,
            "Updated existing interface eth1",
        ),
        ("47: the interface of an address", "GET", "/1.0/interface/192.0.2.5", "", 200, "eth1"),
        ("10: an object that is none", "PUT", &unknown, "", 404, "Loadbalancer Not Found"),
        ("4: no type", "PUT", &upload, &good, 202, "OK"),
        ("10: the load balancer's", "PUT", &reload, "", 202, "reloaded"),
        ("11: whatever amphora is said", "PUT", &any, &good, 202, "OK"),
        ("72: another check", "PUT", &listener, &script, 400, "MISC_CHECK"),
        ("10: a UDP listener", "PUT", &listener, &udp, 200, "OK"),
        ("10: the UDP listener's", "PUT", &udp_reload, "", 202, "keepalivedlvs listener"),
        ("53: what HAProxy refuses", "PUT", &upload, &bad_regex, 400, "regex"),
        ("71: a line that is not Octavia's", "PUT", &upload, &command, 400, "lua-load"),
        ("53: the one before stands", "GET", &stored, "", 200, "# Configuration for loadbalancer"),
        ("55: what runs is started", "PUT", &start, "", 202, "started"),
        ("55: stopped", "PUT", &stop, "", 202, "stoped"),
        (
            "55: its configuration stays",
            "GET",
            &stored,
            "",
            200,
            "# Configuration for loadbalancer",
        ),
        ("55: and is started again", "PUT", &start, "", 202, "started"),
    ];
    ask(&agent, &after);
    assert_eq!(engine(&agent, HTTP).expect("status").as_deref(), Some("haproxy"));
}

fn ask(agent: &Agent<'_>, rows: &[Row<'_>]) {
    for (row, method, path, body, status, words) in rows {
        let answer = agent.ask(method, path, body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, *status, "{row}: {}", answer.body);
        assert!(answer.body.contains(words), "{row}: {}", answer.body);
    }
}

#[test]
fn netns_edge_36_flows_go_on_over_reloads_of_udp() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    let config = uploads::lvs(UDP, "UDP", &vips(&lab), port(UDP), &members(&lab.members));
    agent.serve_lvs(&uuid(UDP), &config).expect("served");
    let sockets = lab.client.netns.enter(|| {
        let open = |_| {
            let socket = UdpSocket::bind(Family::V4.any()).expect("a socket");
            socket.connect(lab.vip(Family::V4, port(UDP))).expect("an address");
            socket
        };
        (0..8).map(open).collect::<Vec<_>>()
    });
    let ask = || {
        let answers = sockets.iter().map(|socket| udp_ask_on(socket, b"?", TIMEOUT));
        answers.map(|answer| answer.expect("an answer").member).collect::<Vec<_>>()
    };
    let before = ask();
    agent.serve_lvs(&uuid(UDP), &config).expect("the same");
    assert_eq!(ask(), before);
    let more = config.replace("weight 1\n", "weight 7\n");
    agent.serve_lvs(&uuid(UDP), &more).expect("another");
    assert_eq!(ask(), before);
}

#[test]
fn netns_edges_21_54_what_haproxy_cannot_do_is_said_and_xdp_serves_its_part() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    let http = lab.vip(Family::V4, port(HTTP));
    let taken = agent.inside().expect("it").enter(|| TcpListener::bind(http)).expect("a port");
    let both = [frontend(&lab, TCP, Speaks::Tcp), frontend(&lab, HTTP, Speaks::Http)];
    let upload = format!("/1.0/loadbalancer/{}/{LOAD_BALANCER}/haproxy", agent.id);
    agent.must(202, "PUT", &upload, haproxy(&agent, &both).as_bytes()).expect("it is good");
    let reload = format!("/1.0/loadbalancer/{LOAD_BALANCER}/reload");
    let answer = agent.ask("PUT", &reload, b"").expect("an answer");
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(answer.body.contains("cannot bind"), "{}", answer.body);
    let get = |id| {
        let get = || http_get(lab.vip(Family::V4, port(id)), "/").map(|response| response.status);
        lab.client.netns.enter(get)
    };
    assert_eq!(get(TCP).expect("XDP serves"), 200);
    drop(taken);
    agent.reload(LOAD_BALANCER).expect("now it can");
    assert_eq!(get(HTTP).expect("HAProxy serves"), 200);
}

#[test]
fn netns_edge_56_a_virtual_function_lets_in_whom_the_rules_name() {
    let lab = Lab::up(LabOptions { members: 2, neighbour: true, ..Default::default() });
    let lab = lab.expect("a lab");
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({ "is_sriov": true })).expect("plugged");
    let both = [frontend(&lab, TCP, Speaks::Tcp), frontend(&lab, HTTP, Speaks::Http)];
    agent.serve(LOAD_BALANCER, &haproxy(&agent, &both)).expect("served");

    let neighbour = lab.neighbour.as_ref().expect("a neighbour");
    let comes_in = |host: &xdp_lb_tests::lab::Host, family, id| {
        let to = lab.vip(family, port(id));
        host.netns.enter(|| connects(to))
    };
    let rule = |protocol: &str, cidr: Option<&str>, id| json!({ "protocol": protocol, "cidr": cidr, "port": port(id) });
    // Rules; then who comes in: the client and the neighbour to TCP, and both to HTTP, over both families.
    let client = Some("198.51.100.0/24");
    let rows = [
        ("none yet", None, [false; 4], [false; 4]),
        ("none at all", Some(json!([])), [false; 4], [false; 4]),
        (
            "one each",
            Some(json!([rule("TCP", client, TCP), rule("TCP", Some("2001:db8:1::/64"), HTTP)])),
            [true, false, false, false],
            [false, false, false, true],
        ),
        (
            "anybody, and VRRP of both families",
            Some(json!([
                rule("TCP", None, TCP),
                rule("TCP", Some("0.0.0.0/0"), HTTP),
                json!({ "protocol": "vrrp", "cidr": "192.0.2.20/32", "port": 112 }),
                json!({ "protocol": "vrrp", "cidr": "2001:db8:1::20/128", "port": 112 })
            ])),
            [true; 4],
            [true; 4],
        ),
        ("UDP is not TCP", Some(json!([rule("UDP", None, TCP)])), [false; 4], [false; 4]),
        ("none again", Some(json!([])), [false; 4], [false; 4]),
    ];
    let path = "/1.0/interface/192.0.2.5/rules";
    for (row, rules, v4, v6) in rows {
        if let Some(rules) = rules {
            agent.must(200, "PUT", path, rules.to_string().as_bytes()).expect("rules");
        }
        for (family, want) in FAMILIES.into_iter().zip([v4, v6]) {
            let got = thread::scope(|scope| {
                let asked =
                    [(&lab.client, TCP), (neighbour, TCP), (&lab.client, HTTP), (neighbour, HTTP)]
                        .map(|(host, id)| scope.spawn(move || comes_in(host, family, id)));
                asked.map(|asked| asked.join().expect("it is tried"))
            });
            assert_eq!(got, want, "{row}, {family:?}");
        }
    }
}

/// Within half a second: what is not let in is dropped without a word.
fn connects(to: SocketAddr) -> bool {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.connect_timeout(&to.into(), std::time::Duration::from_millis(500)).is_ok()
}

#[test]
fn netns_edges_5_69_many_requests_at_once_and_a_large_one() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    serve_all(&agent).expect("served");
    let before = network(&agent).expect("the network");
    let mut large = [frontend(&lab, HTTP, Speaks::Http), frontend(&lab, TCP, Speaks::Tcp)];
    let many = (0..2000u32).map(|n| (std::net::Ipv4Addr::from(0x0a01_0000 + n).into(), 80, 1));
    large[0].members.extend(many);
    let large = haproxy(&agent, &large);
    let small =
        haproxy(&agent, &[frontend(&lab, HTTP, Speaks::Http), frontend(&lab, TCP, Speaks::Tcp)]);
    thread::scope(|scope| {
        let asked = [&large, &small, &large, &small].map(|config| {
            scope.spawn(|| {
                agent.serve(LOAD_BALANCER, config).expect("served");
                let again = agent.ask(
                    "POST",
                    "/1.0/plug/vip/192.0.2.10",
                    json!({
                    "subnet_cidr": "192.0.2.0/24", "gateway": "192.0.2.1", "mac_address": agent.mac,
                    "vrrp_ip": "192.0.2.5", "mtu": 1500 })
                    .to_string()
                    .as_bytes(),
                );
                assert_eq!(again.expect("an answer").status, 409);
                agent.must(200, "GET", "/1.0/details", b"").expect("details");
            })
        });
        asked.into_iter().for_each(|asked| asked.join().expect("all went well"));
    });
    agent.serve(LOAD_BALANCER, &small).expect("served");
    for id in [TCP, HTTP] {
        let get = || http_get(lab.vip(Family::V4, port(id)), "/").map(|response| response.status);
        assert_eq!(lab.client.netns.enter(get).expect("a response"), 200);
    }
    assert_eq!(network(&agent).expect("the network"), before);
    assert_eq!(agent.processes("haproxy").expect("processes").len(), 2, "one master, one worker");
}
