//! `cargo xtask octavia demo`: the life of a load balancer, as who runs Octavia would look at it.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use openssl::asn1::Asn1Time;
use openssl::nid::Nid;
use openssl::x509::{X509, X509NameRef};
use serde_json::json;
use xdp_lb_tests::balancer::beside;
use xdp_lb_tests::clients::{self, Connections, Outcome, TIMEOUT};
use xdp_lb_tests::container;
use xdp_lb_tests::lab::Family::V4;
use xdp_lb_tests::octavia::STACKS;
use xdp_lb_tests::octavia::amphora::Amphora;
use xdp_lb_tests::octavia::balancer::{Listener, LoadBalancer, Run, everybody, member};
use xdp_lb_tests::octavia::cloud::{self, Cloud, HTTP, Image, MEMBERS, Topology, eventually};
use xdp_lb_tests::octavia::stack::{Options, Stack};
use xdp_lb_tests::show::{self, bold, dim, good, heading, line, progress};
use xdp_lb_tests::signals::{catch_signals, check, interrupted};

use crate::typed::{self, ask, beside_octavia, command, inside, rows, statuses};

const REQUESTS: u64 = 300;
const DATAGRAMS: u64 = 90;
const CONCURRENCY: usize = 4;
/// Between two requests of the client that goes on while a member dies.
const PAUSE: Duration = Duration::from_millis(5);
/// For containers and interfaces to follow the load balancer that they were for.
const BARE_MAX_S: u64 = 20;
/// Who dies and comes back.
const OUT: &str = "m2";
/// The certificates of Octavia's, by which agents know it, and of the authority by which it knows agents.
const CLIENT: &str = "/etc/octavia/certs/client.pem";
const SERVER_CA: &str = "/etc/octavia/certs/server_ca.pem";
/// What amphorae run, where Octavia is.
const XDP_LB: &str = "/etc/octavia/images/xdp-lb/usr/bin/xdp-lb";
/// In the container's own memory.
const CAPTURE: &str = "/run/heartbeats.pcap";

pub fn run() -> Result<()> {
    catch_signals()?;
    let began = Instant::now();
    // What was interrupted has failed in some way or other.
    walk().or_else(|error| check().and(Err(error)))?;
    line(&format!(
        "all of it took {:.0} s; `{}` keeps one standing to play with",
        began.elapsed().as_secs_f64(),
        bold("cargo xtask octavia up")
    ));
    Ok(())
}

fn walk() -> Result<()> {
    let release = STACKS[0];
    heading(1, &format!("Octavia {release} comes up: all of its services, and their database"));
    let began = Instant::now();
    let options = Options { release, program: &beside()?, settings: "" };
    let stack = progress("Octavia comes up", || Stack::up(&options))?;
    line(&good(&format!("up after {}", seconds(began.elapsed()))));
    let mut cloud = Cloud::around(stack)?;
    line(&dim("`octavia` is `cargo xtask octavia` in what follows"));
    beside_octavia(&cloud, "systemctl --no-pager --lines=0 status octavia", 12)?;
    // Who installs Octavia makes it, not who uses it.
    cloud.flavor(Image::XdpLb, Topology::Single)?;
    cloud.watch = typed::call;

    let run = Run::new(&cloud, Image::XdpLb);
    life(&run)?;

    let directory = cloud.stack.directory.clone();
    progress("Octavia goes", || drop(cloud));
    // It goes last, when no process of the containers is left.
    ensure!(!directory.exists(), "{} is still there", directory.display());
    line(&good("Octavia is down: its containers and its files are gone"));
    Ok(())
}

