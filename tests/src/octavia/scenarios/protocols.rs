//! Every protocol of a listener, and every family of a VIP.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Group, Scenario, scenario};
use crate::clients::{self, Connections};
use crate::lab::Family::{V4, V6};
use crate::octavia::balancer::{Listener, LoadBalancer, Run, everybody, member};
use crate::octavia::cloud::{HTTP, MEMBER_SUBNET6, TLS, Topology, UDP, VIP_SUBNET6, eventually};
use crate::pki::{Authority, Kind};
use crate::servers::sctp_missing;

pub const SCENARIOS: [Scenario; 9] = [
    scenario("TCP", Group::Protocols, tcp),
    scenario("HTTPS, passed through", Group::Protocols, https),
    scenario("UDP", Group::Protocols, udp),
    scenario("SCTP", Group::Protocols, sctp),
    scenario("HTTP", Group::Protocols, http),
    scenario("TERMINATED_HTTPS", Group::Protocols, terminated_https),
    scenario("PROMETHEUS", Group::Protocols, prometheus),
    scenario("IPv6", Group::Protocols, ipv6),
    scenario("VIPs of both families", Group::Protocols, both_families),
];

/// How long, and by how many at once, requests are counted.
const LOAD: Duration = Duration::from_secs(2);
const CONCURRENCY: usize = 4;

/// Requests a second on fresh connections; none may fail.
fn load(lb: &LoadBalancer<'_>, listener: &Listener) -> Result<()> {
    let vip = lb.vip(V4, listener.port)?;
    let began = Instant::now();
    let more = |_| began.elapsed() < LOAD;
    let asked = || clients::requests(vip, Connections::Fresh, CONCURRENCY, more);
    let outcome = lb.run.cloud.client.netns.enter(asked);
    let took = began.elapsed().as_secs_f64();
    listener.connected(u64::from(outcome.ok));
    ensure!(
        outcome.errors.is_empty(),
        "{} requests failed: {}",
        outcome.errors.len(),
        outcome.errors[0]
    );
    lb.run.seen.borrow_mut().requests_s = Some(f64::from(outcome.ok) / took);
    Ok(())
}

fn tcp(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let (web, _) = lb.web("TCP", 80, json!({}))?;
    carries(&lb, &web)?;
    lb.ends(&[&web])
}

fn carries(lb: &LoadBalancer<'_>, web: &Listener) -> Result<()> {
    lb.settles(&[])?;
    lb.serves(web, &[("m1", 4), ("m2", 4), ("m3", 4)])?;
    load(lb, web)
}

fn https(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let web = lb.listener("HTTPS", 443, json!({}))?;
    let pool = lb.pool(&web, "HTTPS", json!({}))?;
    lb.members(&pool, &[member("m1", run.cloud.members[0].host.v4, TLS, json!({}))])?;
    lb.settles(&[])?;
    let vip = lb.vip(V4, 443)?;
    let said = lb.counted(&web, || Ok(clients::https_get(vip, "/")?))?;
    ensure!(said.ends_with("m1"), "{said}");
    lb.is_told(&web)?;
    lb.delete()
}

fn udp(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let dns = lb.listener("UDP", UDP, json!({}))?;
    let pool = lb.pool(&dns, "UDP", json!({}))?;
    let members = run.cloud.members.iter();
    let members = members.map(|it| member(&it.host.name, it.host.v4, UDP, json!({})));
    lb.members(&pool, &members.collect::<Vec<_>>())?;
    lb.settles(&[])?;
    let vip = lb.vip(V4, UDP)?;
    let mut served = BTreeSet::new();
    for _ in 0..12 {
        let answer = lb.counted(&dns, || Ok(clients::udp_ask(vip, b"who?", clients::TIMEOUT)?))?;
        served.insert(answer.member);
    }
    ensure!(served.len() == run.cloud.members.len(), "served by {served:?}");
    lb.is_told(&dns)?;
    lb.delete()
}

fn sctp(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let listener = lb.listener("SCTP", 9000, json!({}))?;
    let pool = lb.pool(&listener, "SCTP", json!({}))?;
    lb.members(&pool, &[member("m1", run.cloud.members[0].host.v4, 9000, json!({}))])?;
    lb.settles(&[])?;
    if sctp_missing().is_none() {
        let _server = crate::servers::Server::sctp(&run.cloud.members[0].host, 9000)?;
        let vip = lb.vip(V4, 9000)?;
        let ask = || Ok(clients::sctp_ask(vip, b"who?", clients::TIMEOUT)?);
        let answer = lb.counted(&listener, ask)?;
        ensure!(answer.member == "m1", "served by {}", answer.member);
    }
    lb.delete()
}

fn http(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let headers = json!({"insert_headers": {"X-Forwarded-For": "true"}});
    let (web, _) = lb.web("HTTP", 80, headers)?;
    carries(&lb, &web)?;
    let vip = lb.vip(V4, web.port)?;
    let said = lb.counted(&web, || Ok(clients::http_text(vip, "/", "")?))?;
    let client = format!("forwarded-for: {}\r\n", run.cloud.client.v4);
    ensure!(said.contains(&client), "members are not told of {}: {said}", run.cloud.client.v4);
    lb.ends(&[&web])
}

