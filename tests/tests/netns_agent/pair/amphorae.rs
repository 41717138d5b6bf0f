//! A pair of amphorae on one switch, what is asked of it, and ways for one of them to end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use agent_api::peer;
use nix::ifaddrs::getifaddrs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use xdp_lb_tests::agent::{Agent, Options};
use xdp_lb_tests::balancer::program;
use xdp_lb_tests::clients::{Connection, http_get};
use xdp_lb_tests::lab::{FAMILIES, Family, Host, Lab, LabOptions, Netns, Process};
use xdp_lb_tests::servers::Server;
use xdp_lb_tests::uploads::{self, Frontend, LOAD_BALANCER, Speaks, Vrrp};

use super::super::world::{HTTP, TCP, frontend, haproxy, network, port, vips};

/// A listener beside [`TCP`], whose connections go from member to member.
pub const ROUND_ROBIN: u32 = 6;
/// Of its members, so that no connection of it needs the source port of one of the other listener.
const ROUND_ROBIN_PORT: u16 = 81;
/// Of the listener of HAProxy's: whoever came once stays with his member, on either amphora.
const POOL: &str = "    stick-table type ipv6 size 10k peers 40c52c1268e1592683e788107bce47cb_peers\n    \
                    stick on src\n    load-server-state-from-file global\n    timeout check 4s\n";
const CHECKED: &str = " check inter 1s fall 3 rise 2";

/// Checks come each 5 s, and two of them must agree; who hears nothing from the master waits for 4 s.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// For one try to connect, while nobody may have the VIP.
const CONNECTING: Duration = Duration::from_millis(100);
/// Heartbeats come once a second, as VRRP's advertisements do: whoever misses those of four seconds is
/// master by then, if it is well.
const ELECTION_BEATS: usize = 6;
/// Who ask on established connections.
const WORKERS: usize = 8;

/// Two agents, each with the VIPs plugged, the first of the higher priority.
pub struct Pair<'a> {
    pub lab: &'a Lab,
    pub agents: [Agent<'a>; 2],
}

impl<'a> Pair<'a> {
    pub fn plug(lab: &'a Lab) -> Self {
        let options = Options { nic: "eth0", ..standby() };
        let agents = [(&lab.amphora, standby()), (neighbour(lab), options)];
        let agents = agents.map(|(host, options)| {
            let agent = Agent::start_on(lab, host, options).expect("an agent");
            agent.plug_vip(json!({})).expect("plugged");
            agent
        });
        Self { lab, agents }
    }

    /// As Octavia starts VRRP, one amphora after the other.
    pub fn start_vrrp(&self) {
        let [first, second] = &self.agents;
        start_vrrp(first, 100, second.host);
        start_vrrp(second, 90, first.host);
    }

    /// The same listeners on both: two by XDP, [`TCP`] by the client's address and [`ROUND_ROBIN`], and
    /// [`HTTP`].
    pub fn serve(&self) {
        let peers = self.agents.each_ref().map(|agent| (&agent.id[..], agent.host.v4));
        self.agents.iter().for_each(|agent| serve(agent, &peers));
    }

    /// Index of the only one that has the VIPs, once there is one.
    pub fn master(&self) -> usize {
        let mut master = 0;
        until("one has the VIPs, and the other none", || {
            let held = self.agents.each_ref().map(holds);
            master = usize::from(held[1] == 2);
            held == [2, 0] || held == [0, 2]
        });
        master
    }

    /// Each listener answers a new connection, over both families.
    pub fn answers(&self) {
        [TCP, ROUND_ROBIN, HTTP].into_iter().for_each(|id| answers(self.lab, id));
    }

    /// The members that HAProxy has for the client, by each of its addresses.
    pub fn http_members(&self) -> [String; 2] {
        let get = |family| http_get(self.lab.vip(family, port(HTTP)), "/").expect("a response");
        self.lab.client.netns.enter(|| FAMILIES.map(|family| get(family).member))
    }

