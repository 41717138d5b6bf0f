//! HAProxy, keepalived and nftables beside the packet path: Debian's, each in a namespace of a lab.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agent_api::amphora::{self, Action};
use agent_api::rules::{Protocol, Rule};
use agent_api::{Name, Paths, haproxy, peer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use xdp_lb::check::{Expectation, Unwell, check};
use xdp_lb::guard;
use xdp_lb::haproxy::{Applied, Haproxy, socket};
use xdp_lb::keepalived::Keepalived;
use xdp_lb_tests::balancer::{Balancer, Listener, until};
use xdp_lb_tests::clients::{Connection, http_get};
use xdp_lb_tests::lab::{Host, Lab, LabOptions};
use xdp_lb_tests::servers::Server;

const ID: &str = "40c52c12-68e1-5926-83e7-88107bce47cb";
const AMPHORA: &str = "2fb5067a-1d18-5a82-80f6-079512bfcd7b";
const PATIENCE: Duration = Duration::from_secs(2);

/// A host of a lab as an amphora: with folders of its own, and the addresses of Octavia's vectors.
struct Amphora<'a> {
    host: &'a Host,
    paths: Paths,
    run: PathBuf,
    _directory: TempDir,
}

impl<'a> Amphora<'a> {
    fn new(host: &'a Host) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().join("base");
        let paths = Paths::new(&base, base.join("certs"));
        fs::create_dir_all(base.join("vrrp")).expect("directories");
        host.netns.sysctl("ipv4/ip_nonlocal_bind", "1").expect("a sysctl");
        Self { host, paths, run: directory.path().join("run"), _directory: directory }
    }

    fn namespace(&self) -> File {
        File::open(format!("/run/netns/{}", self.host.netns.name)).expect("a namespace")
    }

    /// As the agent has it after each of its starts.
    fn haproxy(&self) -> Haproxy {
        let (paths, run) = (self.paths.clone(), self.run.clone());
        Haproxy::new(ID, "/usr/sbin/haproxy".into(), paths, run, self.namespace())
    }

    fn keepalived(&self) -> Keepalived {
        Keepalived::new("keepalived".into(), self.paths.clone(), self.namespace(), 1)
    }

    /// What Octavia rendered, in this base directory.
    fn vector(&self, file: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
        let text = fs::read_to_string(path).expect("a vector");
        let base = self.paths.base().to_str().expect("UTF-8");
        text.replace("/var/lib/octavia", base)
    }

    fn wanted(&self, text: &str) -> amphora::Haproxy {
        let config = haproxy::parse(text, &self.paths).expect("a configuration of Octavia's");
        amphora::Haproxy { peer: peer::name(AMPHORA), config, certificates: [].into() }
    }

    /// A TCP listener on 10.0.0.10 port 80, with members at 10.1.0.21 and .22, port 8080.
    fn web(&self) -> String {
        self.vector("haproxy/connlimit_1000.cfg")
    }

    /// Its members, in this namespace too.
    fn members(&self) -> Server {
        let addresses = ["10.1.0.21", "10.1.0.22"];
        let lines = addresses.map(|address| format!("address add {address}/32 dev lo"));
        self.host.netns.ip(&lines).expect("addresses of members");
        self.host.netns.ip(&["route add local 10.0.0.10/32 dev lo".to_owned()]).expect("a VIP");
        Server::http(self.host, 8080).expect("a server")
    }

    /// Process id of HAProxy's worker.
    fn worker(&self) -> u32 {
        socket::worker(&self.paths.haproxy_socket(ID), PATIENCE).expect("HAProxy answers")
    }

    fn get(&self) -> io::Result<u16> {
        self.host.netns.enter(|| Ok(http_get(vip(80), "/")?.status))
    }

    /// How many sockets listen on a port.
    fn listening(&self, port: u16) -> usize {
        let filter = format!("sport = :{port}");
        let sockets = self.host.netns.run("ss", &["-Hltn", &filter]).expect("ss");
        sockets.lines().count()
    }

