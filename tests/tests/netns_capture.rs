//! `xdp-lb capture` of real traffic: each frame as it came and as it left.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};

use aya::programs::Xdp;
use aya::programs::links::PinnedLink;
use aya_obj::programs::XdpAttachType;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xdp_lb::pcap::{self, Frame, INBOUND, OUTBOUND};
use xdp_lb_tests::balancer::{Balancer, Listener};
use xdp_lb_tests::clients::{TIMEOUT, http_get, udp_ask_on};
use xdp_lb_tests::lab::{FAMILIES, Lab, LabOptions};
use xdp_lb_tests::servers::Server;

/// Questions of each family; a question and its answer are two frames.
const ASKED: u8 = 5;

/// A capture under way, killed when it is dropped.
struct Capture(Child);

impl Capture {
    /// Starts it, and waits until it sees frames.
    fn start(balancer: &Balancer<'_>, file: &Path, options: &[&str]) -> Self {
        let mut command = balancer.command("capture");
        command.arg("--file").arg(file).args(options).stderr(Stdio::piped());
        let mut capture = Self(command.spawn().unwrap());
        let mut said = String::new();
        let mut log = BufReader::new(capture.0.stderr.take().unwrap());
        log.read_line(&mut said).unwrap();
        assert!(said.contains("capturing"), "{said}");
        capture.0.stderr = Some(log.into_inner());
        capture
    }

    /// What it has written, when it has ended by itself.
    fn frames(mut self, file: &Path) -> Vec<Frame> {
        assert!(self.0.wait().unwrap().success());
        pcap::frames(&fs::read(file).unwrap()).unwrap().unwrap()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Addresses, ports and payload of a datagram, its checksums right.
fn read(frame: &Frame) -> ((IpAddr, u16), (IpAddr, u16), Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(&frame.bytes).unwrap();
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("{frame:?}") };
    let header = udp.to_header();
    let (src, dst, sum): (IpAddr, IpAddr, _) = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            (src.into(), dst.into(), header.calc_checksum_ipv4_raw(src, dst, udp.payload()))
        }
        NetSlice::Ipv6(ip) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            (src.into(), dst.into(), header.calc_checksum_ipv6_raw(src, dst, udp.payload()))
        }
        NetSlice::Arp(_) => panic!("{frame:?}"),
    };
    assert_eq!(sum.unwrap(), udp.checksum());
    let payload = udp.payload().to_vec();
    ((src, udp.source_port()), (dst, udp.destination_port()), payload)
}

#[test]
fn netns_capture_sees_frames_before_and_after() {
    let lab = Lab::up(LabOptions { members: 1, second_member: true, ..LabOptions::default() });
    let lab = lab.expect("a lab");
    let _udp: Vec<_> = lab.all_members().map(|host| Server::udp(host, 80).expect("udp")).collect();
    let _http: Vec<_> =
        lab.all_members().map(|host| Server::http(host, 80).expect("http")).collect();
    let listeners =
        ["udp", "tcp"].map(|protocol| Listener::new(protocol, protocol, 80, lab.all_members()));
    let both = ["--interface", "eth1", "--interface", "eth2"];
    let balancer = Balancer::start(&lab, &listeners, &both);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("udp.pcapng");
    let count = (2 * 2 * ASKED).to_string();
    let options = ["--listener", "udp", "--count", &count, "--seconds", "60"];
    let capture = Capture::start(&balancer, &file, &options);

    // From, to the VIP, the question and the answer, in the order of the frames.
    let mut said = Vec::new();
    lab.client.netns.enter(|| {
        for family in FAMILIES {
            let vip = lab.vip(family, 80);
            for n in 0..ASKED {
                http_get(vip, "/").expect("another listener's, which is not wanted");
                let socket = UdpSocket::bind(family.any()).expect("a socket");
                socket.connect(vip).expect("a route");
                let question = vec![n; usize::from(n) * 300];
                udp_ask_on(&socket, &question, TIMEOUT).expect("an answer");
                let client = socket.local_addr().expect("an address");
                said.push(((client.ip(), client.port()), (vip.ip(), vip.port()), question));
            }
        }
    });

    let frames = capture.frames(&file);
    assert_eq!(frames.len(), 2 * 2 * said.len(), "each twice");
    // Who answers, and by which interface he is reached.
    let members = lab.all_members().flat_map(|host| {
        let behind =
            if lab.members.iter().any(|it| it.name == host.name) { "eth1" } else { "eth2" };
        [(IpAddr::V4(host.v4), behind), (IpAddr::V6(host.v6), behind)]
    });
    let members: HashMap<_, _> = members.collect();
    let mut met = HashSet::new();
    for (n, ((client, vip, question), frames)) in said.iter().zip(frames.chunks(4)).enumerate() {
        let [asked, taken, answered, heard] = [0, 1, 2, 3].map(|at| read(&frames[at]));
        assert_eq!(&asked, &(*client, *vip, question.clone()));
        let (source, member, payload) = taken;
        assert_eq!((member.1, &payload), (80, question));
        let behind = members[&member.0];
        met.insert(behind);
        let (from, to, answer) = answered;
        assert_eq!((from, to), (member, source));
        assert_eq!(heard, (*vip, *client, answer));

        let way = if behind == "eth1" { "tx by" } else { "redirect to" };
        for (at, frame) in frames.iter().enumerate() {
            let (direction, passing) = [(INBOUND, "in"), (OUTBOUND, "out")][at % 2];
            let egress = [behind, "eth1"][at / 2];
            let comment = format!("frame {} {passing}: {way} {egress}", 2 * n + at / 2 + 1);
            assert_eq!((frame.direction, frame.comment.as_ref()), (direction, Some(&comment)));
            let by = ["eth1", behind, behind, "eth1"][at];
            assert_eq!(frame.interface.as_deref(), Some(by));
            assert_eq!(frame.length as usize, frame.bytes.len());
        }
    }
    assert_eq!(met.len(), 2, "some go on by the interface they came in by, some by the other");
    is_as_before(&balancer);
    http_get_all(&lab);
}

