//! The command line.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent_api::config::Secret;
use agent_api::{Name, Paths};
use anyhow::{Context, Result};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde::Serialize;
use tracing_subscriber::EnvFilter;
use xdp_lb::agent::{Setup, agent};
use xdp_lb::capture::{self, capture};
use xdp_lb::explain::{self, explain, running};
use xdp_lb::heartbeat::{self, decode, listen, relay};
use xdp_lb::kernel::{FrameLog, Pins, Sizes, SourcePorts};
use xdp_lb::observe::Found;
use xdp_lb::observe::flows::flows;
use xdp_lb::observe::stats::stats;
use xdp_lb::observe::status::status;
use xdp_lb::observe::top::{self, top};
use xdp_lb::run::{Options, run};
use xdp_lb::trace::{self, Flags, Protocol, Source, Tuple, trace};
use xdp_lb::{check, doctor, lock, manual, namespace};
use xdp_lb_ebpf::capture::SNAP_MAX;

/// A full-NAT load balancer in XDP.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load balance as a file says, until SIGTERM; SIGHUP, or an edit, reads the file again.
    ///
    /// The program, its links and its maps stay when it ends, however it ends: packets go on, and
    /// the next run takes over.
    Run(Run),
    /// Be the amphora of an Octavia load balancer, until SIGTERM: what it told to do is in its base path.
    ///
    /// Interfaces, the program, HAProxy and keepalived stay when it ends, however it ends.
    Agent(Agent),
    /// Tell whether what is served is well, for VRRP: exits with 1 and says what is ill.
    Check(Which),
    /// Show interfaces, listeners and members, what is wrong, and why frames were not forwarded.
    Status(Look),
    /// Show packets, bytes and connections per listener and member.
    Stats(Look),
    /// Show the connections.
    Flows(Flows),
    /// Watch rates: of listeners, of the busiest members, of what is not forwarded.
    Top(Top),
    /// Tell what becomes of a frame, decision by decision, by the live maps; nothing is changed.
    Trace(Trace),
    /// Write frames as they come and as they leave, with their verdict, as pcapng: what `tcpdump` cannot
    /// see.
    Capture(Capture),
    /// Show who serves each listener, pool and member, why, and what would change it.
    ///
    /// Of the load balancer that has been started here; with files, what is understood of the
    /// configurations that Octavia uploads. Exits with 2 where a file is refused, and names the line.
    Explain(Explain),
    /// Show what of this machine is not as it should be, and what mends it.
    ///
    /// Driver, queues, offloads, MTU, kernel, ports, neighbours, certificates, clock, health managers and
    /// more. Changes nothing, and needs no daemon; each health manager is sent an empty datagram, which it
    /// drops. Exits with 1 where something fails.
    Doctor(Doctor),
    /// Look at the heartbeats of amphorae, or open sealed ones for a health manager.
    #[command(subcommand)]
    Heartbeat(Heartbeat),
    /// Take the program off its interfaces and drop everything, the flows too.
    Detach(Which),
    /// Print the script by which a shell completes these commands; packages have it in its place.
    Completions(Completions),
    /// Write pages for man(1), one for each command; packages have them in their place.
    Man(Man),
}

#[derive(Debug, Subcommand)]
enum Heartbeat {
    /// Take apart the heartbeats of a capture (pcap, pcapng), or one datagram.
    Decode(Decode),
    /// Watch what amphorae send here, as a table; on a pipe, a line for each.
    Listen(Listen),
    /// Stand before a health manager: open sealed heartbeats, and hand them on as Octavia expects them.
    ///
    /// What is not authentic, or came already, is dropped and counted. Runs until SIGTERM.
    Relay(Relay),
}

/// Where the key is.
#[derive(Debug, Args)]
struct Key {
    /// File with `heartbeat_key` in `[health_manager]`: octavia.conf of the controller, or an amphora's.
    #[arg(long, value_name = "FILE", default_value = "/etc/octavia/octavia.conf")]
    config: PathBuf,
}

impl Key {
    fn read(&self) -> Result<Secret, heartbeat::Error> {
        heartbeat::key(&self.config)
    }
}

