//! `xdp-lb agent` as a process in a lab, driven over mutual TLS as Octavia drives it.
//!
//! A host of the lab is the amphora's machine: its first interface waits there to be plugged, the agent
//! runs there, and its heartbeats are heard there. The namespace of the load balancer is the agent's to
//! make.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_api::heartbeat::envelope;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::balancer::program;
use crate::door::{Response, Trust, response};
use crate::lab::{Host, Lab, Netns, Process};
use crate::pki::{Issued, Kind};

const PORT: u16 = 9443;
/// What heartbeats are signed or sealed with.
pub const KEY: &str = "insecure";
/// How long the agent may take for one step.
const PATIENCE: Duration = Duration::from_secs(60);

const WITHOUT_BPF: &str = "mount --make-private /sys/fs/bpf && umount /sys/fs/bpf && ";
/// A folder of the test's own in the place of rsyslog's, for it and those that it starts.
const WITH_LOG: &str = "mkdir -p /run/rsyslog/octavia && mount --make-private / && \
                        mount --bind \"$LOG_FOLDER\" /run/rsyslog/octavia && ";
const THEN: &str = "exec \"$@\"";
const POLL: Duration = Duration::from_millis(20);

/// An amphora and its agent. Dropped, it is gone with everything it pinned.
pub struct Agent<'a> {
    pub id: String,
    pub lab: &'a Lab,
    /// Its machine.
    pub host: &'a Host,
    pub mac: String,
    folder: TempDir,
    trust: Trust,
    shown: Issued,
    heartbeats: UdpSocket,
    told: UnixDatagram,
    process: Option<Process>,
    pub options: Options,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// `SINGLE` or `ACTIVE_STANDBY`.
    pub topology: &'static str,
    /// The interface of the VIPs, as it is called on the machine before it is plugged.
    pub nic: &'static str,
    /// Whether the machine has a BPF file system, without which XDP cannot be.
    pub bpf: bool,
    /// What it may do of what root may, as `setpriv` has it.
    pub bounding_set: Option<String>,
    /// Whether what it logs by way of rsyslog comes to `rsyslog/log` in its folder.
    pub log: bool,
    /// Whether systemd has started it, and hears when it is ready.
    pub systemd: bool,
}

impl Default for Options {
    fn default() -> Self {
        let (topology, nic) = ("SINGLE", "eth1");
        Self { topology, nic, bpf: true, bounding_set: None, log: false, systemd: true }
    }
}

