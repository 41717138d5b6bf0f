//! Connections counted: up to the limit, and until they are forgotten.

use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use xdp_lb_tests::balancer::{Balancer, Listener, until};
use xdp_lb_tests::clients::{Connection, TIMEOUT, udp_ask_on};
use xdp_lb_tests::lab::{FAMILIES, Lab, LabOptions};
use xdp_lb_tests::servers::Server;

#[test]
fn netns_the_connection_limit_is_exact() {
    let lab = Lab::up(LabOptions { members: 2, ..LabOptions::default() }).expect("a lab");
    let _servers: Vec<_> =
        lab.members.iter().map(|host| Server::http(host, 80).expect("http")).collect();
    let web = Listener {
        listener: "connection_limit = 5",
        ..Listener::new("web", "tcp", 80, &lab.members)
    };
    let balancer = Balancer::start(&lab, &[web], &[]);
    for family in FAMILIES {
        let vip = lab.vip(family, 80);
        until("no connection is left", || {
            (balancer.listener("web", "/connections") == 0).then_some(())
        });
        let limited = balancer.listener("web", "/limited");
        lab.client.netns.enter(|| {
            let mut held: Vec<_> = (0..5).map(|_| Connection::open(vip).expect("within")).collect();
            TcpStream::connect_timeout(&vip, Duration::from_millis(100)).expect_err("over");
            assert_eq!(balancer.listener("web", "/connections"), 5);
            assert_eq!(balancer.listener("web", "/limited"), limited + 1);
            thread::scope(|scope| {
                // Its SYN is dropped, and comes again.
                let waiting = scope.spawn(|| Connection::open(vip));
                until("the next is refused", || {
                    (balancer.listener("web", "/limited") > limited + 1).then_some(())
                });
                held.pop();
                let mut let_in = waiting.join().expect("a thread").expect("after one has closed");
                let_in.get("/").expect("an answer");
                for kept in &mut held {
                    kept.get("/").expect("all the time");
                }
            });
        });
    }
}

#[test]
fn netns_silent_flows_are_forgotten() {
    let lab = Lab::up(LabOptions { members: 2, ..LabOptions::default() }).expect("a lab");
    let _servers: Vec<_> =
        lab.members.iter().map(|host| Server::udp(host, 80).expect("udp")).collect();
    let udp = Listener {
        listener: "idle_timeout_s = 2",
        ..Listener::new("udp", "udp", 80, &lab.members)
    };
    let balancer = Balancer::start(&lab, &[udp], &["--flows4", "4096", "--flows6", "4096"]);
    lab.client.netns.enter(|| {
        for family in FAMILIES {
            let socket = UdpSocket::bind(family.any()).expect("a socket");
            socket.connect(lab.vip(family, 80)).expect("a route");
            udp_ask_on(&socket, b"hello", TIMEOUT).expect("an answer");
        }
    });
    until("the flows are gone", || {
        balancer.flows()["flows"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    assert_eq!(balancer.listener("udp", "/moved/opened"), 2);
    assert_eq!(balancer.listener("udp", "/connections"), 0);
}