    /// Octavia's configuration for one of a pair, on the lab's addresses, and faster.
    fn write_vrrp(&self, role: u8, other: &Host) {
        let (own_old, other_old) = match role {
            1 => ("10.0.0.11", "10.0.0.12"),
            _ => ("10.0.0.12", "10.0.0.11"),
        };
        let text = self.vector(&format!("vrrp/v4_amp{role}_peers1.conf"));
        let text = text.replace("10.0.0.10", VRRP_VIP);
        let text = text.replace(own_old, &self.host.v4.to_string());
        let text = text.replace(other_old, &other.v4.to_string());
        let text = text.replace("10.0.0.", "192.0.2.").replace("eth1", "eth0");
        let text = text.replace("interval 5", "interval 1");
        fs::write(self.paths.vrrp(), text).expect("a configuration of VRRP");
    }

    fn is_master(&self) -> bool {
        let addresses = self.host.netns.run("ip", &["-4", "address", "show", "dev", "eth0"]);
        addresses.expect("addresses").contains(&format!("{VRRP_VIP}/32"))
    }
}

const VRRP_VIP: &str = "192.0.2.77";

fn vip(port: u16) -> SocketAddr {
    ([10, 0, 0, 10], port).into()
}

fn lab() -> Lab {
    Lab::up(LabOptions { members: 2, ..LabOptions::default() }).expect("a lab")
}

fn crash(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("a process");
}

#[test]
fn netns_edge_35_38_haproxy_follows_what_is_wanted_and_no_more() {
    let lab = lab();
    let amphora = Amphora::new(&lab.amphora);
    let _members = amphora.members();
    let haproxy = amphora.haproxy();
    assert_eq!(haproxy.apply(None), Ok(Applied::Unchanged));
    assert!(haproxy.pid().is_none());

    let first = amphora.wanted(&amphora.web());
    haproxy.check(&first).expect("HAProxy takes it");
    assert_eq!(haproxy.apply(Some(&first)), Ok(Applied::Started));
    assert_eq!(amphora.get().expect("an answer"), 200);
    let (master, worker) = (haproxy.pid(), amphora.worker());
    let config = fs::metadata(amphora.run.join(format!("{ID}.cfg"))).expect("a file");

    // The same in other words.
    let backend = amphora.web().replace(
        "    fullconn 1000\n    option allbackups\n",
        "\
         \x20   option allbackups\n    fullconn 1000\n",
    );
    assert_ne!(backend, amphora.web());
    for wanted in [&first, &amphora.wanted(&backend)] {
        assert_eq!(haproxy.apply(Some(wanted)), Ok(Applied::Unchanged));
    }
    assert_eq!((haproxy.pid(), amphora.worker()), (master, worker));
    let now = fs::metadata(amphora.run.join(format!("{ID}.cfg"))).expect("a file");
    assert_eq!(now.modified().expect("a time"), config.modified().expect("a time"));

    let mut kept = amphora.host.netns.enter(|| Connection::open(vip(80))).expect("a connection");
    kept.get("/").expect("before");
    let other = amphora.wanted(&amphora.web().replace("weight 1 ", "weight 7 "));
    assert_eq!(haproxy.apply(Some(&other)), Ok(Applied::Reloaded));
    assert_eq!(haproxy.pid(), master);
    assert_ne!(amphora.worker(), worker);
    kept.get("/").expect("an established connection survives a reload");
    assert!(amphora.paths.haproxy_state(ID).exists());
    assert_eq!(amphora.get().expect("an answer"), 200);

    // A certificate of the same name with another content.
    let mut renewed = other.clone();
    renewed.certificates.insert("a.pem".to_owned(), "0".repeat(64));
    assert_eq!(haproxy.apply(Some(&renewed)), Ok(Applied::Reloaded));
    assert_eq!(haproxy.apply(Some(&renewed)), Ok(Applied::Unchanged));

    let mut renamed = renewed.clone();
    renamed.peer = peer::name(ID);
    assert_eq!(haproxy.apply(Some(&renamed)), Ok(Applied::Started), "the name is an argument");
    assert_ne!(haproxy.pid(), master);
    assert_eq!(amphora.get().expect("an answer"), 200);

    assert_eq!(haproxy.apply(None), Ok(Applied::Stopped));
    assert!(haproxy.pid().is_none());
    assert!(amphora.get().is_err());
    assert_eq!(amphora.listening(80), 0);
    let left = fs::read_dir(&amphora.run).expect("a directory").flatten();
    let left: Vec<_> = left.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    assert_eq!(left, ["xdp-lb.cfg"]);
    assert!(!amphora.paths.haproxy_socket(ID).exists());
    haproxy.supervise();
    assert!(haproxy.pid().is_none(), "it is not wanted");
}