#[derive(Debug, Args)]
struct Decode {
    /// `-` for the standard input.
    file: PathBuf,
    #[command(flatten)]
    key: Key,
    /// Of a capture, the datagrams to this port.
    #[arg(long, default_value_t = heartbeat::PORT)]
    port: u16,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Listen {
    /// Address and port.
    #[arg(long, default_value = "[::]:5555")]
    bind: SocketAddr,
    #[command(flatten)]
    key: Key,
    /// For programs: a line for each.
    #[arg(long)]
    json: bool,
    /// End after so many.
    #[arg(long)]
    count: Option<u64>,
}

#[derive(Debug, Args)]
struct Relay {
    /// Address and port where amphorae send theirs.
    #[arg(long, default_value = "[::]:5556")]
    bind: SocketAddr,
    /// Address and port of the health manager.
    #[arg(long, default_value = "127.0.0.1:5555")]
    to: SocketAddr,
    #[command(flatten)]
    key: Key,
    /// What has come already, so that it is refused after a restart too.
    #[arg(long, value_name = "FILE", default_value = "/var/lib/xdp-lb/heartbeat-relay.json")]
    state: PathBuf,
    /// An amphora whose clock went back: its next start is taken. May be given again.
    #[arg(long, value_name = "AMPHORA")]
    forget: Vec<String>,
}

#[derive(Debug, Args)]
struct Run {
    /// The wanted state; lb.example.toml explains it.
    file: PathBuf,
    /// Network namespace, by name or path.
    #[arg(long)]
    netns: Option<String>,
    /// Interface to load balance on; may be given again. The first is that of the VIPs.
    #[arg(long = "interface", value_name = "INTERFACE", default_value = "eth1")]
    interfaces: Vec<String>,
    /// Slots of the IPv4 flow table, a power of two; a connection takes two [default: 1048576].
    #[arg(long, value_name = "SLOTS")]
    flows4: Option<u32>,
    /// Slots of the IPv6 flow table, a power of two [default: 262144].
    #[arg(long, value_name = "SLOTS")]
    flows6: Option<u32>,
    /// Clients that persistence remembers [default: 65536].
    #[arg(long, value_name = "CLIENTS")]
    sticky: Option<u32>,
    /// Source ports towards members.
    #[arg(long, value_name = "LOW-HIGH", default_value = "1024-60999")]
    snat_ports: SourcePorts,
    /// Do not keep local sockets off the source ports (net.ipv4.ip_local_reserved_ports).
    #[arg(long)]
    no_reserve: bool,
    #[command(flatten)]
    tell: Tell,
}

/// What the packet path writes into the log, beside what the daemon does.
#[derive(Debug, Args)]
struct Tell {
    /// Log frames: busy interfaces lose some. Off, it costs nothing.
    #[arg(long, value_name = "LEVEL")]
    frame_log: Option<FrameLog>,
}

#[derive(Debug, Args)]
struct Agent {
    /// Octavia's configuration of the agent; waited for.
    #[arg(
        long,
        // As the stock agent has it, and whoever starts it.
        alias = "config-file",
        value_name = "FILE",
        default_value = "/etc/octavia/amphora-agent.conf"
    )]
    config: PathBuf,
    /// Network namespace of the load balancer; made when it is needed.
    #[arg(long, default_value = "amphora-haproxy")]
    namespace: String,
    #[command(flatten)]
    tell: Tell,
}

