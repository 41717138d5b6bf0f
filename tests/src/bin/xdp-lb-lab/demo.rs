//! `cargo xtask demo`: real traffic through the load balancer, told in numbered steps.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use anyhow::{Context, Result, ensure};
use xdp_lb::kernel::Pins;
use xdp_lb::observe::Found;
use xdp_lb::record::{Interface, Standing};
use xdp_lb_tests::balancer::beside;
use xdp_lb_tests::clients::{Connection, Connections, Outcome, TIMEOUT, requests, udp_ask};
use xdp_lb_tests::lab::{Family, Host};
use xdp_lb_tests::show::{self, bold, good, heading, line};
use xdp_lb_tests::signals::{catch_signals, check, interrupted};

use crate::document::{HTTP, UDP};
use crate::stand::Stand;

const NAME: &str = "demo";
const FAMILIES: [(Family, &str); 2] = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];

const HTTP_REQUESTS: u64 = 600;
const DATAGRAMS: u64 = 300;
/// Between two looks at who serves while the document changes.
const BURST_REQUESTS: u64 = 300;
const CONCURRENCY: usize = 4;
/// Before, between and after the kill and the restart.
const KILL_PAUSE: Duration = Duration::from_millis(700);
/// Of a map: its first entry.
const MAP_LINES: usize = 19;
/// Who goes and comes back.
const OUT: &str = "m2";

pub fn run() -> Result<()> {
    catch_signals()?;
    let began = Instant::now();
    let directory = env::temp_dir().join(format!("xdp-lb-demo-{}", process::id()));
    println!("making the lab...");
    let mut stand = Stand::up(NAME, directory)?;
    heading(1, "The lab: network namespaces, veth, real servers on m1, m2 and m3");
    show::lines(&stand.lab.describe());

    story(&mut stand)?;

    heading(8, "Gone again");
    let (prefix, name) = (stand.lab.prefix().to_owned(), stand.name.clone());
    drop(stand);
    let namespaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left =
        namespaces.filter(|at| at.file_name().to_string_lossy().starts_with(&prefix)).count();
    ensure!(left == 0 && !Pins::of(&name).exist(), "something is left of {prefix}");
    line(&good("no namespaces, no pins, no processes"));
    line(&format!(
        "all of it took {:.0} s; `{}` keeps one standing to play with",
        began.elapsed().as_secs_f64(),
        bold("cargo xtask lab up")
    ));
    Ok(())
}

fn story(stand: &mut Stand) -> Result<()> {
    heading(2, "The load balancer: XDP on eth1 of the amphora, run from one file");
    line(&bold("$ xdp-lb run lb.toml --interface eth1"));
    show::lines(&fs::read_to_string(stand.file())?);
    println!();
    for Interface { name, standing } in Found::open(&stand.name)?.record.interfaces {
        if let Standing::Attached { mode, .. } = standing {
            line(&good(&format!("{name}: attached in {mode} mode; all members are up")));
        }
    }

    heading(3, "A client behind a router asks");
    for (family, _) in FAMILIES {
        let url = format!("http://{}/", stand.lab.vip(family, HTTP)).replace(":80/", "/");
        let words = format!("curl {url}");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", &url]);
        let output = stand.lab.client.netns.output(&mut curl)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words}: {}", said.trim());
        let printed = String::from_utf8_lossy(&output.stdout);
        line(&format!("$ {}", bold(&words)));
        let told = |name: &str| {
            let header = |text: &str| Some(text.trim().split_once(": ")?.1.to_owned());
            printed.lines().find(|text| text.starts_with(name)).and_then(header)
        };
        let (member, peer) = (told("Member").unwrap_or_default(), told("Peer").unwrap_or_default());
        line(&format!("{}   (who saw it come from {peer}: full NAT)", good(&member)));
    }

    heading(4, "Many ask: who served what (m3 has twice the weight)");
    everybody(stand)?;

    heading(
        5,
        "A member goes and comes back: lb.toml is edited, the new state is in force at once",
    );
    out_and_back(stand)?;

    heading(6, "kill -9 of xdp-lb under load, and a new one takes over");
    kill_and_start(stand)?;

    heading(7, "Looking inside");
    xdp_lb(&["stats", "--name", NAME])?;
    xdp_lb(&["status", "--name", NAME])?;
    xdp_lb(&["flows", "--name", NAME, "--limit", "5"])?;
    let map = Pins::of(&stand.name).map("LISTENERS").display().to_string();
    let mut bpftool = Command::new("bpftool");
    bpftool.args(["map", "dump", "pinned", &map]);
    show::command(&mut bpftool, &format!("bpftool map dump pinned {map}"), MAP_LINES)
}

fn xdp_lb(arguments: &[&str]) -> Result<()> {
    let words = format!("xdp-lb {}", arguments.join(" "));
    show::command(Command::new(beside()?).args(arguments), &words, usize::MAX)?;
    println!();
    Ok(())
}