impl<'a> Agent<'a> {
    /// Starts it on the lab's amphora and waits until it is ready.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        Self::start_on(lab, &lab.amphora, Options::default())
    }

    pub fn start_on(lab: &'a Lab, host: &'a Host, options: Options) -> Result<Self> {
        let mut agent = Self::prepare(lab, host, options)?;
        agent.write_certificates()?;
        agent.write_config()?;
        agent.run()?;
        Ok(agent)
    }

    /// All but the files that come with the machine, and the process.
    pub fn prepare(lab: &'a Lab, host: &'a Host, options: Options) -> Result<Self> {
        let id = format!("{}{}", lab.prefix(), host.name);
        // In memory, where there is such a place: on a busy disk a sync takes seconds, up to a minute.
        let places = ["/dev/shm", "/tmp"].map(Path::new);
        let place = places.into_iter().find(|place| place.is_dir()).context("a folder")?;
        let folder = TempDir::with_prefix_in("xdp-lb-agent-", place)?;
        let trust = Trust::new()?;
        let shown = trust.client_ca.issue("controller", Kind::Octavia)?;
        let heard = host.netns.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 5555)))?;
        heard.set_read_timeout(Some(PATIENCE))?;
        let told = UnixDatagram::bind(folder.path().join("systemd"))?;
        told.set_read_timeout(Some(PATIENCE))?;
        let link = host.netns.run("ip", &["-j", "link", "show", options.nic])?;
        let link: Value = serde_json::from_str(&link)?;
        let mac = link[0]["address"].as_str().context("a MAC")?.to_owned();
        let (heartbeats, process) = (heard, None);
        Ok(Self { id, lab, host, mac, folder, trust, shown, heartbeats, told, process, options })
    }

    pub fn write_certificates(&self) -> Result<()> {
        let server = self.trust.server_ca.issue(&self.id, Kind::Octavia)?;
        fs::write(self.folder().join("server.pem"), server.pem()?)?;
        Ok(fs::write(self.folder().join("client_ca.pem"), self.trust.client_ca.pem()?)?)
    }

    pub fn write_config(&self) -> Result<()> {
        let folder = self.folder().display();
        let (id, topology) = (&self.id, self.options.topology);
        let text = format!(
            "[DEFAULT]\n[haproxy_amphora]\nbase_path = {folder}/octavia\n\
             base_cert_dir = {folder}/octavia/certs\nbind_host = 127.0.0.1\nbind_port = {PORT}\n\
             [health_manager]\ncontroller_ip_port_list = 127.0.0.1:5555\nheartbeat_interval = 1\n\
             heartbeat_key = {KEY}\n[amphora_agent]\nagent_server_cert = {folder}/server.pem\n\
             agent_server_ca = {folder}/client_ca.pem\namphora_id = {id}\n[controller_worker]\n\
             loadbalancer_topology = {topology}\n"
        );
        Ok(fs::write(self.folder().join("amphora-agent.conf"), text)?)
    }

    /// Starts it, for the first time or again, and waits until it says that it is ready.
    pub fn run(&mut self) -> Result<()> {
        self.spawn()?;
        self.until_ready()
    }

    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder().join("log"))?;
        let mut words: Vec<&OsStr> = Vec::new();
        let mounts = [(!self.options.bpf, WITHOUT_BPF), (self.options.log, WITH_LOG)];
        let mounts = mounts.into_iter().filter(|(wanted, _)| *wanted);
        let script: String = mounts.map(|(_, script)| script).chain([THEN]).collect();
        if script != THEN {
            // Mounts of its own, but for the names of namespaces, which are shared.
            let own = ["unshare", "--mount", "--propagation", "unchanged"];
            words.extend(own.into_iter().chain(["sh", "-c", &script, "sh"]).map(OsStr::new));
        }
        if let Some(set) = &self.options.bounding_set {
            let privileges = ["setpriv", "--no-new-privs", "--bounding-set", set];
            words.extend(privileges.map(OsStr::new));
        }
        words.push(program().as_os_str());
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["agent", "--namespace", &self.namespace(), "--config"])
            .arg(self.folder().join("amphora-agent.conf"))
            .env_remove("NOTIFY_SOCKET")
            .env("RUST_LOG", "info")
            .env("LOG_FOLDER", self.folder().join("rsyslog"))
            .stdin(Stdio::null())
            .stderr(log);
        if self.options.systemd {
            command.env("NOTIFY_SOCKET", self.folder().join("systemd"));
        }
        self.process = Some(self.host.netns.spawn(&mut command)?);
        Ok(())
    }

    pub fn until_ready(&self) -> Result<()> {
        if !self.options.systemd {
            return self.until_answering();
        }
        let mut datagram = [0; 256];
        loop {
            let length = self.told.recv(&mut datagram).with_context(|| self.log())?;
            if String::from_utf8_lossy(&datagram[..length]).contains("READY=1") {
                return Ok(());
            }
        }
    }

    fn until_answering(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.ask("GET", "/", b"") {
            ensure!(Instant::now() < end, "{error}\n{}", self.log());
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Ends it as systemd would.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it runs")?;
        process.signal(Signal::SIGTERM)?;
        let status = process.child.wait()?;
        ensure!(status.success(), "{status}: {}", self.log());
        Ok(())
    }

    /// Ends it without a chance to do anything about it.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// What it has in memory for itself, and with the files that it has mapped, in KiB.
    pub fn resident_kib(&self) -> Result<[u64; 2]> {
        let pid = self.pid().context("it runs")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let read = |field: &str| -> Result<u64> {
            let row = status.lines().find_map(|line| line.strip_prefix(field));
            let size = row.and_then(|it| it.trim().strip_suffix(" kB")).context("a size")?;
            Ok(size.trim().parse()?)
        };
        Ok([read("RssAnon:")?, read("VmRSS:")?])
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Octavia's base path.
    pub fn base(&self) -> PathBuf {
        self.folder().join("octavia")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Name of the namespace of the load balancer.
    pub fn namespace(&self) -> String {
        format!("{}-lb", self.id)
    }

    /// The namespace of the load balancer, once the agent has made it.
    pub fn inside(&self) -> Result<Netns> {
        Ok(Netns::open(self.namespace())?)
    }

    /// What the controller would see.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Response> {
        let kind = match body.first() {
            Some(b'{' | b'[') => "Content-Type: application/json\r\n",
            _ => "",
        };
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\n{kind}Content-Length: {length}\r\n\r\n"
        );
        self.host.netns.enter(|| {
            let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut stream = self.trust.connect(stream, &self.id, Some(&self.shown))?;
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
            response(stream)
        })
    }

    /// A request that must be answered with this status.
    pub fn must(&self, status: u16, method: &str, path: &str, body: &[u8]) -> Result<Value> {
        let answer = self.ask(method, path, body)?;
        ensure!(
            answer.status == status,
            "{method} {path}: {} {}, not {status}\n{}",
            answer.status,
            answer.body,
            self.log()
        );
        Ok(serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    /// Plugs the VIPs of the lab, both families, with the machine's first address as its own.
    pub fn plug_vip(&self, more: Value) -> Result<Value> {
        use crate::lab::Family::{V4, V6};
        let [v4, v6] = [V4, V6].map(|family| self.lab.vip(family, 0).ip());
        let router = &self.lab.router;
        let mut body = json!({
            "subnet_cidr": "192.0.2.0/24", "gateway": router.v4, "mac_address": self.mac,
            "vrrp_ip": self.host.v4, "mtu": 1500, "host_routes": [],
            "additional_vips": [{
                "ip_address": v6, "subnet_cidr": "2001:db8:1::/64", "gateway": router.v6,
                "host_routes": [],
            }],
            "is_sriov": false,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.must(202, "POST", &format!("/1.0/plug/vip/{v4}"), body.to_string().as_bytes())
    }

    /// Uploads an HAProxy configuration and has it take effect.
    pub fn serve(&self, load_balancer: &str, config: &str) -> Result<()> {
        let upload = format!("/1.0/loadbalancer/{}/{load_balancer}/haproxy", self.id);
        self.must(202, "PUT", &upload, config.as_bytes())?;
        self.reload(load_balancer)
    }

    /// Uploads the keepalived configuration of a UDP or SCTP listener and has it take effect.
    pub fn serve_lvs(&self, listener: &str, config: &str) -> Result<()> {
        let upload = format!("/1.0/listeners/{}/{listener}/udp_listener", self.id);
        self.must(200, "PUT", &upload, config.as_bytes())?;
        self.reload(listener)
    }

    pub fn reload(&self, object: &str) -> Result<()> {
        self.must(202, "PUT", &format!("/1.0/loadbalancer/{object}/reload"), b"").map(drop)
    }

    /// The next heartbeat that comes from now on.
    pub fn heartbeat(&self) -> Result<Value> {
        self.heartbeats.set_nonblocking(true)?;
        while self.heartbeats.recv(&mut [0; 65_536]).is_ok() {}
        self.heartbeats.set_nonblocking(false)?;
        self.next_heartbeat()
    }

    pub fn next_heartbeat(&self) -> Result<Value> {
        let json = envelope::unwrap(&self.next_datagram()?, KEY.as_bytes())?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// A heartbeat as it travels.
    pub fn next_datagram(&self) -> Result<Vec<u8>> {
        let mut datagram = vec![0; 65_536];
        let length = self.heartbeats.recv(&mut datagram).with_context(|| self.log())?;
        datagram.truncate(length);
        Ok(datagram)
    }

    /// Waits for a heartbeat that is as it must be.
    pub fn heartbeat_when(&self, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let heartbeat = self.heartbeat()?;
            if good(&heartbeat) {
                return Ok(heartbeat);
            }
            ensure!(Instant::now() < end, "no heartbeat has {what}: {heartbeat}\n{}", self.log());
        }
    }

    /// A stored configuration, as it was uploaded.
    pub fn stored_lvs(&self, listener: &str) -> Result<String> {
        let answer = self.ask("GET", &format!("/1.0/listeners/{listener}/udp_listener"), b"")?;
        ensure!(answer.status == 200, "{}", answer.body);
        Ok(answer.body)
    }

    /// Waits for a status that is as it must be.
    pub fn status_when(&self, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status()?;
            if good(&status) {
                return Ok(status);
            }
            ensure!(Instant::now() < end, "no status has {what}: {status}\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// `xdp-lb status --json` of it.
    pub fn status(&self) -> Result<Value> {
        let output = Command::new(program())
            .args(["status", "--json", "--name", &self.id])
            .stderr(Stdio::inherit())
            .output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Process ids of what runs in the namespace of the load balancer.
    pub fn processes(&self, program: &str) -> Result<Vec<i32>> {
        let inside = self.inside()?;
        Ok(inside.processes(program))
    }

    /// As a machine that is switched off and on: processes, pins and namespaces are gone, what is on
    /// disk and the network interface, back where Nova put it, are not.
    pub fn reboot(&mut self) -> Result<()> {
        self.kill9();
        let inside = self.inside()?;
        inside.run("ip", &["link", "set", "eth1", "down"])?;
        let host = &self.host.netns.name;
        inside.run("ip", &["link", "set", "eth1", "name", self.options.nic, "netns", host])?;
        self.remove();
        Ok(())
    }

    fn remove(&mut self) {
        self.process = None;
        if let Err(error) = crate::lab::remove_namespace(&self.namespace()) {
            eprintln!("{}: {error}", self.namespace());
        }
        let detached = Command::new(program()).args(["detach", "--name", &self.id]).output();
        if let Err(error) = detached {
            eprintln!("{}: {error}", self.id);
        }
        let _ = fs::remove_dir_all(Path::new("/run/xdp-lb").join(&self.id));
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.remove();
    }
}