    /// Until the router sends what is for the VIPs to this one.
    pub fn router_follows(&self, who: usize) {
        for vip in vips(self.lab) {
            let mac = || -> Option<Value> {
                let router = &self.lab.router.netns;
                let found = router.run("ip", &["-j", "neigh", "show", &vip.to_string()]).ok()?;
                Some(serde_json::from_str::<Value>(&found).ok()?[0]["lladdr"].clone())
            };
            let own = json!(self.agents[who].mac);
            until("the router knows the MAC", || mac().is_some_and(|mac| mac == own));
        }
    }

    /// As a machine that loses its power: nobody hears a last word.
    pub fn dies(&mut self, who: usize) {
        let agent = &mut self.agents[who];
        let inside = agent.inside().expect("a namespace");
        inside.ip(&["link set eth1 down".to_owned()]).expect("down");
        agent.kill9();
        kill_all(agent, "keepalived");
        kill_all(agent, "haproxy");
    }
}

/// A lab with place for two, neither of whom sees what is for the other: the switch does not flood its
/// ports.
pub fn lab() -> Lab {
    let lab = Lab::up(LabOptions { neighbour: true, ..LabOptions::default() }).expect("a lab");
    let ports = [&lab.amphora, neighbour(&lab)].map(|host| &host.name);
    let lines = ports.map(|port| format!("link set {port} type bridge_slave flood off"));
    lab.switch.ip(&lines).expect("a switch that learns");
    lab
}

pub fn neighbour(lab: &Lab) -> &Host {
    lab.neighbour.as_ref().expect("a neighbour")
}

/// What the members of all listeners serve.
pub fn servers(lab: &Lab) -> Vec<Server> {
    let ports = [80, ROUND_ROBIN_PORT];
    let servers = lab.members.iter().flat_map(|host| ports.map(|port| Server::http(host, port)));
    servers.map(|server| server.expect("HTTP")).collect()
}

pub fn standby() -> Options {
    Options { topology: "ACTIVE_STANDBY", ..Options::default() }
}

/// Listeners as of [`Pair::serve`]. `peers` are the amphorae of the load balancer.
pub fn serve(agent: &Agent<'_>, peers: &[(&str, Ipv4Addr)]) {
    let lab = agent.lab;
    let source = Frontend { balance: "source", ..frontend(lab, TCP, Speaks::Tcp) };
    let mut round_robin = frontend(lab, ROUND_ROBIN, Speaks::Tcp);
    round_robin.members.iter_mut().for_each(|(_, port, _)| *port = ROUND_ROBIN_PORT);
    let http = Frontend { pool: POOL, server: CHECKED, ..frontend(lab, HTTP, Speaks::Http) };
    let config = haproxy(agent, &[source, round_robin, http]);
    let peers = peers.iter().map(|(id, own)| format!("    peer {} {own}:1025\n", peer::name(id)));
    let name = LOAD_BALANCER.replace('-', "");
    let peers = format!("peers {name}_peers\n{}\n\nfrontend ", peers.collect::<String>());
    agent.serve(LOAD_BALANCER, &config.replacen("frontend ", &peers, 1)).expect("served");
}

pub fn start_vrrp(agent: &Agent<'_>, priority: u8, peer: &Host) {
    let config = vrrp_config(&agent.base(), agent.lab, priority, [agent.host, peer]);
    agent.must(200, "PUT", "/1.0/vrrp/upload", config.as_bytes()).expect("uploaded");
    act(agent, "start");
}

pub fn act(agent: &Agent<'_>, action: &str) {
    agent.must(202, "PUT", &format!("/1.0/vrrp/{action}"), b"").expect(action);
}

fn vrrp_config(base: &Path, lab: &Lab, priority: u8, [own, peer]: [&Host; 2]) -> String {
    let gateways = FAMILIES.map(|family| lab.router.addr(family, 0).ip());
    let [v4, v6] = FAMILIES.map(|family| lab.vip(family, 0).ip());
    let vips = [(v4, "192.0.2.0/24", gateways[0]), (v6, "2001:db8:1::/64", gateways[1])];
    let (source, peer) = (own.v4.into(), Some(peer.v4.into()));
    uploads::vrrp(base, Vrrp { priority, source, peer, vips: &vips })
}

