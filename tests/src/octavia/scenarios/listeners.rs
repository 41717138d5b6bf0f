//! What listeners are told beside their pool, and what operators do to amphorae that serve.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Group, Scenario, scenario};
use crate::clients::{self, Connection, Connections};
use crate::container;
use crate::lab::Family::V4;
use crate::octavia::balancer::{LoadBalancer, Run, everybody, member};
use crate::octavia::cloud::{HTTP, eventually};

pub const SCENARIOS: [Scenario; 7] = [
    scenario("connection limit", Group::Listeners, connection_limit),
    scenario("timeouts", Group::Listeners, timeouts),
    scenario("layer 7 beside layer 4", Group::Listeners, layer_7),
    scenario("listener moves between engines", Group::Listeners, moved),
    scenario("certificate of the amphora rotated", Group::Listeners, rotated),
    scenario("configuration of the agent updated", Group::Listeners, configured),
    scenario("all at once, cascade delete", Group::Listeners, all_at_once),
];

/// How long a connection that should not be served is waited for.
const MOMENT: Duration = Duration::from_millis(500);

fn connection_limit(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let (web, _) = lb.web("TCP", 81, json!({"connection_limit": 2}))?;
    lb.settles(&[])?;
    let vip = lb.vip(V4, web.port)?;
    let open = || {
        let mut kept = Connection::open(vip)?;
        kept.get("/")?;
        anyhow::Ok(kept)
    };
    let (first, second) = (lb.counted(&web, open)?, lb.counted(&web, open)?);
    // HAProxy lets it wait in the kernel's queue, where it says nothing.
    let third = run.cloud.client.netns.enter(|| clients::knock(vip, MOMENT));
    ensure!(third.is_err(), "a third connection is served");
    drop(first);
    eventually(10, || Ok(run.cloud.client.netns.enter(|| clients::knock(vip, MOMENT))?))?;
    drop(second);
    lb.settles(&[])?;
    lb.delete()
}

fn timeouts(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let second = json!({"timeout_client_data": 1000, "timeout_member_data": 1000,
        "timeout_member_connect": 1000});
    let (web, _) = lb.web("TCP", 81, second)?;
    let vip = lb.vip(V4, web.port)?;
    // Never idle for that long, it goes on for longer.
    let busy = || {
        let mut kept = Connection::open(vip)?;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            kept.get("/")?;
            thread::sleep(Duration::from_millis(200));
        }
        anyhow::Ok(kept)
    };
    let kept = lb.counted(&web, busy)?;
    // Then it is idle, and none any more.
    lb.is_told(&web)?;
    drop(kept);
    lb.settles(&[])?;
    lb.delete()
}

fn layer_7(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let (web, _) = lb.web("HTTP", 80, json!({}))?;
    let (tcp, _) = lb.web("TCP", 81, json!({}))?;
    let special = json!({"loadbalancer_id": lb.id, "protocol": "HTTP", "name": "special",
        "lb_algorithm": "ROUND_ROBIN"});
    let special = lb.make("pools", "pool", special)?;
    lb.members(&special, &[member("m3", run.cloud.members[2].host.v4, HTTP, json!({}))])?;
    policy(
        &lb,
        &web.id,
        json!({"action": "REJECT", "name": "secret"}),
        json!({"type": "PATH", "compare_type": "STARTS_WITH", "value": "/secret"}),
    )?;
    policy(
        &lb,
        &web.id,
        json!({"action": "REDIRECT_TO_URL", "name": "old", "redirect_url": "http://example.com/"}),
        json!({"type": "PATH", "compare_type": "EQUAL_TO", "value": "/old"}),
    )?;
    policy(
        &lb,
        &web.id,
        json!({"action": "REDIRECT_TO_POOL", "name": "chosen", "redirect_pool_id": special}),
        json!({"type": "HEADER", "key": "Chosen", "compare_type": "EQUAL_TO", "value": "yes"}),
    )?;
    let vip = lb.vip(V4, web.port)?;
    for (path, headers, want) in [
        ("/", "", "HTTP/1.1 200"),
        ("/secret/1", "", "HTTP/1.1 403"),
        ("/old", "", "HTTP/1.1 302"),
        ("/", "Chosen: yes\r\n", "HTTP/1.1 200"),
        ("/", "Chosen: yes\r\n", "HTTP/1.1 200"),
    ] {
        let said = lb.counted(&web, || Ok(clients::http_text(vip, path, headers)?))?;
        ensure!(said.starts_with(want), "{path} {headers:?}: {said}");
        ensure!(headers.is_empty() || said.ends_with("m3"), "{path} {headers:?}: {said}");
    }
    lb.serves(&tcp, &[("m1", 4), ("m2", 4), ("m3", 4)])?;
    lb.ends(&[&web, &tcp])
}