#[test]
fn netns_edge_60_61_haproxy_is_found_again_by_the_next_agent() {
    let lab = lab();
    let amphora = Amphora::new(&lab.amphora);
    let _members = amphora.members();
    let wanted = amphora.wanted(&amphora.web());
    let directory = amphora.paths.load_balancer(ID);
    fs::create_dir_all(&directory).expect("a directory");
    // Of before a reboot; the number is another's now.
    fs::write(directory.join(format!("{ID}.pid")), format!("{}\n", std::process::id()))
        .expect("a pid file");
    assert_eq!(amphora.haproxy().apply(Some(&wanted)), Ok(Applied::Started));
    let (master, worker) = (amphora.haproxy().pid(), amphora.worker());

    amphora.haproxy().supervise();
    assert_eq!(amphora.haproxy().apply(Some(&wanted)), Ok(Applied::Unchanged));
    assert_eq!((amphora.haproxy().pid(), amphora.worker()), (master, worker));

    let other = amphora.wanted(&amphora.web().replace("weight 1 ", "weight 7 "));
    assert_eq!(amphora.haproxy().apply(Some(&other)), Ok(Applied::Reloaded));
    assert_eq!(amphora.haproxy().pid(), master);
    assert_eq!(amphora.haproxy().apply(None), Ok(Applied::Stopped));
}

#[test]
fn netns_haproxy_in_a_namespace_that_is_no_more_makes_room() {
    let lab = lab();
    let amphora = Amphora::new(&lab.amphora);
    let wanted = amphora.wanted(&amphora.web());
    amphora.haproxy().apply(Some(&wanted)).expect("a start");
    let before = amphora.haproxy().pid().expect("a process");
    let elsewhere = File::open(format!("/run/netns/{}", lab.members[0].netns.name));
    lab.members[0].netns.sysctl("ipv4/ip_nonlocal_bind", "1").expect("a sysctl");
    let (paths, run) = (amphora.paths.clone(), amphora.run.clone());
    let program = PathBuf::from("haproxy");
    let haproxy = Haproxy::new(ID, program, paths, run, elsewhere.expect("a namespace"));
    assert!(haproxy.pid().is_none());
    assert_eq!(haproxy.apply(Some(&wanted)), Ok(Applied::Started));
    assert_ne!(haproxy.pid(), Some(before));
    assert_eq!(amphora.listening(80), 0);
}

#[test]
fn netns_edge_53_what_haproxy_refuses_changes_nothing() {
    let lab = lab();
    let amphora = Amphora::new(&lab.amphora);
    let _members = amphora.members();
    let haproxy = amphora.haproxy();
    let good = amphora.wanted(&amphora.web());
    let regex = amphora.vector("haproxy/l7_everything.cfg").replace("(jpg|png)", "(jpg|png");
    let bad = amphora.wanted(&regex.replace("maxconn 50000", "maxconn 500"));
    let refused = |error: amphora::Failed| {
        let amphora::Failed(why) = error;
        assert!(why.contains("parsing [haproxy.cfg:"), "{why}");
        assert!(why.contains("(jpg|png"), "{why}");
        assert!(!why.contains(amphora.run.to_str().expect("UTF-8")), "{why}");
    };
    refused(haproxy.check(&bad).expect_err("a bad regex"));
    refused(haproxy.apply(Some(&bad)).expect_err("a bad regex"));
    assert!(haproxy.pid().is_none());

    haproxy.apply(Some(&good)).expect("a start");
    let worker = amphora.worker();
    refused(haproxy.apply(Some(&bad)).expect_err("a bad regex"));
    assert_eq!(amphora.worker(), worker);
    assert_eq!(amphora.get().expect("an answer"), 200);
    assert_eq!(haproxy.apply(Some(&good)), Ok(Applied::Unchanged));
}