/// How many of the VIPs are on its machine.
pub fn holds(agent: &Agent<'_>) -> usize {
    held(&agent.inside().expect("a namespace"), agent.lab)
}

pub fn held(netns: &Netns, lab: &Lab) -> usize {
    let vips = vips(lab);
    netns.enter(|| {
        let interfaces = getifaddrs().expect("addresses");
        let addresses = interfaces.filter_map(|it| {
            let storage = it.address?;
            let v4 = storage.as_sockaddr_in().map(|it| SocketAddr::from(*it));
            let v6 = storage.as_sockaddr_in6().map(|it| SocketAddr::from(*it));
            v4.or(v6).map(|it| it.ip())
        });
        addresses.filter(|address| vips.contains(address)).count()
    })
}

/// What VRRP gives to a master: the VIPs, rules, and the routes of table 1.
pub fn owned(agent: &Agent<'_>) -> BTreeSet<String> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = |table: &Value| table.as_array().cloned().unwrap_or_default();
    let all = network(agent).expect("the network");
    let vips: Vec<_> = vips(agent.lab).iter().map(ToString::to_string).collect();
    let links = rows(&all[0]);
    let addresses = links.iter().flat_map(rows).map(|row| text(&row, "local"));
    let routes = all[1..3].iter().flat_map(rows).filter(|row| row["table"] == "1");
    let routes = routes.map(|row| {
        let via = row["gateway"].as_str().unwrap_or("link");
        format!("to {} by {via}", text(&row, "dst"))
    });
    let rules = all[3..].iter().flat_map(rows).filter(|row| row["table"] == "1");
    let rules = rules.map(|row| format!("from {} priority {}", text(&row, "src"), row["priority"]));
    let addresses = addresses.filter(|address| vips.contains(address));
    addresses.chain(routes).chain(rules).collect()
}

/// Why VRRP's check finds it unwell, if so.
pub fn unwell(agent: &Agent<'_>) -> Option<String> {
    let mut command = Command::new(program());
    command.args(["check", "--name", &agent.id]);
    let output = agent.inside().expect("a namespace").output(&mut command).expect("a check");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then_some(said)
}

/// Returns after a time in which VRRP elects a master wherever there is one to be.
pub fn election_passes(agent: &Agent<'_>) {
    (0..ELECTION_BEATS).for_each(|_| drop(agent.heartbeat().expect("a heartbeat")));
}

pub fn until(what: &str, mut good: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !good() {
        assert!(Instant::now() < end, "never: {what}");
        sleep(POLL);
    }
}

pub fn answers(lab: &Lab, id: u32) {
    for family in FAMILIES {
        let get = || http_get(lab.vip(family, port(id)), "/").map(|response| response.status);
        assert_eq!(lab.client.netns.enter(get).expect("a response"), 200, "{id} over {family:?}");
    }
}

/// Connections that have been used once.
pub fn establish(lab: &Lab, family: Family, id: u32, count: usize) -> Vec<Connection> {
    let open = || {
        let mut connection = Connection::open(lab.vip(family, port(id))).expect("a connection");
        connection.get("/").expect("a response");
        connection
    };
    lab.client.netns.enter(|| (0..count).map(|_| open()).collect())
}

/// How many of them answer once more.
pub fn survivors(connections: &mut [Connection]) -> usize {
    let share = connections.len().div_ceil(WORKERS);
    let alive = |share: &mut [Connection]| {
        share.iter_mut().filter_map(|connection| connection.get("/").ok()).count()
    };
    thread::scope(|scope| {
        let shares = connections.chunks_mut(share);
        let workers: Vec<_> = shares.map(|share| scope.spawn(move || alive(share))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).sum()
    })
}