fn terminated_https(run: &Run<'_>) -> Result<()> {
    // Where other clouds have Barbican, certificates are files.
    let keep = |name: &str| -> Result<Vec<u8>> {
        let issued = Authority::new("tenant")?.issue("www.example.com", Kind::Octavia)?;
        let store = run.cloud.stack.root().join("var/lib/octavia/certificates");
        std::fs::write(store.join(format!("{name}.crt")), issued.certificate.to_pem()?)?;
        std::fs::write(store.join(format!("{name}.key")), issued.key.private_key_to_pem_pkcs8()?)?;
        Ok(issued.certificate.to_der()?)
    };
    let (old, new) = (keep("old")?, keep("new")?);
    let lb = run.single()?;
    let web = lb.listener("TERMINATED_HTTPS", 443, json!({"default_tls_container_ref": "old"}))?;
    let pool = lb.pool(&web, "HTTP", json!({}))?;
    lb.members(&pool, &[member("m1", run.cloud.members[0].host.v4, HTTP, json!({}))])?;
    lb.settles(&[])?;
    let vip = lb.vip(V4, 443)?;
    let said = lb.counted(&web, || Ok(clients::https_get(vip, "/")?))?;
    ensure!(said.ends_with("m1"), "{said}");
    lb.is_told(&web)?;
    let shown =
        || Ok::<_, anyhow::Error>(run.cloud.client.netns.enter(|| clients::tls_certificate(vip))?);
    ensure!(shown()? == old, "another certificate is shown");
    let other = json!({"listener": {"default_tls_container_ref": "new"}});
    lb.change("PUT", &format!("listeners/{}", web.id), Some(other))?;
    eventually(5, || {
        ensure!(shown()? == new, "the old certificate is shown");
        Ok(())
    })?;
    lb.settles(&[])?;
    lb.delete()
}

fn prometheus(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let (web, _) = lb.web("TCP", 80, json!({}))?;
    let metrics = lb.listener("PROMETHEUS", 8088, json!({}))?;
    lb.serves(&web, &[("m1", 4), ("m2", 4), ("m3", 4)])?;
    lb.settles(&[])?;
    let vip = lb.vip(V4, metrics.port)?;
    eventually(20, || {
        let told = lb.run.cloud.client.netns.enter(|| clients::http_text(vip, "/metrics", ""))?;
        let has = |line: &&str| {
            line.starts_with("octavia_listener_connections_total") && line.contains(&web.id)
        };
        let line = told.lines().find(has);
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        let expected = web.expected(run.cloud)?;
        let is_right = count.is_some_and(|count| expected.contains(&count));
        ensure!(is_right, "{line:?} of {} bytes, not {expected:?}", told.len());
        Ok(())
    })?;
    lb.is_told(&web)?;
    lb.delete()
}

fn ipv6(run: &Run<'_>) -> Result<()> {
    let lb = LoadBalancer::create(run, Topology::Single, json!({"vip_subnet_id": VIP_SUBNET6}))?;
    let members = run.cloud.members.iter();
    let members = members
        .map(|it| member(&it.host.name, it.host.v6, HTTP, json!({"subnet_id": MEMBER_SUBNET6})));
    let members: Vec<_> = members.collect();
    for (protocol, port) in [("TCP", 81), ("HTTP", 80)] {
        let web = lb.listener(protocol, port, json!({}))?;
        let pool = lb.pool(&web, protocol, json!({}))?;
        lb.members(&pool, &members)?;
        lb.settles(&[])?;
        let shares = eventually(5, || lb.shares(&web, V6, 12))?;
        ensure!(shares.len() == members.len(), "{protocol}: served by {shares:?}");
        lb.is_told(&web)?;
    }
    lb.delete()
}

fn both_families(run: &Run<'_>) -> Result<()> {
    let additional = json!({"additional_vips": [{"subnet_id": VIP_SUBNET6}]});
    let lb = LoadBalancer::create(run, Topology::Single, additional)?;
    let mut members = everybody(run.cloud);
    let m1 = &run.cloud.members[0].host;
    members.push(member("m1 v6", m1.v6, HTTP, json!({"subnet_id": MEMBER_SUBNET6})));
    for (protocol, port) in [("TCP", 81), ("HTTP", 80)] {
        let web = lb.listener(protocol, port, json!({}))?;
        let pool = lb.pool(&web, protocol, json!({}))?;
        lb.members(&pool, &members)?;
        lb.settles(&[])?;
        for family in [V4, V6] {
            let served = eventually(5, || lb.get(&web, family))?;
            ensure!(served.status == 200, "{protocol}: status {}", served.status);
        }
        lb.is_told(&web)?;
    }
    lb.delete()
}
