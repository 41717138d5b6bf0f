//! Real traffic through the load balancer, to members wherever they are, and what it says of it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use xdp_lb_tests::balancer::{Balancer, Listener, until};
use xdp_lb_tests::clients::{Connections, TIMEOUT, http_get, requests, udp_ask, udp_ask_on};
use xdp_lb_tests::lab::{FAMILIES, Family, Lab, LabOptions, Offloads};
use xdp_lb_tests::servers::Server;

/// Members on the switch, behind `eth2`, and behind the router; clients in the VIPs' net and behind
/// the router.
fn everywhere() -> Lab {
    Lab::up(LabOptions {
        members: 2,
        second_member: true,
        routed_member: true,
        neighbour: true,
        ..LabOptions::default()
    })
    .expect("a lab")
}

const BOTH: [&str; 4] = ["--interface", "eth1", "--interface", "eth2"];

#[test]
fn netns_http_reaches_every_member_and_is_counted() {
    let lab = everywhere();
    let _servers: Vec<_> =
        lab.all_members().map(|host| Server::http(host, 80).expect("http")).collect();
    let balancer =
        Balancer::start(&lab, &[Listener::new("http", "tcp", 80, lab.all_members())], &BOTH);
    let mut asked = BTreeMap::new();
    for client in [&lab.client].into_iter().chain(&lab.neighbour) {
        for family in FAMILIES {
            let vip = lab.vip(family, 80);
            let outcome = client.netns.enter(|| requests(vip, Connections::Fresh, 4, |n| n < 200));
            assert_eq!(
                (outcome.ok, &outcome.errors[..]),
                (200, &[][..]),
                "{} {family:?}",
                client.name
            );
            assert_eq!(outcome.by_member.len(), 4, "{:?}", outcome.by_member);
            for (member, count) in outcome.by_member {
                *asked.entry(id("http", &member, family)).or_default() += u64::from(count);
            }
            let peer = client.netns.enter(|| http_get(vip, "/")).expect("once more");
            *asked.entry(id("http", &peer.member, family)).or_default() += 1;
            let clients = [client.addr(family, 0).ip()];
            assert!(!clients.contains(&peer.peer.ip()), "full NAT hides {}", peer.peer);
        }
    }
    assert_eq!(counted(&balancer, "/moved/opened"), asked);
    assert_eq!(balancer.listener("http", "/moved/opened"), 4 * 201);
    // All were closed by both sides; the last frames may still be under way.
    until("no connection is left", || {
        (balancer.listener("http", "/connections") == 0).then_some(())
    });
}

#[test]
fn netns_udp_reaches_every_member_and_is_counted() {
    let lab = everywhere();
    let _servers: Vec<_> =
        lab.all_members().map(|host| Server::udp(host, 80).expect("udp")).collect();
    let balancer =
        Balancer::start(&lab, &[Listener::new("udp", "udp", 80, lab.all_members())], &BOTH);
    let (mut flows, mut packets, mut payload) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for client in [&lab.client].into_iter().chain(&lab.neighbour) {
        for family in FAMILIES {
            let sockets = client.netns.enter(|| {
                (0..40)
                    .map(|_| {
                        let socket = UdpSocket::bind(family.any()).expect("a socket");
                        socket.connect(lab.vip(family, 80)).expect("a route");
                        socket
                    })
                    .collect::<Vec<_>>()
            });
            for socket in sockets {
                let ask =
                    |length| udp_ask_on(&socket, &vec![b'x'; length], TIMEOUT).expect("an answer");
                let answers = [1, 10, 1000].map(ask);
                let member = &answers[0].member;
                assert!(answers.iter().all(|answer| answer.member == *member), "{answers:?}");
                let id = id("udp", member, family);
                *flows.entry(id.clone()).or_default() += 1;
                *packets.entry(id.clone()).or_default() += 3;
                *payload.entry(id).or_default() += 1011;
            }
        }
    }
    assert_eq!(flows.len(), 8, "{flows:?}");
    assert_eq!(counted(&balancer, "/moved/opened"), flows);
    assert_eq!(counted(&balancer, "/connections"), flows);
    assert_eq!(counted(&balancer, "/moved/packets_in"), packets);
    assert_eq!(counted(&balancer, "/moved/packets_out"), packets);
    assert_eq!(counted(&balancer, "/moved/payload_in"), payload);
    let family_bytes = |suffix: &str, header: u64| {
        let of_family = |map: &BTreeMap<String, u64>| -> u64 {
            map.iter().filter(|(id, _)| id.ends_with(suffix)).map(|(_, count)| count).sum()
        };
        assert_eq!(
            of_family(&counted(&balancer, "/moved/bytes_in")),
            of_family(&payload) + header * of_family(&packets)
        );
    };
    family_bytes("v4", 28);
    family_bytes("v6", 48);
}

