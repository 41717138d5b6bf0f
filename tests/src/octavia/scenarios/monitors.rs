//! Every type of monitor: what it finds out, and that it finds out again.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Group, Scenario, scenario};
use crate::octavia::balancer::{LoadBalancer, Run, member};
use crate::octavia::cloud::{HTTP, TLS, UDP};
use crate::servers::sctp_missing;

pub const SCENARIOS: [Scenario; 3] = [
    scenario("monitors of TCP pools", Group::Monitors, of_tcp),
    scenario("monitors of HTTP pools", Group::Monitors, of_http),
    scenario("monitors of UDP and SCTP pools", Group::Monitors, of_datagrams),
];

/// How a member fails.
#[derive(Clone, Copy)]
enum Failing {
    Dies,
    /// Its host too: what else would not answer a ping?
    IsUnplugged,
}
use Failing::{Dies, IsUnplugged};

/// Each monitor in turn sees `m2` fail and come back.
fn each(
    lb: &LoadBalancer<'_>,
    protocol: &str,
    port: u16,
    rows: &[(&str, u16, Value, Failing)],
) -> Result<()> {
    for (kind, member_port, more, failing) in rows {
        one(lb, protocol, port, *member_port, kind, more.clone(), *failing)
            .with_context(|| format!("{protocol} pool, {kind} monitor"))?;
    }
    Ok(())
}

fn one(
    lb: &LoadBalancer<'_>,
    protocol: &str,
    port: u16,
    member_port: u16,
    kind: &str,
    more: Value,
    failing: Failing,
) -> Result<()> {
    let listener = lb.listener(protocol, port, json!({}))?;
    let pool = lb.pool(&listener, protocol, json!({}))?;
    let two = lb.run.cloud.members.iter().take(2);
    let two = two.map(|it| member(&it.host.name, it.host.v4, member_port, json!({})));
    lb.members(&pool, &two.collect::<Vec<_>>())?;
    lb.settles(&[])?;
    lb.monitor(&pool, kind, more)?;
    lb.settles(&[])?;
    let m2 = lb.run.cloud.member("m2")?;
    match failing {
        Dies => m2.dies(),
        IsUnplugged => m2.unplugged(true)?,
    }
    let name = format!("pool {port}");
    let seen = lb.settles(&[("m2", "ERROR"), (&name, "DEGRADED"), ("lb", "DEGRADED")]);
    match failing {
        Dies => m2.lives()?,
        IsUnplugged => m2.unplugged(false)?,
    }
    seen.context("m2 failed")?;
    lb.settles(&[]).context("m2 is back")?;
    lb.change("DELETE", &format!("pools/{pool}"), None)?;
    lb.change("DELETE", &format!("listeners/{}", listener.id), None).map(drop)
}

fn of_tcp(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let http = json!({"http_method": "GET", "url_path": "/", "expected_codes": "200-204"});
    let rows = [
        ("TCP", HTTP, json!({}), Dies),
        ("HTTP", HTTP, http.clone(), Dies),
        ("PING", HTTP, json!({}), IsUnplugged),
        ("TLS-HELLO", TLS, json!({}), Dies),
        ("HTTPS", TLS, http, Dies),
    ];
    each(&lb, "TCP", 81, &rows)?;
    lb.delete()
}

fn of_http(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let http = json!({"http_method": "GET", "url_path": "/health", "http_version": 1.1,
        "domain_name": "example.com"});
    let rows = [
        ("HTTP", HTTP, http, Dies),
        ("PING", HTTP, json!({"timeout": 2, "delay": 2}), IsUnplugged),
    ];
    each(&lb, "HTTP", 80, &rows)?;
    lb.delete()
}

fn of_datagrams(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let rows = [
        ("UDP-CONNECT", UDP, json!({"delay": 4, "timeout": 1}), Dies),
        ("TCP", HTTP, json!({}), Dies),
        ("HTTP", HTTP, json!({"url_path": "/"}), Dies),
    ];
    each(&lb, "UDP", UDP, &rows)?;
    sctp(&lb)?;
    lb.delete()
}

/// Where kernels have no SCTP no member answers, and that is seen.
fn sctp(lb: &LoadBalancer<'_>) -> Result<()> {
    let listener = lb.listener("SCTP", 9000, json!({}))?;
    let pool = lb.pool(&listener, "SCTP", json!({}))?;
    lb.members(&pool, &[member("m1", lb.run.cloud.members[0].host.v4, 9000, json!({}))])?;
    lb.monitor(&pool, "SCTP", json!({}))?;
    if sctp_missing().is_some() {
        lb.settles(&[("m1", "ERROR"), ("pool 9000", "ERROR"), ("lb", "ERROR")])
    } else {
        let _server = crate::servers::Server::sctp(&lb.run.cloud.members[0].host, 9000)?;
        lb.settles(&[])
    }
}