#[test]
fn netns_edge_53_what_haproxy_cannot_bind_leaves_the_old_one_serving() {
    let lab = lab();
    let amphora = Amphora::new(&lab.amphora);
    let _members = amphora.members();
    let haproxy = amphora.haproxy();
    let other = amphora.host.netns.enter(|| TcpListener::bind(vip(81))).expect("a listener");
    let good = amphora.wanted(&amphora.web());
    let taken = amphora.wanted(&amphora.web().replace(":80\n", ":81\n"));
    let amphora::Failed(why) = haproxy.apply(Some(&taken)).expect_err("port 81 is taken");
    let want = "HAProxy does not start: Binding [haproxy.cfg:";
    assert!(why.starts_with(want) && why.contains("Address already in use"), "{why}");
    assert!(haproxy.pid().is_none());

    haproxy.apply(Some(&good)).expect("a start");
    let (master, worker) = (haproxy.pid(), amphora.worker());
    let amphora::Failed(why) = haproxy.apply(Some(&taken)).expect_err("port 81 is taken");
    assert!(why.starts_with("HAProxy can read its new configuration and could not"), "{why}");
    assert_eq!((haproxy.pid(), amphora.worker()), (master, worker));
    assert_eq!(amphora.get().expect("an answer"), 200);
    assert_eq!(haproxy.apply(Some(&good)), Ok(Applied::Unchanged));

    drop(other);
    assert_eq!(haproxy.apply(Some(&taken)), Ok(Applied::Reloaded));
    assert_ne!(amphora.worker(), worker);
    assert_eq!((amphora.listening(80), amphora.listening(81)), (0, 1));
}

#[test]
fn netns_haproxy_that_dies_is_started_again() {
    let lab = lab();
    let amphora = Amphora::new(&lab.amphora);
    let _members = amphora.members();
    let haproxy = amphora.haproxy();
    haproxy.apply(Some(&amphora.wanted(&amphora.web()))).expect("a start");
    let first = haproxy.pid().expect("a process");
    haproxy.supervise();
    assert_eq!(haproxy.pid(), Some(first));

    crash(first);
    until("the master is gone", || haproxy.pid().is_none().then_some(()));
    haproxy.supervise();
    assert_ne!(haproxy.pid().expect("a process"), first);
    until("its worker is alone", || (amphora.listening(80) == 1).then_some(()));
    assert_eq!(amphora.get().expect("an answer"), 200);

    let (master, worker) = (haproxy.pid().expect("a process"), amphora.worker());
    crash(worker as i32);
    // A worker that dies takes the master with it.
    until("the master ends", || (haproxy.pid() != Some(master)).then_some(()));
    amphora.haproxy().supervise();
    assert_eq!(amphora.get().expect("an answer"), 200);
}

#[test]
fn netns_edge_32_55_vrrp_is_started_reloaded_and_stopped() {
    let lab = lab();
    let amphora = Amphora::new(&lab.members[0]);
    let keepalived = amphora.keepalived();
    assert!(!keepalived.missing(), "there is no configuration");
    let failed = keepalived.vrrp(Action::Start).expect_err("no configuration");
    assert_eq!(failed.to_string(), "no configuration of VRRP has been uploaded");
    keepalived.vrrp(Action::Stop).expect("nothing to stop");

    amphora.write_vrrp(1, &lab.members[1]);
    keepalived.write_check(Path::new("/bin/true"), &[]).expect("a script");
    assert!(keepalived.missing());
    // Of before a reboot: keepalived would take them for itself.
    for extension in ["pid", "vrrp.pid"] {
        let file = amphora.paths.vrrp().with_extension(extension);
        fs::write(file, format!("{}\n", std::process::id())).expect("a pid file");
    }
    keepalived.vrrp(Action::Reload).expect("what does not run is started");
    let pid = vrrp_pid(&amphora);
    assert!(keepalived.running() && !keepalived.missing());
    for action in [Action::Start, Action::Reload] {
        keepalived.vrrp(action).expect("reloaded");
        assert_eq!(vrrp_pid(&amphora), pid);
    }

    let next = amphora.keepalived();
    assert!(next.running(), "the next agent finds it");
    crash(pid);
    until("it is gone", || next.missing().then_some(()));
    next.supervise();
    assert!(next.running());
    assert_ne!(vrrp_pid(&amphora), pid);

    next.vrrp(Action::Stop).expect("stopped");
    assert!(!next.running());
    assert!(amphora.paths.vrrp().exists(), "stop keeps the configuration");
    next.supervise();
    assert!(!next.running(), "it is not wanted");
    next.vrrp(Action::Stop).expect("stopped already");
}

#[test]
fn netns_vrrp_without_its_interface_is_told() {
    let lab = lab();
    let amphora = Amphora::new(&lab.members[0]);
    amphora.write_vrrp(1, &lab.members[1]);
    let text = fs::read_to_string(amphora.paths.vrrp()).expect("a configuration");
    let none = text.replace("interface eth0", "interface None");
    fs::write(amphora.paths.vrrp(), none).expect("a configuration");
    let keepalived = amphora.keepalived();
    let amphora::Failed(why) = keepalived.vrrp(Action::Start).expect_err("no interface");
    assert!(why.starts_with("keepalived does not run with its configuration: "), "{why}");
    assert!(why.contains("interface None"), "{why}");
    assert!(keepalived.missing());
}

