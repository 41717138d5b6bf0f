//! The lab itself: without a load balancer, its hosts reach each other as the drawing says.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xdp_lb_tests::clients::{
    Connection, Connections, TIMEOUT, download, http_get, requests, sctp_ask, udp_ask, upload,
};
use xdp_lb_tests::lab::{Family, Host, Lab, LabOptions};
use xdp_lb_tests::payload;
use xdp_lb_tests::servers::{Server, sctp_missing};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[test]
fn netns_clients_reach_every_member() {
    let lab = lab(LabOptions {
        neighbour: true,
        second_member: true,
        routed_member: true,
        ..LabOptions::default()
    });
    let servers: Vec<_> = lab.all_members().map(serve).collect();
    for client in [&lab.client].into_iter().chain(&lab.neighbour) {
        for (member, family) in each(lab.all_members()) {
            let addr = member.addr(family, 80);
            let response = client.netns.enter(|| http_get(addr, "/")).expect(&member.name);
            assert_eq!(response.status, 200);
            assert_eq!(response.member, member.name);
            assert_eq!(response.body, member.name.as_bytes());
            assert_eq!(response.peer.ip(), client.addr(family, 0).ip());

            let answer = client.netns.enter(|| udp_ask(addr, b"hello", TIMEOUT)).expect("udp");
            assert_eq!((&answer.member, &answer.payload[..]), (&member.name, &b"hello"[..]));
        }
    }
    drop(servers);
}

#[test]
fn netns_every_byte_arrives() {
    let lab = lab(LabOptions { members: 1, ..LabOptions::default() });
    let [m1] = &lab.members[..] else { panic!("one member") };
    let _servers = serve(m1);
    for family in FAMILIES {
        let addr = m1.addr(family, 80);
        lab.client.netns.enter(|| {
            download(addr, 3_000_001).expect("download");
            upload(addr, 3_000_001).expect("upload");
            // In some 45 fragments each way.
            let long = payload::bytes(1, 65_000);
            assert_eq!(udp_ask(addr, &long, TIMEOUT).expect("udp").payload, long);
        });
    }
}

#[test]
fn netns_many_requests_are_counted() {
    let lab = lab(LabOptions { members: 1, ..LabOptions::default() });
    let _servers = serve(&lab.members[0]);
    for connections in [Connections::Fresh, Connections::Kept] {
        let addr = lab.members[0].addr(Family::V4, 80);
        let outcome =
            lab.client.netns.enter(|| requests(addr, connections, 8, |request| request < 200));
        assert_eq!(outcome.errors, [""; 0], "{connections:?}");
        assert_eq!(outcome.ok, 200);
        assert_eq!(outcome.by_member, [("m1".to_owned(), 200)].into());
        assert_eq!(outcome.latencies.len(), 200);
        assert!(outcome.latency(0.5) <= outcome.latency(1.0));
    }
}

#[test]
fn netns_a_stopped_server_ends_its_connections() {
    let lab = lab(LabOptions { members: 1, ..LabOptions::default() });
    let m1 = &lab.members[0];
    let addr = m1.addr(Family::V4, 80);
    let servers = serve(m1);
    lab.client.netns.enter(|| {
        let mut kept = Connection::open(addr).expect("open");
        kept.get("/").expect("while it serves");
        let began = Instant::now();
        drop(servers);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        kept.get("/").expect_err("the connection is closed");
        let refused = http_get(addr, "/").expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(refuses_udp(addr), "somebody still answers, or takes, datagrams");
    });
    let _again = serve(m1);
    lab.client.netns.enter(|| http_get(addr, "/")).expect("served again");
}

#[test]
fn netns_a_narrow_hop_answers_with_its_mtu() {
    let lab = lab(LabOptions {
        members: 1,
        routed_member: true,
        client_link_mtu: 1280,
        routed_link_mtu: 1300,
        ..LabOptions::default()
    });
    let [m1] = &lab.members[..] else { panic!("one member") };
    let far = lab.routed_member.as_ref().expect("asked for");
    let _servers = (serve(m1), serve(far));
    let learned = |host: &Host, addr: String| host.netns.run("ip", &["route", "get", &addr]);
    for family in FAMILIES {
        let (client, member) = (lab.client.addr(family, 0).ip(), far.addr(family, 0).ip());
        lab.client.netns.enter(|| download(m1.addr(family, 80), 100_000)).expect("down");
        let route = learned(m1, client.to_string()).expect("route");
        assert!(route.contains("mtu 1280"), "{route}");
        lab.amphora.netns.enter(|| upload(far.addr(family, 80), 100_000)).expect("up");
        let route = learned(&lab.amphora, member.to_string()).expect("route");
        assert!(route.contains("mtu 1300"), "{route}");
    }
}