/// Of one load balancer.
fn life(run: &Run<'_>) -> Result<()> {
    let cloud = run.cloud;
    heading(2, "A load balancer: Octavia boots an amphora for it, and plugs its VIP");
    let lb = progress("Octavia creates it", || run.single())?;
    let created = run.seen.borrow().created.unwrap_or_default();
    let vip = lb.vip(V4, 0)?.ip();
    let told = format!("{} with the VIP {vip} is ACTIVE after {}", lb.id, seconds(created));
    line(&good(&told));
    let amphora = lb.amphora()?;
    amphorae(cloud)?;
    certificate(cloud, &amphora)?;

    heading(3, "Inside the amphora: the agent, the namespace of the traffic, XDP");
    let id = &amphora.id;
    beside_octavia(
        cloud,
        &format!(
            "curl --silent --show-error --fail --include --cert {CLIENT} --cacert {SERVER_CA} \
             --connect-to {id}:9443:{}:9443 https://{id}:9443/",
            amphora.address
        ),
        usize::MAX,
    )?;
    inside(&amphora, "systemctl --no-pager --lines=0 status amphora-agent", 9)?;
    inside(&amphora, "ip -netns amphora-haproxy -brief address", usize::MAX)?;
    inside(&amphora, "xdp-lb status", 4)?;

    heading(4, "The heartbeat: signed datagrams to Octavia's health manager");
    heartbeats(cloud, &amphora)?;

    heading(5, "A listener, its pool, three members, a monitor");
    let web = lb.listener("TCP", HTTP, json!({}))?;
    active(run, "the listener");
    let pool = lb.pool(&web, "TCP", json!({}))?;
    active(run, "the pool");
    lb.members(&pool, &everybody(cloud))?;
    active(run, "the members");
    let http = json!({"http_method": "GET", "url_path": "/", "expected_codes": "200"});
    lb.monitor(&pool, "HTTP", http)?;
    active(run, "the monitor");
    progress("members are checked, and a heartbeat tells", || lb.settles(&[]))?;
    let online = run.seen.borrow().online.unwrap_or_default();
    line(&good(&format!("all of it: ONLINE after {}", seconds(online))));

    heading(6, "Clients ask: who served what");
    let datagrams = traffic(&lb, &web)?;

    heading(7, &format!("{OUT} dies, and comes back"));
    death(&lb, &web)?;

    heading(8, "What Octavia knows, and what the amphora knows");
    progress("the statistics of the last requests come with a heartbeat", || lb.is_told(&web))?;
    let tree = ask(cloud, &format!("lbaas/loadbalancers/{}/status", lb.id))?;
    statuses("loadbalancer", &tree["loadbalancer"], 0);
    statistics(cloud, &[&web, &datagrams])?;
    line(&dim(
        "of TCP it is told the payload, as HAProxy counts; the amphora counts packets, whole",
    ));
    inside(&amphora, "xdp-lb status", usize::MAX)?;
    inside(&amphora, "xdp-lb stats", usize::MAX)?;

    heading(9, "Gone again");
    let began = Instant::now();
    progress("Octavia deletes it", || {
        lb.delete()?;
        eventually(BARE_MAX_S, || cloud.is_bare())
    })?;
    line(&good(&format!(
        "no amphora, no interface, no namespace after {}",
        seconds(began.elapsed())
    )));
    Ok(())
}

fn amphorae(cloud: &Cloud) -> Result<()> {
    let found = ask(cloud, "octavia/amphorae")?;
    rows(
        &["id", "role", "status", "lb_network_ip", "vrrp_ip"],
        found.as_array().into_iter().flatten(),
    );
    Ok(())
}

/// What the agent shows to who connects.
fn certificate(cloud: &Cloud, amphora: &Amphora<'_>) -> Result<()> {
    let words = format!("openssl s_client -connect {}:9443 -cert {CLIENT}", amphora.address);
    let printed = container::output(&mut command(cloud, &words))?;
    let certificate = X509::from_pem(printed.as_bytes()).context("the agent's certificate")?;
    let left = Asn1Time::days_from_now(0)?.diff(certificate.not_after())?.days;
    let subject = common_name(certificate.subject_name())?;
    ensure!(subject == amphora.id, "the agent's certificate is of {subject}");
    let issuer = common_name(certificate.issuer_name())?;
    let told =
        format!("subject CN={subject}, the amphora's id\nissuer CN={issuer}\n{left} days left");
    show::shown(&format!("octavia run {words}"), &told, usize::MAX);
    Ok(())
}

fn common_name(name: &X509NameRef) -> Result<String> {
    let entry = name.entries_by_nid(Nid::COMMONNAME).next().context("a name without CN")?;
    Ok(entry.data().to_string()?)
}

fn heartbeats(cloud: &Cloud, amphora: &Amphora<'_>) -> Result<()> {
    let capture = format!(
        "timeout --foreground 20 tcpdump -i br-mgmt -c 2 -Z root -w {CAPTURE} src host {} and udp port 5555",
        amphora.address
    );
    progress("two of them", || beside_octavia(cloud, &capture, usize::MAX))?;
    beside_octavia(cloud, &format!("tcpdump -n -ttt -r {CAPTURE}"), usize::MAX)?;
    let decode = "heartbeat decode --config /etc/octavia/octavia.conf";
    beside_octavia(cloud, &format!("{XDP_LB} {decode} {CAPTURE}"), usize::MAX)
}