fn vrrp_pid(amphora: &Amphora<'_>) -> i32 {
    let file = amphora.paths.vrrp().with_extension("pid");
    fs::read_to_string(file).expect("a pid file").trim().parse().expect("a number")
}

#[test]
fn netns_edge_46_a_pair_elects_a_master_and_the_check_decides() {
    let lab = lab();
    let pair = [Amphora::new(&lab.members[0]), Amphora::new(&lab.members[1])];
    let agents = [pair[0].keepalived(), pair[1].keepalived()];
    let well = |number: usize, well: bool| {
        fs::write(pair[number].run.with_extension("well"), if well { "0" } else { "1" })
            .expect("a file");
    };
    for (number, (amphora, keepalived)) in pair.iter().zip(&agents).enumerate() {
        well(number, false);
        amphora.write_vrrp(number as u8 + 1, &lab.members[1 - number]);
        let file = amphora.run.with_extension("well");
        let asked = format!("exit $(cat {})", file.display());
        let arguments = ["-c", &asked].map(AsRef::as_ref);
        keepalived.write_check(Path::new("/bin/sh"), &arguments).expect("a script");
        keepalived.vrrp(Action::Start).expect("keepalived starts");
    }
    // Only the second is well, in spite of its priority.
    well(1, true);
    until("the second is master", || pair[1].is_master().then_some(()));
    assert!(!pair[0].is_master(), "FAULT: the VIP is not there");
    well(0, true);
    well(1, false);
    until("the first is master", || pair[0].is_master().then_some(()));
    until("the second is not", || (!pair[1].is_master()).then_some(()));
    agents[0].vrrp(Action::Stop).expect("stopped");
    assert!(!pair[0].is_master(), "a stop takes the VIP away");
    agents[1].vrrp(Action::Stop).expect("stopped");
}

#[test]
fn netns_the_check_script_is_ours() {
    let lab = lab();
    let amphora = Amphora::new(&lab.members[0]);
    let keepalived = amphora.keepalived();
    let path = amphora.paths.vrrp_check();
    fs::write(&path, "#!/bin/bash\nexit 0\n").expect("a script of the stock agent");
    let arguments = ["%s\n", "it's"].map(AsRef::as_ref);
    keepalived.write_check(Path::new("/usr/bin/printf"), &arguments).expect("a script");
    let written = fs::metadata(&path).and_then(|it| it.modified()).expect("a time");
    keepalived.write_check(Path::new("/usr/bin/printf"), &arguments).expect("a script");
    assert_eq!(fs::metadata(&path).and_then(|it| it.modified()).expect("a time"), written);
    let output = Command::new(&path).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "it's\n");
}

