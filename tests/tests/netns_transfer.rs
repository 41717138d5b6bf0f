//! Long transfers, narrow hops and datagrams that do not fit a frame.

use std::net::SocketAddr;

use xdp_lb_tests::balancer::{Balancer, Listener};
use xdp_lb_tests::clients::{TIMEOUT, download, udp_ask, upload};
use xdp_lb_tests::lab::{FAMILIES, Family, Host, Lab, LabOptions};
use xdp_lb_tests::payload;
use xdp_lb_tests::servers::Server;

const GIB: u64 = 1 << 30;
const NARROW: u32 = 1280;

#[test]
fn netns_a_gibibyte_arrives_as_it_was_sent() {
    let lab = Lab::up(LabOptions { members: 1, ..LabOptions::default() }).expect("a lab");
    let _server = Server::http(&lab.members[0], 80).expect("http");
    let balancer = Balancer::start(&lab, &[Listener::new("web", "tcp", 80, &lab.members)], &[]);
    lab.client.netns.enter(|| {
        let down = download(lab.vip(Family::V4, 80), GIB).expect("down, IPv4");
        let down6 = download(lab.vip(Family::V6, 80), GIB / 4).expect("down, IPv6");
        let up = upload(lab.vip(Family::V4, 80), GIB / 4).expect("up, IPv4");
        let up6 = upload(lab.vip(Family::V6, 80), GIB / 4).expect("up, IPv6");
        eprintln!("{:?} {:?} {:?} {:?}", down.took, down6.took, up.took, up6.took);
    });
    // What is sent twice is counted twice.
    assert!(balancer.listener("web", "/moved/payload_out") >= GIB + GIB / 4);
    assert!(balancer.listener("web", "/moved/payload_in") >= GIB / 2);
}

#[test]
fn netns_a_narrow_hop_before_the_client_is_found_out() {
    let narrow = LabOptions { members: 1, client_link_mtu: NARROW, ..LabOptions::default() };
    let lab = Lab::up(narrow).expect("a lab");
    let m1 = &lab.members[0];
    let _server = Server::http(m1, 80).expect("http");
    let _balancer = Balancer::start(&lab, &[Listener::new("web", "tcp", 80, [m1])], &[]);
    for family in FAMILIES {
        let before = route(m1, lab.amphora.addr(family, 0));
        assert!(!before.contains("mtu"), "{before}");
        lab.client.netns.enter(|| {
            download(lab.vip(family, 80), 3_000_001).expect("down");
            upload(lab.vip(family, 80), 3_000_001).expect("up");
        });
        // The error was sent to the VIP; the member heard it as one about its own packet.
        let learned = [lab.vip(family, 0), lab.amphora.addr(family, 0)].map(|at| route(m1, at));
        assert!(learned.iter().any(|route| route.contains("mtu 1280")), "{learned:?}");
    }
}

#[test]
fn netns_a_narrow_hop_before_the_member_is_found_out() {
    let narrow = LabOptions {
        members: 1,
        routed_member: true,
        routed_link_mtu: NARROW,
        ..LabOptions::default()
    };
    let lab = Lab::up(narrow).expect("a lab");
    let far = lab.routed_member.as_ref().expect("asked for");
    let _server = Server::http(far, 80).expect("http");
    let _balancer = Balancer::start(&lab, &[Listener::new("web", "tcp", 80, [far])], &[]);
    for family in FAMILIES {
        lab.client.netns.enter(|| {
            upload(lab.vip(family, 80), 3_000_001).expect("up");
            download(lab.vip(family, 80), 3_000_001).expect("down");
        });
        let learned = route(&lab.client, lab.vip(family, 0));
        assert!(learned.contains("mtu 1280"), "{learned}");
    }
}

#[test]
fn netns_long_datagrams_are_answered() {
    let lab = Lab::up(LabOptions { neighbour: true, ..LabOptions::default() }).expect("a lab");
    let servers = lab.members.iter().map(|host| Server::udp(host, 80).expect("udp"));
    let _servers: Vec<_> = servers.collect();
    let _balancer = Balancer::start(&lab, &[Listener::new("udp", "udp", 80, &lab.members)], &[]);
    for client in [&lab.client].into_iter().chain(&lab.neighbour) {
        for (family, length) in
            FAMILIES.into_iter().flat_map(|family| [(family, 4000), (family, 20_000)])
        {
            let sent = payload::bytes(length as u64, length);
            // More often than there are members.
            for _ in 0..6 {
                let asked = client.netns.enter(|| udp_ask(lab.vip(family, 80), &sent, TIMEOUT));
                let answer = asked
                    .unwrap_or_else(|error| panic!("{} {family:?} {length}: {error}", client.name));
                assert_eq!(answer.payload, sent);
            }
        }
    }
}

/// What a host knows of the way to an address.
fn route(host: &Host, to: SocketAddr) -> String {
    host.netns.run("ip", &["route", "get", &to.ip().to_string()]).expect("a route")
}