/// Over TCP, then over UDP by a listener of its own, which is returned.
fn traffic(lb: &LoadBalancer<'_>, web: &Listener) -> Result<Listener> {
    let cloud = lb.run.cloud;
    let url = format!("http://{}/", lb.vip(V4, HTTP)?.ip());
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--include", &url]);
    let words = format!("curl --silent --show-error --fail --include {url}");
    line(&dim("on the host of the clients:"));
    web.connected(1);
    cloud.client.netns.enter(|| show::command(&mut curl, &words, usize::MAX))?;
    println!();
    shares("TCP", &requests(lb, web)?)?;

    let port = cloud::UDP;
    let udp = lb.listener("UDP", port, json!({}))?;
    active(lb.run, "a listener for datagrams");
    let pool = lb.pool(&udp, "UDP", json!({}))?;
    active(lb.run, "its pool");
    let members = cloud.members.iter().map(|it| {
        // Another name than in the other pool: here no monitor sees who dies.
        member(&format!("{}-udp", it.host.name), it.host.v4, port, json!({}))
    });
    lb.members(&pool, &members.collect::<Vec<_>>())?;
    active(lb.run, "its members");
    let mut outcome = Outcome::default();
    let vip = lb.vip(V4, port)?;
    for _ in 0..DATAGRAMS {
        check()?;
        match lb.counted(&udp, || Ok(clients::udp_ask(vip, b"who?", TIMEOUT)?)) {
            Ok(answer) => {
                outcome.ok += 1;
                *outcome.by_member.entry(answer.member).or_default() += 1;
            }
            Err(error) => outcome.errors.push(error.to_string()),
        }
    }
    shares("UDP", &outcome)?;
    Ok(udp)
}

/// Each on a connection of its own.
fn requests(lb: &LoadBalancer<'_>, web: &Listener) -> Result<Outcome> {
    let vip = lb.vip(V4, web.port)?;
    let more = |request| request < REQUESTS && !interrupted();
    web.connected(REQUESTS);
    let ask = || clients::requests(vip, Connections::Fresh, CONCURRENCY, more);
    let outcome = lb.run.cloud.client.netns.enter(ask);
    check()?;
    Ok(outcome)
}

/// It is an error that there are errors.
fn shares(label: &str, outcome: &Outcome) -> Result<()> {
    show::shares(label, &outcome.by_member, &MEMBERS, outcome.errors.len());
    match outcome.errors.first() {
        Some(error) => bail!("{label}: {error}"),
        None => Ok(()),
    }
}

fn death(lb: &LoadBalancer<'_>, web: &Listener) -> Result<()> {
    let cloud = lb.run.cloud;
    let dead = cloud.member(OUT)?;
    let vip = lb.vip(V4, web.port)?;
    let client = cloud.client.netns.try_clone()?;
    let began = Instant::now();
    let stop = AtomicBool::new(false);
    let (seen, asked) = thread::scope(|scope| {
        let asking = scope.spawn(|| client.enter(|| ask_until(vip, began, &stop)));
        dead.dies();
        let pool = format!("pool {}", web.port);
        let seen = progress(&format!("{OUT} has closed its ports"), || {
            lb.settles(&[(OUT, "ERROR"), (&pool, "DEGRADED"), ("lb", "DEGRADED")])
        });
        let after = began.elapsed();
        stop.store(true, Ordering::Relaxed);
        let asked = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (seen.map(|()| after), asked)
    });
    web.connected(asked.all);
    line(&good(&format!("{OUT} is ERROR in Octavia after {}", seconds(seen?))));
    let Asked { all, failed, .. } = asked;
    line(&match asked.last_failed {
        Some(last) => format!(
            "{failed} of {all} requests meanwhile failed, the last after {}: the amphora's monitor asks \
             each second",
            seconds(last)
        ),
        None => format!("none of {all} requests meanwhile failed"),
    });
    shares("without it", &requests(lb, web)?)?;
    let began = Instant::now();
    dead.lives()?;
    progress(&format!("{OUT} lives again"), || lb.settles(&[]))?;
    line(&good(&format!("{OUT} is ONLINE again after {}", seconds(began.elapsed()))));
    shares("with it", &requests(lb, web)?)
}

/// What became of requests while something went on.
#[derive(Default)]
struct Asked {
    all: u64,
    failed: u64,
    last_failed: Option<Duration>,
}

fn ask_until(vip: SocketAddr, began: Instant, stop: &AtomicBool) -> Asked {
    let mut asked = Asked::default();
    while !stop.load(Ordering::Relaxed) {
        asked.all += 1;
        if clients::http_get(vip, "/").is_err() {
            asked.failed += 1;
            asked.last_failed = Some(began.elapsed());
        }
        thread::sleep(PAUSE);
    }
    asked
}

fn statistics(cloud: &Cloud, listeners: &[&Listener]) -> Result<()> {
    let keys =
        ["total_connections", "active_connections", "bytes_in", "bytes_out", "request_errors"];
    for listener in listeners {
        let told = ask(cloud, &format!("lbaas/listeners/{}/stats", listener.id))?;
        rows(&keys, [&told]);
    }
    Ok(())
}

fn active(run: &Run<'_>, what: &str) {
    let took = run.seen.borrow().changes.last().copied().unwrap_or_default();
    line(&good(&format!("{what}: ACTIVE after {}", seconds(took))));
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