#[test]
fn netns_edge_46_the_check_fails_when_something_does_not_serve() {
    let lab = lab();
    let amphora = Amphora::new(&lab.amphora);
    let _servers: Vec<_> =
        lab.members.iter().map(|host| Server::http(host, 80).expect("a server")).collect();
    let web = [Listener::new("web", "tcp", 80, &lab.members)];
    let mut balancer = Balancer::start(&lab, &web, &[]);
    let name = Name::try_from(balancer.name.clone()).expect("a name");
    let inside = |expected: Expectation| {
        expected.write(&name).expect("written");
        lab.amphora.netns.enter(|| check(&name))
    };
    let nothing = lab.amphora.netns.enter(|| check(&name));
    assert!(matches!(nothing, Err(Unwell::Unexpected)), "{nothing:?}");
    let nothing = inside(Expectation::default());
    assert!(matches!(nothing, Err(Unwell::NothingServed)), "{nothing:?}");

    let interfaces = || vec!["eth1".to_owned()];
    let xdp = || Expectation { xdp_listeners: 1, interfaces: interfaces(), haproxy: vec![] };
    inside(xdp()).expect("all is well");
    let outside = check(&name);
    assert!(matches!(outside, Err(Unwell::Detached { .. })), "{outside:?}");

    let haproxy = amphora.haproxy();
    let socket = amphora.paths.haproxy_socket(ID);
    let both = || Expectation { haproxy: vec![socket.clone()], ..xdp() };
    let silent = |found: Result<(), Unwell>| {
        assert!(matches!(found, Err(Unwell::Silent { .. })), "{found:?}");
    };
    silent(inside(both()));
    haproxy.apply(Some(&amphora.wanted(&amphora.web()))).expect("HAProxy starts");
    inside(both()).expect("all is well");
    inside(Expectation { xdp_listeners: 0, ..both() }).expect("HAProxy alone");
    let master = haproxy.pid().expect("a process");
    let worker = Pid::from_raw(amphora.worker() as i32);
    kill(worker, Signal::SIGSTOP).expect("a process");
    silent(inside(both()));
    kill(worker, Signal::SIGCONT).expect("a process");
    inside(both()).expect("all is well");
    crash(master);
    until("HAProxy is gone", || haproxy.pid().is_none().then_some(()));
    until("so is its worker", || (amphora.listening(80) == 0).then_some(()));
    silent(inside(both()));

    balancer.kill9();
    inside(xdp()).expect("it serves without its daemon");
    balancer.run();
    balancer.reload(&[]);
    let empty = inside(xdp());
    assert!(matches!(empty, Err(Unwell::Unlistened { expected: 1 })), "{empty:?}");
    lab.unplug_amphora().expect("unplugged");
    let detached = inside(xdp());
    assert!(matches!(detached, Err(Unwell::Detached { .. })), "{detached:?}");
}

#[test]
fn netns_edge_56_the_guard_means_what_the_rules_say() {
    let lab = lab();
    let amphora = Amphora::new(&lab.amphora);
    let namespace = amphora.namespace();
    let rule = |protocol, cidr: &str, port| Rule {
        protocol,
        cidr: (!cidr.is_empty()).then(|| cidr.parse().expect("a network")),
        port,
    };
    let client = format!("{}/32", lab.client.v4);
    let rules = [
        rule(Protocol::Tcp, &client, 8001),
        rule(Protocol::Tcp, "192.0.2.0/24", 8002),
        rule(Protocol::Tcp, "0.0.0.0/0", 8003),
        rule(Protocol::Udp, "::/0", 53),
        rule(Protocol::Sctp, "2001:db8::/32", 36412),
        rule(Protocol::Vrrp, "192.0.2.101/32", 112),
        rule(Protocol::Vrrp, "2001:db8:1::101/128", 112),
        rule(Protocol::Vrrp, "", 112),
    ];
    let ports = [8001, 8002, 8003, 8004];
    let bind = |port| TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).expect("a socket");
    let _listeners = lab.amphora.netns.enter(|| ports.map(bind));
    let reached = |host: &Host| {
        let reaches = |port: &u16| {
            let to = SocketAddr::from((lab.amphora.v4, *port));
            TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_ok()
        };
        host.netns.enter(|| ports.iter().copied().filter(|port| reaches(port)).collect::<Vec<_>>())
    };
    let load = |text: &str| guard::load(&namespace, text).expect("nft takes it");
    let ask_out = || {
        let to = SocketAddr::from((lab.client.v4, 9));
        let out = lab.amphora.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE));
        out.map(drop).map_err(|error| error.kind())
    };
    assert_eq!(reached(&lab.client), ports);

    // Each in place of the one before, as often as one likes.
    for _ in 0..2 {
        load(&guard::ruleset("eth1", Some(&rules)));
        assert_eq!(reached(&lab.client), [8001, 8003]);
        assert_eq!(reached(&lab.members[0]), [8002, 8003]);
        assert_eq!(reached(&lab.amphora), ports, "to itself");
    }
    load(&guard::ruleset("eth1", Some(&[])));
    assert_eq!(reached(&lab.client), [0; 0]);
    assert_eq!(ask_out(), Err(io::ErrorKind::ConnectionRefused), "an answer comes in");
    load(&guard::ruleset("eth1", None));
    assert_eq!(reached(&lab.members[0]), [0; 0]);
    for _ in 0..2 {
        load(guard::off());
        assert_eq!(reached(&lab.client), ports);
    }
    let broken = guard::load(&namespace, "table inet x {\n  chain\n").expect_err("half a table");
    assert!(broken.to_string().starts_with("nft: exit status: 1: "), "{broken}");
    assert_eq!(lab.amphora.netns.run("nft", &["list", "ruleset"]).expect("nft"), "");
}
