//! The load balancer: `xdp-lb run` as a child process, most often in the amphora of a lab.

use std::env;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
pub use serde_json::Value;

use crate::lab::{Family, Host, Lab, Netns, Process, is_abandoned};

/// How long the balancer may take for one step. The verifier's walk alone is seconds when many
/// tests share few CPUs.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Where the daemon writes down what it knows.
const RUN: &str = "/run/xdp-lb";
const PINS: &str = "/sys/fs/bpf/xdp-lb";

/// A listener on the VIPs of both families, and a pool of the same name.
#[derive(Clone)]
pub struct Listener<'a> {
    pub id: &'a str,
    pub protocol: &'a str,
    pub port: u16,
    /// Members on port 80 of both addresses, and their weights.
    pub members: Vec<(&'a Host, u16)>,
    pub algorithm: &'a str,
    /// More lines of its table, of its pool's and of each member's: `connection_limit = 5`.
    pub listener: &'a str,
    pub pool: &'a str,
    pub member: &'a str,
}

impl<'a> Listener<'a> {
    /// Takes turns among members of weight 1.
    pub fn new(
        id: &'a str,
        protocol: &'a str,
        port: u16,
        members: impl IntoIterator<Item = &'a Host>,
    ) -> Self {
        let members = members.into_iter().map(|host| (host, 1)).collect();
        Self {
            id,
            protocol,
            port,
            members,
            algorithm: "round_robin",
            listener: "",
            pool: "",
            member: "",
        }
    }

    fn text(&self, [v4, v6]: [IpAddr; 2]) -> String {
        let Self { id, protocol, port, members, algorithm, listener, pool, member } = self;
        let mut text = format!(
            "[[listener]]\nid = \"{id}\"\nvips = [\"{v4}\", \"{v6}\"]\nport = {port}\n\
             protocol = \"{protocol}\"\npool = \"{id}\"\n{listener}\n\
             [[pool]]\nid = \"{id}\"\nalgorithm = \"{algorithm}\"\n{pool}\n"
        );
        for (host, weight) in members {
            for (family, suffix) in FAMILIES {
                let (name, ip) = (&host.name, host.addr(family, 0).ip());
                // Writing into a string does not fail.
                let _ = write!(
                    text,
                    "[[pool.member]]\nid = \"{id}-{name}-{suffix}\"\naddress = \"{ip}\"\n\
                     port = 80\nweight = {weight}\n{member}\n"
                );
            }
        }
        text
    }
}

/// What ends the ids of members in documents.
const FAMILIES: [(Family, &str); 2] = [(Family::V4, "v4"), (Family::V6, "v6")];

/// Where a load balancer runs.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub netns: &'a Netns,
    /// Of its listeners: IPv4, IPv6.
    pub vips: [IpAddr; 2],
}

/// Named after its lab, so that many run at once. Dropped, it is gone with everything it pinned.
pub struct Balancer<'a> {
    pub name: String,
    place: Place<'a>,
    options: Vec<String>,
    /// Of the document, the log and the socket the daemon tells systemd by.
    directory: PathBuf,
    told: UnixDatagram,
    process: Option<Process>,
}

