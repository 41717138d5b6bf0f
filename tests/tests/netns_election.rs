//! VRRP's election, as the agent waits for it.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use xdp_lb::election::{Election, election};
use xdp_lb_tests::lab::Netns;

/// For what is decided already; and for what is not, so that it is short.
const PATIENCE: [Duration; 2] = [Duration::from_secs(30), Duration::from_millis(200)];

#[test]
fn netns_elections() {
    let rows = [
        ("192.0.2.10", "127.0.0.1", "192.0.2.10/32", false, Election::Won),
        ("2001:db8::10", "::1", "2001:db8::10/128", false, Election::Won),
        ("192.0.2.10", "127.0.0.1", "192.0.2.11/32", true, Election::Lost),
        ("2001:db8::10", "::1", "2001:db8::11/128", true, Election::Lost),
        ("192.0.2.10", "127.0.0.1", "192.0.2.11/32", false, Election::Open),
    ];
    for (vip, here, held, advertised, want) in rows {
        let netns = Netns::unnamed("elections").expect("a namespace");
        netns.ip(&["link set lo up".to_owned(), format!("address add {held} dev lo")]).expect("ip");
        let namespace = File::open(netns.path()).expect("a handle");
        let [vip, here] = [vip, here].map(|it| it.parse::<IpAddr>().expect("an address"));
        let patience = PATIENCE[usize::from(want == Election::Open)];
        let got = thread::scope(|scope| {
            let waiting = scope.spawn(|| election(&namespace, vip, patience));
            while advertised && !waiting.is_finished() {
                netns.enter(|| advertise(here)).expect("it is sent");
                thread::yield_now();
            }
            waiting.join().expect("no panic").expect("no error")
        });
        assert_eq!(got, want, "{vip}, {held} is held, advertised: {advertised}");
    }
}

/// One datagram of VRRP's protocol: who listens does not look into it.
fn advertise(to: IpAddr) -> std::io::Result<()> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(112)))?;
    socket.send_to(&[0; 8], &SocketAddr::from((to, 0)).into()).map(drop)
}