fn policy(lb: &LoadBalancer<'_>, listener: &str, mut policy: Value, rule: Value) -> Result<()> {
    policy["listener_id"] = listener.into();
    let policy = lb.make("l7policies", "l7policy", policy)?;
    lb.make(&format!("l7policies/{policy}/rules"), "rule", rule).map(drop)
}

/// To a pool that wants the PROXY protocol and back, while clients go on asking.
fn moved(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let (web, plain) = lb.web("TCP", 81, json!({}))?;
    let proxy = json!({"loadbalancer_id": lb.id, "protocol": "PROXY", "name": "proxy",
        "lb_algorithm": "ROUND_ROBIN"});
    let proxy = lb.make("pools", "pool", proxy)?;
    lb.members(&proxy, &everybody(run.cloud))?;
    lb.settles(&[])?;
    let vip = lb.vip(V4, web.port)?;
    let stop = AtomicBool::new(false);
    let client = run.cloud.client.netns.try_clone()?;
    let (moved, outcome) = thread::scope(|scope| {
        let more = |_| !stop.load(Ordering::Relaxed);
        let load = scope
            .spawn(move || client.enter(|| clients::requests(vip, Connections::Fresh, 2, more)));
        let moved = [&proxy, &plain, &proxy, &plain].into_iter().try_for_each(|pool| {
            let to = json!({"listener": {"default_pool_id": pool}});
            lb.change("PUT", &format!("listeners/{}", web.id), Some(to)).map(drop)
        });
        stop.store(true, Ordering::Relaxed);
        let outcome = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (moved, outcome)
    });
    moved?;
    web.connected(u64::from(outcome.ok));
    run.seen.borrow_mut().lost = Some((outcome.errors.len() as u64, Duration::ZERO));
    let errors = outcome.errors;
    ensure!(errors.is_empty(), "{} of {} failed: {}", errors.len(), outcome.ok, errors[0]);
    lb.ends(&[&web])
}

fn rotated(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let (web, pool) = lb.web("TCP", 81, json!({}))?;
    let amphora = lb.amphora()?;
    let address = format!("{}:9443", amphora.address).parse()?;
    let shown = || anyhow::Ok(run.cloud.stack.netns.enter(|| clients::tls_certificate(address))?);
    let old = shown()?;
    let expires = format!("UPDATE amphora SET cert_expiration = NOW() WHERE id = '{}'", amphora.id);
    let arguments = ["--socket=/run/mysqld.sock", "octavia", "--execute", &expires];
    container::output(&mut run.cloud.stack.command("mariadb", &arguments))?;
    eventually(30, || {
        ensure!(shown()? != old, "the old certificate is shown");
        Ok(())
    })?;
    // The controller takes the new one for whom it is of.
    lb.change(
        "PUT",
        &format!("pools/{pool}"),
        Some(json!({"pool": {"lb_algorithm": "SOURCE_IP"}})),
    )?;
    ensure!(lb.get(&web, V4)?.status == 200);
    lb.ends(&[&web])
}

fn configured(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let (web, _) = lb.web("TCP", 81, json!({}))?;
    let amphora = lb.amphora()?;
    let file = "/etc/octavia/amphora-agent.conf";
    // It shall be written anew.
    amphora.run("truncate", &["--size=0", file])?;
    run.cloud.call("PUT", &format!("octavia/amphorae/{}/config", amphora.id), None)?;
    eventually(30, || {
        let text = amphora.run("cat", &[file])?;
        ensure!(text.contains(&amphora.id), "{file} has {} bytes", text.len());
        Ok(())
    })?;
    lb.serves(&web, &[("m1", 4), ("m2", 4), ("m3", 4)])?;
    lb.ends(&[&web])
}

/// A load balancer that is created in one call with all that it has, and goes in one.
fn all_at_once(run: &Run<'_>) -> Result<()> {
    let named = |name: &str, protocol: &str| {
        let members: Vec<_> = everybody(run.cloud);
        json!({"name": name, "protocol": protocol, "lb_algorithm": "ROUND_ROBIN",
            "members": members, "healthmonitor": {"name": "monitor", "type": "TCP", "delay": 1,
            "timeout": 1, "max_retries": 1, "max_retries_down": 1}})
    };
    let listeners = json!([
        {"name": "80", "protocol": "HTTP", "protocol_port": 80, "default_pool": named("web", "HTTP"),
         "l7policies": [{"name": "secret", "action": "REJECT", "rules": [
            {"type": "PATH", "compare_type": "STARTS_WITH", "value": "/secret"}]}]},
        {"name": "81", "protocol": "TCP", "protocol_port": 81, "default_pool": named("tcp", "TCP")},
    ]);
    let lb = LoadBalancer::create(
        run,
        crate::octavia::cloud::Topology::Single,
        json!({"listeners": listeners}),
    )?;
    lb.settles(&[])?;
    for port in [80, 81] {
        let vip = lb.vip(V4, port)?;
        let served = run.cloud.client.netns.enter(|| clients::http_get(vip, "/"));
        served.with_context(|| format!("port {port}"))?;
    }
    lb.delete()
}