impl<'a> Balancer<'a> {
    /// Starts it and waits until all its members are up.
    ///
    /// # Panics
    ///
    /// When it does not start, as all of this when something does not go as it must.
    pub fn start(lab: &'a Lab, listeners: &[Listener<'_>], options: &[&str]) -> Self {
        remove_abandoned();
        let vips = FAMILIES.map(|(family, _)| lab.vip(family, 0).ip());
        let place = Place { netns: &lab.amphora.netns, vips };
        Self::start_at(place, lab.prefix().trim_end_matches('-'), listeners, options)
    }

    /// The same elsewhere than in a lab.
    ///
    /// # Panics
    ///
    /// As [`Balancer::start`].
    pub fn start_at(
        place: Place<'a>,
        name: &str,
        listeners: &[Listener<'_>],
        options: &[&str],
    ) -> Self {
        let name = name.to_owned();
        let directory = env::temp_dir().join(format!("xdp-lb-{name}"));
        fs::create_dir_all(&directory).expect("a directory for the document");
        let socket = directory.join("systemd");
        let told = UnixDatagram::bind(&socket).expect("a socket in place of systemd's");
        told.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut balancer = Self { name, place, options, directory, told, process: None };
        balancer.write(listeners);
        balancer.run();
        balancer.until_up();
        balancer
    }

    /// Starts it, for the first time or again, and waits until it says that it is ready.
    pub fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.directory.join("log"));
        let mut command = Command::new(program());
        command.arg("run").arg(self.directory.join("lb.toml")).args(&self.options);
        command.env("NOTIFY_SOCKET", self.directory.join("systemd"));
        command.stdin(Stdio::null()).stderr(log.expect("a log"));
        let process = self.place.netns.spawn(&mut command);
        self.process = Some(process.expect("xdp-lb starts"));
        self.until_ready();
    }

    /// Puts another document in place of the one in force, and waits until it is.
    pub fn reload(&mut self, listeners: &[Listener<'_>]) {
        self.write(listeners);
        self.until_ready();
    }

    pub fn kill9(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Has it stop as systemd would.
    pub fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").child.id()
    }

    fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("it runs");
        process.signal(signal).expect("a signal");
        process.child.wait().expect("it ends");
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).expect("a log")
    }

    pub fn status(&self) -> Value {
        self.look(&["status"])
    }

    pub fn stats(&self) -> Value {
        self.look(&["stats"])
    }

    pub fn flows(&self) -> Value {
        self.look(&["flows", "--limit", "1000000"])
    }

    /// What goes through in `seconds`.
    pub fn top(&self, seconds: f64) -> Value {
        self.look(&["top", "--count", "1", "--interval", &seconds.to_string()])
    }

    /// What a command says of it to a program.
    pub fn look(&self, arguments: &[&str]) -> Value {
        let output = command(arguments[0], &self.name).args(&arguments[1..]).arg("--json").output();
        let output = output.expect("xdp-lb runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "xdp-lb {}: {said}", arguments.join(" "));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// A command about it, to be started.
    pub fn command(&self, what: &str) -> Command {
        command(what, &self.name)
    }

    /// A number of a listener in `stats --json`: `/connections`, `/moved/opened`.
    pub fn listener(&self, id: &str, pointer: &str) -> u64 {
        let stats = self.stats();
        let listeners = stats["listeners"].as_array().into_iter().flatten();
        let of_listener = listeners.filter(|listener| listener["id"] == id);
        of_listener.filter_map(|listener| listener.pointer(pointer)?.as_u64()).sum()
    }

    /// Returns when no member is down.
    pub fn until_up(&self) {
        self.until_record("up", |record| {
            let mut backends = record["backends"].as_array().into_iter().flatten();
            backends.all(|backend| backend["state"] != "down")
        });
    }

    /// Waits for the daemon to write down something of which `is` holds.
    pub fn until_record(&self, what: &str, is: impl Fn(&Value) -> bool) {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("inotify");
        inotify.add_watch(RUN, AddWatchFlags::IN_MOVED_TO).expect("the daemon has made it");
        let path = Path::new(RUN).join(format!("{}.json", self.name));
        let end = Instant::now() + PATIENCE;
        loop {
            let record = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let record: Value = record.unwrap_or_default();
            if is(&record) {
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut waiting = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let events = poll(&mut waiting, timeout).expect("poll");
            assert!(events > 0, "not {what}: {record:#}");
            inotify.read_events().expect("events");
        }
    }

    /// Waits for `READY=1`, which follows a start and each reload.
    fn until_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        let mut message = [0; 256];
        loop {
            match self.told.recv(&mut message) {
                Ok(length) => {
                    if message[..length].starts_with(b"READY=1") {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("waiting for the daemon: {error}"),
            }
            let ended = self.process.as_mut().map(|process| process.child.try_wait());
            if let Some(Ok(Some(status))) = ended {
                panic!("xdp-lb ended: {status}");
            }
            assert!(Instant::now() < end, "xdp-lb does not become ready");
        }
    }

    /// In one step, as good editors do: the daemon reads it once.
    fn write(&self, listeners: &[Listener<'_>]) {
        let tables = listeners.iter().map(|listener| listener.text(self.place.vips));
        let text = format!("name = \"{}\"\n{}", self.name, tables.collect::<String>());
        let next = self.directory.join("next");
        let written = fs::write(&next, text);
        written
            .and_then(|()| fs::rename(next, self.directory.join("lb.toml")))
            .expect("a document");
    }
}

impl Drop for Balancer<'_> {
    fn drop(&mut self) {
        self.process = None;
        if thread::panicking() {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            eprintln!("xdp-lb wrote:\n{log}");
        }
        if let Err(error) = detach(&self.name) {
            eprintln!("{} is not all gone: {error}", self.name);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Looks every now and then, until there is something.
///
/// # Panics
///
/// When there is nothing for too long.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(POLL);
    }
}

/// A command about one load balancer.
fn command(what: &str, name: &str) -> Command {
    let mut command = Command::new(program());
    command.args([what, "--name", name]);
    command
}

fn detach(name: &str) -> io::Result<()> {
    match command("detach", name).output()? {
        output if output.status.success() => Ok(()),
        output => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Those of test processes that were killed: their maps hold memory.
fn remove_abandoned() {
    let pinned = fs::read_dir(PINS).into_iter().flatten().flatten();
    let names = pinned.filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| is_abandoned(&format!("{name}-"))) {
        // Another process may be about the same.
        let _ = detach(&name);
    }
}

/// `xdp-lb`, for a program that is built together with it: `XDP_LB`, or beside the program.
pub fn beside() -> io::Result<PathBuf> {
    let program = match env::var_os("XDP_LB") {
        Some(program) => PathBuf::from(program),
        None => env::current_exe()?.with_file_name("xdp-lb"),
    };
    fs::metadata(&program)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
    Ok(program)
}

/// The binary to test: `XDP_LB`, else the one cargo builds beside the binary that runs.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os("XDP_LB").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let own = env::current_exe().expect("a path");
    // target/debug/deps/netns_traffic-0123456789abcdef
    let [target, profile] =
        [3, 2].map(|up| own.ancestors().nth(up).expect("in a target directory"));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "xdp-lb", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
    assert!(built.success(), "xdp-lb does not build");
    profile.join("xdp-lb")
}