#[test]
fn netns_a_client_stays_with_its_member() {
    let lab = everywhere();
    let _servers: Vec<_> =
        lab.all_members().map(|host| Server::http(host, 80).expect("http")).collect();
    let by_address =
        Listener { algorithm: "source_ip", ..Listener::new("hash", "tcp", 80, lab.all_members()) };
    let remembered = Listener {
        pool: "persistence = {}",
        ..Listener::new("sticky", "tcp", 81, lab.all_members())
    };
    let _balancer = Balancer::start(&lab, &[by_address, remembered], &BOTH);
    for client in [&lab.client].into_iter().chain(&lab.neighbour) {
        for (family, port) in FAMILIES.into_iter().flat_map(|family| [(family, 80), (family, 81)]) {
            let vip = lab.vip(family, port);
            let outcome = client.netns.enter(|| requests(vip, Connections::Fresh, 1, |n| n < 30));
            assert_eq!((outcome.ok, &outcome.errors[..]), (30, &[][..]), "{vip}");
            assert_eq!(outcome.by_member.len(), 1, "{vip} {:?}", outcome.by_member);
        }
    }
}

#[test]
fn netns_without_a_member_clients_are_told_at_once() {
    let lab = Lab::up(LabOptions { members: 1, neighbour: true, ..LabOptions::default() })
        .expect("a lab");
    let off = |id, protocol| Listener {
        pool: "enabled = false",
        ..Listener::new(id, protocol, 80, &lab.members)
    };
    let balancer = Balancer::start(&lab, &[off("tcp", "tcp"), off("udp", "udp")], &[]);
    for client in [&lab.client].into_iter().chain(&lab.neighbour) {
        for family in FAMILIES {
            let vip = lab.vip(family, 80);
            client.netns.enter(|| {
                let refused = http_get(vip, "/").expect_err("no member");
                assert_eq!(
                    refused.kind(),
                    ErrorKind::ConnectionRefused,
                    "{} {vip} tcp",
                    client.name
                );
                let refused = udp_ask(vip, b"hello", TIMEOUT).expect_err("no member");
                assert_eq!(
                    refused.kind(),
                    ErrorKind::ConnectionRefused,
                    "{} {vip} udp",
                    client.name
                );
            });
        }
    }
    for listener in ["tcp", "udp"] {
        assert_eq!(balancer.listener(listener, "/unserved"), 4, "{listener}");
    }
}

#[test]
fn netns_partial_checksums_are_warned_of() {
    let options = LabOptions { members: 1, offloads: Offloads::AsMade, ..LabOptions::default() };
    let lab = Lab::up(options).expect("a lab");
    let _server = Server::http(&lab.members[0], 80).expect("http");
    let balancer = Balancer::start(&lab, &[Listener::new("http", "tcp", 80, &lab.members)], &[]);
    assert_eq!(warnings(&balancer, "partial checksums"), 0);
    let vip = lab.vip(Family::V4, 80);
    lab.client.netns.enter(|| {
        let short = Duration::from_millis(100);
        // Whether it gets through is up to the mode.
        let _ = std::net::TcpStream::connect_timeout(&vip, short);
    });
    assert_eq!(warnings(&balancer, "partial checksums"), 1, "{:#}", balancer.status());
}

fn warnings(balancer: &Balancer<'_>, about: &str) -> usize {
    let status = balancer.status();
    let warnings = status["warnings"].as_array().into_iter().flatten();
    warnings.filter(|warning| warning.as_str().is_some_and(|text| text.contains(about))).count()
}

/// What documents call a member.
fn id(pool: &str, host: &str, family: Family) -> String {
    format!("{pool}-{host}-{}", if family == Family::V4 { "v4" } else { "v6" })
}

/// A number of each member, as `stats --json` has it.
fn counted(balancer: &Balancer<'_>, pointer: &str) -> BTreeMap<String, u64> {
    let stats = balancer.stats();
    let members = stats["members"].as_array().into_iter().flatten();
    let number = |member: &xdp_lb_tests::balancer::Value| {
        Some((member["id"].as_str()?.to_owned(), member.pointer(pointer)?.as_u64()?))
    };
    members.filter_map(number).collect()
}