#[test]
fn netns_sctp_answers_where_the_kernel_has_it() {
    if let Some(reason) = sctp_missing() {
        eprintln!("not tried: {reason}");
        return;
    }
    let lab = lab(LabOptions { members: 1, ..LabOptions::default() });
    let m1 = &lab.members[0];
    let _server = Server::sctp(m1, 5000).expect("server");
    for family in FAMILIES {
        let ask = || sctp_ask(m1.addr(family, 5000), b"hello", TIMEOUT);
        let answer = lab.client.netns.enter(ask).expect("sctp");
        assert_eq!((&answer.member[..], &answer.payload[..]), ("m1", &b"hello"[..]));
    }
}

#[test]
fn netns_two_labs_do_not_meet() {
    let labs = [lab(LabOptions::default()), lab(LabOptions::default())];
    let _server = Server::http(&labs[0].members[0], 80).expect("server");
    let [served, other] = labs.each_ref().map(|lab| (lab, lab.members[0].addr(Family::V4, 80)));
    served.0.client.netns.enter(|| http_get(served.1, "/")).expect("in its own lab");
    let refused = other.0.client.netns.enter(|| http_get(other.1, "/")).expect_err("elsewhere");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn netns_nothing_is_left() {
    let lab = lab(LabOptions::default());
    let prefix = lab.prefix().to_owned();
    assert_eq!(left(&prefix), lab.hosts().count() + 1);
    let mut running = lab.client.netns.spawn(Command::new("sleep").arg("60")).expect("sleep");
    drop(lab);
    assert_eq!(left(&prefix), 0);
    assert_eq!(running.child.wait().expect("ended").signal(), Some(9), "not killed by the lab");
}

#[test]
fn netns_a_panic_leaves_nothing() {
    let prefix = std::sync::Mutex::new(String::new());
    let test = || {
        let lab = lab(LabOptions::default());
        *prefix.lock().unwrap() = lab.prefix().to_owned();
        lab.client.netns.enter(|| panic!("as a failing test does"));
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).expect_err("it panics");
    let prefix = prefix.into_inner().unwrap();
    assert!(!prefix.is_empty());
    assert_eq!(left(&prefix), 0);
}

#[test]
fn netns_a_killed_process_is_swept_after() {
    // Alive until it has added the name: others may sweep at any time.
    let script = "ip netns add xl$$n0-client && echo added && read -r line";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = command.spawn().expect("sh");
    let mut said = String::new();
    let stdout = other.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut said).expect("read");
    assert_eq!(said, "added\n", "adding a namespace needs root");
    let name = format!("xl{}n0-client", other.id());
    drop(lab(LabOptions { members: 1, ..LabOptions::default() }));
    assert_eq!(left(&name), 1, "its process lives");

    other.kill().expect("kill");
    other.wait().expect("ended");
    drop(lab(LabOptions { members: 1, ..LabOptions::default() }));
    assert_eq!(left(&name), 0);
}

#[test]
fn netns_the_drawing_has_every_address() {
    let lab = lab(LabOptions {
        members: 2,
        neighbour: true,
        second_member: true,
        routed_member: true,
        client_link_mtu: 1280,
        routed_link_mtu: 1300,
        ..LabOptions::default()
    });
    let drawing = lab.describe();
    println!("{drawing}");
    for host in lab.hosts() {
        for word in [&host.name, &host.v4.to_string(), &host.v6.to_string()] {
            assert!(drawing.contains(word), "{word} is not in\n{drawing}");
        }
    }
    assert!(drawing.contains(lab.prefix()));
}

fn lab(options: LabOptions) -> Lab {
    Lab::up(options).unwrap_or_else(|error| panic!("{error}"))
}

fn serve(member: &Host) -> [Server; 2] {
    [Server::http(member, 80).expect("http"), Server::udp(member, 80).expect("udp")]
}

fn each<'a>(hosts: impl Iterator<Item = &'a Host>) -> impl Iterator<Item = (&'a Host, Family)> {
    hosts.flat_map(|host| FAMILIES.map(|family| (host, family)))
}

/// Whether a datagram is answered with an ICMP error, soon: while other threads start programs, a
/// copy of a closed socket lives on in the child until that has become the program.
fn refuses_udp(addr: SocketAddr) -> bool {
    let ask = |_| udp_ask(addr, b"hello", Duration::from_millis(100));
    (0..50)
        .map(ask)
        .any(|asked| asked.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
}

/// How many namespaces have names that begin with `prefix`.
fn left(prefix: &str) -> usize {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names.filter(|name| name.file_name().to_string_lossy().starts_with(prefix)).count()
}