/// When a new connection is first accepted, of all the tries since `began`.
pub fn first_accepted(lab: &Lab, family: Family, began: Instant) -> Duration {
    let at = lab.vip(family, port(TCP));
    lab.client.netns.enter(|| {
        until("a new connection", || TcpStream::connect_timeout(&at, CONNECTING).is_ok());
    });
    began.elapsed()
}

/// Ends what runs by this name in the namespace of the load balancer, and waits for the end.
pub fn kill_all(agent: &Agent<'_>, name: &str) {
    let mut pids = agent.processes(name).expect("processes");
    assert_ne!(pids, [0; 0], "{name} runs");
    // A parent first: it would start its child again.
    pids.sort_unstable();
    for pid in &pids {
        // Some end when their parent does.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    until("they have ended", || {
        let left = agent.processes(name).expect("processes");
        !left.iter().any(|pid| pids.contains(pid))
    });
}

/// A plain keepalived in place of an amphora, which finds itself always well.
pub struct Stock {
    process: Process,
    /// What it reads and writes.
    _folder: TempDir,
}

impl Stock {
    pub fn start(lab: &Lab, host: &Host, priority: u8) -> Self {
        let folder = TempDir::with_prefix("xdp-lb-stock-").expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let config = vrrp_config(folder.path(), lab, priority, [host, &lab.amphora]);
        fs::write(path("conf"), config.replace("eth1", "eth0")).expect("a configuration");
        fs::create_dir(path("vrrp")).expect("a folder");
        let script = path("vrrp/check_script.sh");
        fs::write(&script, "#!/bin/sh\nexit 0\n").expect("a script");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, executable).expect("a mode");
        let log = File::create(path("log")).expect("a log");
        let mut command = Command::new("/usr/sbin/keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp", "-f"]).arg(path("conf"));
        command.arg("-p").arg(path("pid")).arg("-r").arg(path("vrrp.pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let process = host.netns.spawn(&mut command).expect("keepalived starts");
        Self { process, _folder: folder }
    }

    /// With a last word to the others.
    pub fn stop(mut self) {
        self.process.signal(Signal::SIGTERM).expect("a signal");
        self.process.child.wait().expect("it ends");
    }
}

/// What happens to the addresses of an amphora from now on.
pub struct Monitor {
    netns: Netns,
    vips: Vec<String>,
    log: TempDir,
    _process: Process,
}

/// Comes and goes to show that the monitor has seen all before.
const MARK: &str = "127.77.77.77";

impl Monitor {
    pub fn start(agent: &Agent<'_>) -> Self {
        let netns = agent.inside().expect("a namespace");
        let log = TempDir::with_prefix("xdp-lb-monitor-").expect("a folder");
        let file = File::create(log.path().join("log")).expect("a log");
        let mut command = Command::new("ip");
        command.args(["-o", "monitor", "address"]).stdin(Stdio::null()).stdout(file);
        let process = netns.spawn(&mut command).expect("it starts");
        let vips = vips(agent.lab).iter().map(|vip| format!(" {vip}/")).collect();
        let monitor = Self { netns, vips, log, _process: process };
        until("the monitor sees", || {
            monitor.mark("add");
            monitor.mark("delete");
            monitor.text().contains(MARK)
        });
        monitor
    }

    /// What has been seen of the VIPs.
    pub fn seen(&self) -> Vec<String> {
        self.mark("add");
        let marks = |text: &str| text.lines().filter(|line| line.contains(MARK)).count();
        let before = marks(&self.text());
        self.mark("delete");
        until("the monitor is here", || marks(&self.text()) > before);
        let text = self.text();
        let lines = text.lines().filter(|line| self.vips.iter().any(|vip| line.contains(vip)));
        lines.map(str::to_owned).collect()
    }

    fn mark(&self, action: &str) {
        self.netns.ip(&[format!("address {action} {MARK}/32 dev lo")]).expect("a mark");
    }

    fn text(&self) -> String {
        fs::read_to_string(self.log.path().join("log")).expect("a log")
    }
}
