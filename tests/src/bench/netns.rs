//! Connections through network namespaces, by way of four load balancers on the same wires.
//!
//! Client, servers and load balancer share the CPUs, so most of each figure is not the load
//! balancer's: what counts is how they differ. XDP is on the wire only while it is measured.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xdp_lb_tests::balancer::{Balancer, Listener};
use xdp_lb_tests::clients::{Connections, Outcome, download, http_get, requests};
use xdp_lb_tests::lab::{Family, Host, Lab, LabOptions, Process};
use xdp_lb_tests::servers::Server;

use crate::report::{Path, quantile};

const FAMILY: Family = Family::V4;
const MEMBERS: u8 = 3;
const MEMBER_PORT: u16 = 80;
const XDP_PORT: u16 = 80;
const HAPROXY_PORT: u16 = 81;
const NFTABLES_PORT: u16 = 82;
const CLIENTS: usize = 16;
const CELL: Duration = Duration::from_secs(1);
const BULK_BYTES: u64 = 64 << 20;
const READY: Duration = Duration::from_secs(10);

/// What one way was measured to do, by round.
struct Way {
    name: &'static str,
    to: SocketAddr,
    requests: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    connections: Vec<f64>,
    bulk: Vec<f64>,
    errors: usize,
}

pub fn run(rounds: u32) -> Result<Vec<Path>> {
    let lab = Lab::up(LabOptions { members: MEMBERS, ..LabOptions::default() })?;
    let serve = |member: &Host| Server::http(member, MEMBER_PORT);
    let _servers = lab.members.iter().map(serve).collect::<Result<Vec<_>, _>>()?;
    let _haproxy = haproxy(&lab)?;
    nftables(&lab)?;
    let member = lab.members.first().context("no member")?;
    let mut others = [
        Way::new("none: to a member", member.addr(FAMILY, MEMBER_PORT)),
        Way::new("nftables", lab.vip(FAMILY, NFTABLES_PORT)),
        Way::new("HAProxy, TCP mode", lab.vip(FAMILY, HAPROXY_PORT)),
    ];
    let mut ours = Way::new("xdp-lb", lab.vip(FAMILY, XDP_PORT));
    for round in 0..rounds {
        eprint!("\rbench: round {} of {rounds} through namespaces ", round + 1);
        for way in &mut others {
            way.measure(&lab)?;
        }
        let listener = Listener::new("web", "tcp", XDP_PORT, &lab.members);
        let _balancer = Balancer::start(&lab, &[listener], &[]);
        ours.measure(&lab)?;
    }
    eprintln!();
    Ok(others.iter().chain([&ours]).map(Way::path).collect())
}

impl Way {
    fn new(name: &'static str, to: SocketAddr) -> Self {
        let none = Vec::new;
        Self {
            name,
            to,
            requests: none(),
            p50_us: none(),
            p99_us: none(),
            connections: none(),
            bulk: none(),
            errors: 0,
        }
    }

    fn measure(&mut self, lab: &Lab) -> Result<()> {
        let to = self.to;
        let client = &lab.client.netns;
        client.enter(|| ready(to)).with_context(|| self.name)?;
        let (kept, took) = client.enter(|| many(to, Connections::Kept));
        self.requests.push(f64::from(kept.ok) / took.as_secs_f64());
        self.p50_us.push(kept.latency(0.5).as_secs_f64() * 1e6);
        self.p99_us.push(kept.latency(0.99).as_secs_f64() * 1e6);
        let (fresh, took) = client.enter(|| many(to, Connections::Fresh));
        self.connections.push(f64::from(fresh.ok) / took.as_secs_f64());
        let bulk = client.enter(|| download(to, BULK_BYTES)).with_context(|| self.name)?;
        self.bulk.push(BULK_BYTES as f64 * 8.0 / 1e9 / bulk.took.as_secs_f64());
        self.errors += kept.errors.len() + fresh.errors.len();
        Ok(())
    }

    fn path(&self) -> Path {
        let median = |values: &[f64]| quantile(values, 0.5);
        Path {
            name: self.name.to_owned(),
            requests_per_s: median(&self.requests),
            p50_us: median(&self.p50_us),
            p99_us: median(&self.p99_us),
            connections_per_s: median(&self.connections),
            bulk_gbit_per_s: median(&self.bulk),
            errors: self.errors,
        }
    }
}

fn many(to: SocketAddr, connections: Connections) -> (Outcome, Duration) {
    let began = Instant::now();
    let outcome = requests(to, connections, CLIENTS, |_| began.elapsed() < CELL);
    (outcome, began.elapsed())
}

fn ready(to: SocketAddr) -> Result<()> {
    let end = Instant::now() + READY;
    while let Err(error) = http_get(to, "/") {
        ensure!(Instant::now() < end, "{to} does not answer: {error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn haproxy(lab: &Lab) -> Result<Process> {
    let servers = lab
        .members
        .iter()
        .map(|member| format!("  server {} {}\n", member.name, member.addr(FAMILY, MEMBER_PORT)));
    let text = format!(
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  \
         timeout server 30s\nlisten web\n  bind {}\n  balance roundrobin\n{}",
        lab.vip(FAMILY, HAPROXY_PORT),
        servers.collect::<String>(),
    );
    let file = std::env::temp_dir().join(format!("{}haproxy.cfg", lab.prefix()));
    fs::write(&file, text)?;
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-f"]).arg(&file).stdin(Stdio::null());
    let haproxy = lab.amphora.netns.spawn(&mut haproxy)?;
    lab.client.netns.enter(|| ready(lab.vip(FAMILY, HAPROXY_PORT))).context("HAProxy")?;
    fs::remove_file(&file)?;
    Ok(haproxy)
}

/// The kernel's own full NAT, with members in turn.
fn nftables(lab: &Lab) -> Result<()> {
    let vip = lab.vip(FAMILY, NFTABLES_PORT);
    let member =
        |(index, member): (usize, &Host)| format!("{index} : {} . {MEMBER_PORT}", member.v4);
    let members: Vec<_> = lab.members.iter().enumerate().map(member).collect();
    let text = format!(
        "table ip bench {{\n chain to {{\n  type nat hook prerouting priority dstnat;\n  \
         ip daddr {} tcp dport {} dnat ip addr . port to numgen inc mod {} map {{ {} }}\n }}\n \
         chain from {{\n  type nat hook postrouting priority srcnat;\n  \
         ct status dnat masquerade\n }}\n}}\n",
        vip.ip(),
        vip.port(),
        members.len(),
        members.join(", "),
    );
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped());
    let mut nft = lab.amphora.netns.spawn(&mut nft)?;
    nft.child.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
    ensure!(nft.child.wait()?.success(), "nft refuses\n{text}");
    Ok(())
}