fn everybody(stand: &Stand) -> Result<()> {
    for (family, called) in FAMILIES {
        let served = http(&stand.lab.client, stand.lab.vip(family, HTTP), HTTP_REQUESTS)?;
        shares(&format!("HTTP  {called}"), stand, &served);
    }
    for (family, called) in FAMILIES {
        let served = datagrams(&stand.lab.client, stand.lab.vip(family, UDP))?;
        shares(&format!("UDP   {called}"), stand, &served);
    }
    Ok(())
}

/// Each from a connection of its own.
fn http(client: &Host, addr: SocketAddr, count: u64) -> Result<Outcome> {
    let more = |request| request < count && !interrupted();
    let outcome = client.netns.enter(|| requests(addr, Connections::Fresh, CONCURRENCY, more));
    check()?;
    Ok(outcome)
}

/// Each from a port of its own.
fn datagrams(client: &Host, addr: SocketAddr) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    client.netns.enter(|| {
        for _ in (0..DATAGRAMS).take_while(|_| !interrupted()) {
            match udp_ask(addr, b"who?", TIMEOUT) {
                Ok(answer) => {
                    outcome.ok += 1;
                    *outcome.by_member.entry(answer.member).or_default() += 1;
                }
                Err(error) => outcome.errors.push(error.to_string()),
            }
        }
    });
    check()?;
    Ok(outcome)
}

fn shares(label: &str, stand: &Stand, outcome: &Outcome) {
    let names: Vec<_> = stand.lab.members.iter().map(|member| &member.name[..]).collect();
    show::shares(label, &outcome.by_member, &names, outcome.errors.len());
    outcome.errors.iter().take(3).for_each(|error| line(error));
}

fn out_and_back(stand: &mut Stand) -> Result<()> {
    let addr = stand.lab.vip(Family::V4, HTTP);
    let mut kept = connected_to(&stand.lab.client, addr, OUT)?;
    let began = Instant::now();
    let burst = |stand: &Stand| {
        let served = http(&stand.lab.client, addr, BURST_REQUESTS)?;
        shares(&format!("{:7.1} s", began.elapsed().as_secs_f64()), stand, &served);
        anyhow::Ok(())
    };
    burst(stand)?;
    for (out, told) in [(Some(OUT), "enabled = false"), (None, "is as before")] {
        let edited = Instant::now();
        stand.write(out)?;
        stand.settled(out)?;
        let took = edited.elapsed().as_millis();
        line(&bold(&format!("lb.toml: {OUT} {told} (in force after {took} ms)")));
        burst(stand)?;
        burst(stand)?;
        if out.is_some() {
            let response = stand.lab.client.netns.enter(|| kept.get("/"))?;
            ensure!(response.member == OUT, "a connection moved to {}", response.member);
            line(&format!("a connection opened before is still served by {}", good(OUT)));
        }
    }
    Ok(())
}

/// A connection that `member` serves.
fn connected_to(client: &Host, addr: SocketAddr, member: &str) -> Result<Connection> {
    let open = || -> Result<Option<Connection>> {
        for _ in 0..100 {
            let mut connection = Connection::open(addr)?;
            if connection.get("/")?.member == member {
                return Ok(Some(connection));
            }
        }
        Ok(None)
    };
    client.netns.enter(open)?.with_context(|| format!("{member} serves nobody"))
}

fn kill_and_start(stand: &mut Stand) -> Result<()> {
    let addr = stand.lab.vip(Family::V6, HTTP);
    let stop = AtomicBool::new(false);
    let mut told = Vec::new();
    // A second handle, since the stand itself is about to be changed.
    let client = stand.lab.client.netns.try_clone()?;
    let outcome = thread::scope(|scope| {
        let more = |_| !stop.load(Ordering::Relaxed) && !interrupted();
        let load = scope
            .spawn(move || client.enter(|| requests(addr, Connections::Fresh, CONCURRENCY, more)));
        let mut acts = || {
            thread::sleep(KILL_PAUSE);
            stand.kill();
            told.push(
                "killed; the program, its links and its maps are pinned, packets go on".into(),
            );
            thread::sleep(KILL_PAUSE);
            let began = Instant::now();
            stand.start()?;
            stand.settled(None)?;
            told.push(format!("started again: took over after {} ms", began.elapsed().as_millis()));
            thread::sleep(KILL_PAUSE);
            anyhow::Ok(())
        };
        let acted = acts();
        stop.store(true, Ordering::Relaxed);
        let outcome = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        acted.map(|()| outcome)
    })?;
    check()?;
    told.iter().for_each(|text| line(text));
    line(&format!(
        "meanwhile: {}, the slowest after {:.1} ms",
        show::tally(outcome.ok, outcome.errors.len()),
        outcome.latency(1.0).as_secs_f64() * 1e3
    ));
    Ok(())
}
