//! `xdp-lb trace` beside a load balancer that works.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::net::{SocketAddr, TcpStream};

use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use xdp_lb_tests::balancer::{Balancer, Listener, Value, until};
use xdp_lb_tests::lab::{FAMILIES, Family, Lab, LabOptions};
use xdp_lb_tests::servers::Server;

fn lab() -> Lab {
    Lab::up(LabOptions { members: 2, ..LabOptions::default() }).expect("a lab")
}

fn servers(lab: &Lab) -> Vec<Server> {
    lab.members.iter().map(|host| Server::http(host, 80).expect("http")).collect()
}

/// What is told of the one frame.
fn first(told: &Value) -> &Value {
    &told["frames"][0]
}

#[test]
fn netns_trace_foretells_and_changes_nothing() {
    let lab = lab();
    let _servers = servers(&lab);
    let web = Listener {
        listener: "connection_limit = 1",
        ..Listener::new("web", "tcp", 80, &lab.members)
    };
    let balancer = Balancer::start(&lab, &[web], &[]);
    for family in FAMILIES {
        let (client, vip) = (lab.client.addr(family, 40000), lab.vip(family, 80));
        let trace = |port: u16, more: &[&str]| {
            let (client, vip) = (client.to_string(), SocketAddr::new(vip.ip(), port).to_string());
            balancer.look(&[&["trace", "tcp", &client, &vip], more].concat())
        };
        let opened = balancer.listener("web", "/moved/opened");
        let foretold = trace(80, &[]);
        let said = first(&foretold);
        assert_eq!((&said["verdict"], &said["egress"]), (&"tx".into(), &"eth1".into()), "{said:#}");
        assert_eq!((&said["listener"], &said["reasons"]), (&"web".into(), &Value::Array(vec![])));
        assert_eq!(first(&trace(80, &[]))["member"], said["member"], "no turn is taken");
        let unknown = trace(81, &[]);
        assert_eq!(first(&unknown)["reasons"], Value::from(vec!["NoListener"]));
        assert_eq!(balancer.listener("web", "/moved/opened"), opened);
        assert_eq!(flows_of(&balancer, client), 0);

        let ran = trace(80, &["--run"]);
        assert_eq!(first(&ran)["kernel"], "same", "{ran:#}");
        assert_eq!((&ran["opened"], &ran["removed"]), (&1.into(), &1.into()));
        assert_eq!(flows_of(&balancer, client), 0, "it is taken away");
        assert_eq!(balancer.listener("web", "/connections"), 0);

        let held = lab.client.netns.enter(|| TcpStream::connect(vip)).expect("a connection");
        let (client, vip) = (held.local_addr().unwrap().to_string(), vip.to_string());
        let over = trace(80, &["--run"]);
        assert_eq!(first(&over)["kernel"], "same");
        assert_eq!(first(&over)["reasons"], Value::from(vec!["LimitReached"]));
        let fin = ["trace", "tcp", &client, &vip, "--flags", "FA", "--run"];
        let fin = balancer.look(&fin);
        assert!(first(&fin)["kernel"]["notrun"].is_object(), "{fin:#}");
        assert_eq!(balancer.listener("web", "/connections"), 1, "it goes on");
        drop(held);
        until("it is closed", || (balancer.listener("web", "/connections") == 0).then_some(()));
    }
}

/// Flows of a client in the table.
fn flows_of(balancer: &Balancer<'_>, client: SocketAddr) -> usize {
    let flows = balancer.flows();
    let flows = flows["flows"].as_array().into_iter().flatten();
    flows.filter(|flow| flow["client"] == client.to_string()).count()
}

/// A handshake from a capture that was made elsewhere.
#[test]
fn netns_trace_reads_captures() {
    let lab = lab();
    let _servers = servers(&lab);
    let balancer = Balancer::start(&lab, &[Listener::new("web", "tcp", 80, &lab.members)], &[]);
    let (client, vip) = (lab.client.addr(Family::V4, 40000), lab.vip(Family::V4, 80));
    let frame = |syn: bool| {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (client, vip) else { unreachable!() };
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(from.ip().octets(), to.ip().octets(), 64)
            .tcp(from.port(), to.port(), 1, 1000);
        let (mut frame, payload): (_, &[u8]) =
            if syn { (Vec::new(), b"") } else { (Vec::new(), b"GET /") };
        let tcp = if syn { ip.syn() } else { ip.ack(1) };
        tcp.write(&mut frame, payload).unwrap();
        frame
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.pcap");
    let mut writer = PcapWriter::new(std::fs::File::create(&path).unwrap()).unwrap();
    for bytes in [frame(true), frame(false)] {
        let packet = PcapPacket::new(Default::default(), bytes.len() as u32, &bytes);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);
    let path = path.to_str().unwrap();

    let elsewhere = balancer.look(&["trace", "--file", path]);
    assert_eq!(first(&elsewhere)["reasons"], Value::from(vec!["OtherHost"]));
    let ours = balancer.look(&["trace", "--file", path, "--readdress", "--run"]);
    let frames = ours["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert_eq!((&frame["verdict"], &frame["kernel"]), (&"tx".into(), &"same".into()));
        assert_eq!(frame["member"], frames[0]["member"], "the flow that the first one opened");
    }
    assert_eq!((&ours["opened"], &ours["removed"]), (&1.into(), &1.into()));
    assert_eq!(flows_of(&balancer, client), 0);
    let limited = balancer.look(&["trace", "--file", path, "--limit", "1"]);
    assert_eq!((limited["frames"].as_array().unwrap().len(), &limited["left_out"]), (1, &1.into()));
}