#[derive(Debug, Args)]
struct Look {
    #[command(flatten)]
    which: Which,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Flows {
    #[command(flatten)]
    look: Look,
    /// Show so many at most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
struct Top {
    #[command(flatten)]
    look: Look,
    /// Seconds between two looks.
    #[arg(long, default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// End after so many.
    #[arg(long)]
    count: Option<u64>,
    /// Show so many members at most.
    #[arg(long, default_value_t = 20)]
    members: usize,
}

#[derive(Debug, Args)]
struct Trace {
    /// Of a frame that opens a connection; or give --file.
    #[arg(required_unless_present = "file", conflicts_with = "file", requires = "vip")]
    protocol: Option<Protocol>,
    /// Address and port that it comes from.
    client: Option<SocketAddr>,
    /// Address and port that it goes to.
    vip: Option<SocketAddr>,
    /// TCP flags: of F, S, R, P, A and U.
    #[arg(long, default_value = "S")]
    flags: Flags,
    /// The frames of a capture instead, pcap or pcapng; `-` for the standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// That they come in by [default: as the capture says, else the first].
    #[arg(long)]
    interface: Option<String>,
    /// Take them for sent to our MAC, wherever they were captured.
    #[arg(long)]
    readdress: bool,
    /// So many frames at most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Have the kernel's program do it too, and compare: it counts, and a flow that it opens is taken
    /// away again.
    #[arg(long)]
    run: bool,
    /// Network namespace of the load balancer, by name or path [default: the daemon's].
    #[arg(long)]
    netns: Option<String>,
    #[command(flatten)]
    look: Look,
}

#[derive(Debug, Args)]
struct Capture {
    #[command(flatten)]
    which: Which,
    /// Where to; `-` for the standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// End after so many frames.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// End after so many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Bytes to keep of a frame.
    #[arg(long, value_name = "BYTES", default_value_t = SNAP_MAX)]
    #[arg(value_parser = clap::value_parser!(u32).range(14..=i64::from(SNAP_MAX)))]
    snap: u32,
    /// Frames from this client or to it, and no others.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Frames of this listener's connections, and no others.
    #[arg(long, value_name = "ID")]
    listener: Option<String>,
}

#[derive(Debug, Args)]
struct Explain {
    /// Uploaded originals of one load balancer: haproxy.cfg, octavia-keepalivedlvs-*.conf.
    #[arg(conflicts_with = "name")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Octavia's `base_path`: files that are named in a configuration must be there.
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/octavia")]
    base_path: PathBuf,
    /// Octavia's `base_cert_dir` [default: certs in the base path].
    #[arg(long, value_name = "FOLDER")]
    base_cert_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Doctor {
    #[command(flatten)]
    which: Which,
    /// Octavia's configuration of the agent; where there is none, this is no amphora.
    #[arg(long, value_name = "FILE", default_value = "/etc/octavia/amphora-agent.conf")]
    config: PathBuf,
    /// Network namespace of the load balancer, by name or path [default: amphora-haproxy in an amphora,
    /// else the daemon's].
    #[arg(long)]
    netns: Option<String>,
    /// Interface to look at; may be given again [default: those of the load balancer, or all].
    #[arg(long = "interface", value_name = "INTERFACE")]
    interfaces: Vec<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Completions {
    shell: Shell,
}

#[derive(Debug, Args)]
struct Man {
    /// Where to; made if it is not there.
    folder: PathBuf,
}

/// Which load balancer.
#[derive(Debug, Args)]
struct Which {
    /// Its name, as its file says it; of an amphora its id [default: the only one there is].
    #[arg(long, value_parser = name)]
    name: Option<Name>,
}

impl Which {
    fn name(&self) -> Result<Name> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        match &lock::names()?[..] {
            [] => anyhow::bail!("no load balancer has been started here"),
            [only] => Ok(only.clone()),
            several => {
                let names: Vec<_> = several.iter().map(Name::to_string).collect();
                anyhow::bail!("there are several: --name is one of {}", names.join(", "))
            }
        }
    }
}

fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xdp-lb: {error:#}");
            match error.downcast_ref() {
                Some(explain::Error::Read { .. }) | None => ExitCode::FAILURE,
                Some(_) => ExitCode::from(2),
            }
        }
    }
}

fn start(command: Command) -> Result<()> {
    match command {
        Command::Run(options) => daemon(options),
        Command::Agent(options) => amphora(options),
        Command::Check(which) => Ok(check::check(&which.name()?)?),
        Command::Status(look) => show(&status(&look.found()?)?, look.json),
        Command::Stats(look) => {
            let found = look.found()?;
            show(&stats(found.maps()?, &found.record)?, look.json)
        }
        Command::Flows(Flows { look, limit }) => show(&flows(&look.found()?, limit)?, look.json),
        Command::Top(Top { look, interval, count, members }) => {
            let options = top::Options { interval, count, members_max: members, json: look.json };
            let name = look.which.name()?;
            match top(&options, &mut || Found::open(&name)) {
                // `| head` has seen enough.
                Err(top::Error::Io(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                done => Ok(done?),
            }
        }
        Command::Trace(options) => traced(options),
        Command::Capture(options) => captured(options),
        Command::Explain(Explain { files, which, json, .. }) if files.is_empty() => {
            let name = which.name()?;
            show(&running(&name, &Found::open(&name)?), json)
        }
        Command::Explain(Explain { files, json, base_path, base_cert_dir, .. }) => {
            let certs = base_cert_dir.unwrap_or_else(|| base_path.join("certs"));
            show(&explain(&files, &Paths::new(base_path, certs))?, json)
        }
        Command::Doctor(Doctor { which, config, netns, interfaces, json }) => {
            let options = doctor::Options { config, name: which.name, netns, interfaces };
            let report = doctor::examine(&doctor::Facts::look(&options));
            show(&report, json)?;
            Ok(report.verdict()?)
        }
        Command::Heartbeat(command) => heartbeats(command),
        Command::Detach(which) => detach(&which.name()?),
        Command::Completions(Completions { shell }) => {
            Ok(std::io::stdout().write_all(&manual::completions(shell, Cli::command()))?)
        }
        Command::Man(Man { folder }) => std::fs::create_dir_all(&folder)
            .and_then(|()| manual::pages(Cli::command(), &folder))
            .with_context(|| folder.display().to_string()),
    }
}

fn traced(options: Trace) -> Result<()> {
    let Trace { protocol, client, vip, flags, file, interface, readdress, limit, run, .. } =
        options;
    let source = match (protocol, client, vip, file) {
        (Some(protocol), Some(client), Some(vip), _) => {
            Source::Tuple(Tuple { protocol, client, vip, flags })
        }
        (_, _, _, Some(file)) => Source::File(file),
        _ => anyhow::bail!("a protocol, a client and a VIP are needed, or --file"),
    };
    if let Some(namespace) = &options.netns {
        namespace::move_into(namespace)?;
    }
    let asked = trace::Options { source, interface, readdress, limit, run };
    let Look { which, json } = options.look;
    show(&trace(&which.name()?, &asked, options.netns.is_some())?, json)
}

fn captured(options: Capture) -> Result<()> {
    log_to_stderr();
    let Capture { which, file, count, seconds, snap, client, listener } = options;
    let asked = capture::Options { file, count, seconds, snap, client, listener };
    let begun = || eprintln!("xdp-lb: capturing {count} frames at most, {seconds} seconds at most");
    let capture::Captured { frames, lost, replaced } = capture(&which.name()?, &asked, begun)?;
    eprintln!("xdp-lb: {frames} frames captured, {lost} lost");
    anyhow::ensure!(!replaced, "the load balancer runs another program now: begin anew");
    Ok(())
}

fn heartbeats(command: Heartbeat) -> Result<()> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match command {
        Heartbeat::Decode(Decode { file, key, port, json }) => {
            show(&decode::decode(&file, port, &key.read()?)?, json)
        }
        Heartbeat::Listen(Listen { bind, key, json, count }) => {
            let (options, key) = (listen::Options { bind, json, count }, key.read()?);
            Ok(runtime()?.block_on(listen::listen(options, &key))?)
        }
        Heartbeat::Relay(Relay { bind, to, key, state, forget }) => {
            log_to_stderr();
            let (options, key) = (relay::Options { bind, to, state, forget }, key.read()?);
            Ok(runtime()?.block_on(relay::relay(options, &key))?)
        }
    }
}

impl Look {
    fn found(&self) -> Result<Found> {
        Ok(Found::open(&self.which.name()?)?)
    }
}

fn show<T: Display + Serialize>(shown: &T, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut out, shown)
            .map_err(Into::into)
            .and_then(|()| writeln!(out))
    } else {
        write!(out, "{shown}")
    };
    match written {
        // `| head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn amphora(Agent { config, namespace, tell }: Agent) -> Result<()> {
    log_to_stderr();
    let program = std::env::current_exe().context("the path of this program")?;
    // Two, so that heartbeats leave while an upload waits for the disk.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(agent(config, Setup { namespace, program, frame_log: tell.frame_log }))?)
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // What the program tells of frames was decided when it was loaded.
    let filter = match "xdp_lb_program=trace".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

fn daemon(options: Run) -> Result<()> {
    log_to_stderr();
    // Before any thread is started: all of them are to be there.
    if let Some(namespace) = &options.netns {
        namespace::move_into(namespace)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Options {
        file: options.file,
        interfaces: options.interfaces,
        sizes: Sizes { flows4: options.flows4, flows6: options.flows6, sticky: options.sticky },
        source_ports: options.snat_ports,
        reserve: !options.no_reserve,
        frame_log: options.tell.frame_log,
    }))?;
    Ok(())
}

fn detach(name: &Name) -> Result<()> {
    let pins = Pins::of(name);
    anyhow::ensure!(pins.exist(), "nothing is pinned in {}", pins.directory().display());
    let _lock = lock::take(name).context("stop it first")?;
    pins.remove().with_context(|| pins.directory().display().to_string())?;
    lock::forget(name)?;
    Ok(())
}

fn seconds(text: &str) -> Result<Duration> {
    const LONGEST: f64 = 3600.0;
    let seconds: f64 = text.parse()?;
    anyhow::ensure!((0.1..=LONGEST).contains(&seconds), "0.1 to {LONGEST} seconds");
    Ok(Duration::from_secs_f64(seconds))
}

fn name(text: &str) -> Result<Name, agent_api::BadName> {
    text.to_owned().try_into()
}