fn http_get_all(lab: &Lab) {
    for family in FAMILIES {
        let vip = lab.vip(family, 80);
        lab.client.netns.enter(|| http_get(vip, "/")).expect("it serves on");
    }
}

/// Nothing is left of a capture, and the interface runs the load balancer's own program.
fn is_as_before(balancer: &Balancer<'_>) {
    let pins = Path::new("/sys/fs/bpf/xdp-lb").join(&balancer.name);
    let files = fs::read_dir(&pins).unwrap().map(|file| file.unwrap().file_name());
    let files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    assert!(!files.iter().any(|name| name.starts_with("CAPTURE_")), "{files:?}");
    let stages: Vec<_> = files.iter().filter_map(|name| name.strip_prefix("STAGES_")).collect();
    let own = Xdp::from_pin(pins.join("program"), XdpAttachType::Interface).unwrap();
    let own = own.info().unwrap().id().to_string();
    assert_eq!(stages, [&own]);
    let _link = PinnedLink::from_pin(pins.join("link_eth1")).unwrap();
    let texts = fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = texts.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    let linked = texts.filter(|text| text.contains("link_type:\txdp")).collect::<String>();
    assert!(linked.contains(&format!("prog_id:\t{own}\n")), "{linked}");
}

/// One that is told to end, and one that is killed, whose program the next one takes away.
#[test]
fn netns_capture_ends_at_any_time() {
    let lab = Lab::up(LabOptions { members: 1, ..LabOptions::default() }).expect("a lab");
    let _http = Server::http(&lab.members[0], 80).expect("http");
    let web = Listener::new("web", "tcp", 80, &lab.members);
    let mut balancer = Balancer::start(&lab, std::slice::from_ref(&web), &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("any.pcapng");
    let start = |balancer: &Balancer<'_>| Capture::start(balancer, &file, &["--seconds", "60"]);

    let mut killed = start(&balancer);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    http_get_all(&lab);

    let told = start(&balancer);
    let second =
        balancer.command("capture").arg("--file").arg(folder.path().join("second")).output();
    let said = String::from_utf8(second.unwrap().stderr).unwrap();
    assert!(said.contains("another capture"), "{said}");
    http_get_all(&lab);
    kill(Pid::from_raw(told.0.id() as i32), Signal::SIGTERM).unwrap();
    assert!(told.frames(&file).len() > 2 * 2 * 6, "of two connections, each frame twice");
    http_get_all(&lab);

    // The next start of the daemon takes the place of a capture that runs, and of its remains.
    let mut replaced = start(&balancer);
    balancer.stop();
    balancer.run();
    assert!(!replaced.0.wait().unwrap().success(), "it says so");
    is_as_before(&balancer);
    http_get_all(&lab);
}

#[test]
fn netns_capture_tells_why_frames_are_not_sent_on() {
    let lab = Lab::up(LabOptions { members: 1, ..LabOptions::default() }).expect("a lab");
    let _udp = Server::udp(&lab.members[0], 80).expect("udp");
    let balancer = Balancer::start(&lab, &[Listener::new("udp", "udp", 80, &lab.members)], &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.pcapng");
    for family in FAMILIES {
        let client = lab.client.addr(family, 0).ip().to_string();
        let options = ["--client", &client, "--count", "1", "--snap", "60", "--seconds", "60"];
        let capture = Capture::start(&balancer, &file, &options);
        lab.client.netns.enter(|| {
            let socket = UdpSocket::bind(family.any()).expect("a socket");
            socket.send_to(&[7; 500], lab.vip(family, 81)).expect("sent");
        });
        let frames = capture.frames(&file);
        let [frame] = &frames[..] else { panic!("{frames:?}") };
        let comment =
            "frame 1 in: pass; NoListener: No flow, and no listener at its address and port.";
        assert_eq!(frame.comment.as_deref(), Some(comment));
        assert_eq!((frame.direction, frame.bytes.len()), (INBOUND, 60));
        assert!(frame.length > 500);
    }
}
