//! Who serves: algorithms, persistence, weights, and members that come, go and stand by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Group, Scenario, scenario};
use crate::clients::{self, Connection};
use crate::lab::Family::V4;
use crate::octavia::balancer::{Listener, LoadBalancer, Run, everybody, member};
use crate::octavia::cloud::{CLIENT_ADDRESSES, HTTP, Image, OTHER, OTHER_SUBNET, eventually};

pub const SCENARIOS: [Scenario; 7] = [
    scenario("algorithms", Group::Members, algorithms),
    scenario("persistence", Group::Members, persistence),
    scenario("weights", Group::Members, weights),
    scenario("drained, disabled", Group::Members, drained_and_disabled),
    scenario("backup", Group::Members, backup),
    scenario("members on other networks", Group::Members, other_networks),
    scenario("batch update of members", Group::Members, batch),
];

/// A TCP and an HTTP listener, so that in ours both engines are asked.
const PROTOCOLS: [(&str, u16); 2] = [("TCP", 81), ("HTTP", 80)];

/// Which member answers a request from one of the client's addresses.
fn from(lb: &LoadBalancer<'_>, listener: &Listener, number: u8) -> Result<String> {
    let vip = lb.vip(V4, listener.port)?;
    let own = lb.run.cloud.from(number, vip);
    lb.counted(listener, || Ok(Connection::open_from(own, vip)?.get("/")?.member))
}

/// Checks that each of the client's addresses is served by one member, and all by more than one.
fn sticks(lb: &LoadBalancer<'_>, listener: &Listener) -> Result<()> {
    let mut served = BTreeMap::<u8, BTreeSet<String>>::new();
    for number in (0..CLIENT_ADDRESSES).chain(0..CLIENT_ADDRESSES) {
        served.entry(number).or_default().insert(from(lb, listener, number)?);
    }
    ensure!(served.values().all(|members| members.len() == 1), "not one for each: {served:?}");
    let members: BTreeSet<_> = served.values().flatten().collect();
    ensure!(members.len() > 1, "all served by {members:?}");
    Ok(())
}

fn algorithms(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    for (protocol, port) in PROTOCOLS {
        let (web, pool) = lb.web(protocol, port, json!({}))?;
        lb.serves(&web, &[("m1", 4), ("m2", 4), ("m3", 4)])?;
        for algorithm in ["LEAST_CONNECTIONS", "SOURCE_IP"] {
            let other = json!({"pool": {"lb_algorithm": algorithm}});
            lb.change("PUT", &format!("pools/{pool}"), Some(other))?;
            match algorithm {
                "SOURCE_IP" => sticks(&lb, &web),
                // Of members that all have none, whichever.
                _ => lb.shares(&web, V4, 12).map(drop),
            }
            .with_context(|| format!("{protocol}, {algorithm}"))?;
        }
        lb.settles(&[])?;
        lb.is_told(&web)?;
    }
    lb.delete()
}

fn persistence(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    for (protocol, port) in PROTOCOLS {
        let web = lb.listener(protocol, port, json!({}))?;
        let sticky = json!({"session_persistence": {"type": "SOURCE_IP"}});
        let pool = lb.pool(&web, protocol, sticky)?;
        lb.members(&pool, &everybody(run.cloud))?;
        sticks(&lb, &web).context(protocol)?;
        if protocol == "HTTP" {
            for sticky in [
                json!({"type": "HTTP_COOKIE"}),
                json!({"type": "APP_COOKIE", "cookie_name": "SESSION"}),
            ] {
                let by_cookie = sticky["type"] == "HTTP_COOKIE";
                let other = json!({"pool": {"session_persistence": sticky}});
                lb.change("PUT", &format!("pools/{pool}"), Some(other))?;
                if by_cookie {
                    cookie(&lb, &web)?;
                } else {
                    ensure!(lb.get(&web, V4)?.status == 200);
                }
            }
        }
        lb.settles(&[])?;
        lb.is_told(&web)?;
    }
    lb.delete()
}

/// The cookie that HAProxy gives leads to the member that it came with.
fn cookie(lb: &LoadBalancer<'_>, web: &Listener) -> Result<()> {
    let vip = lb.vip(V4, web.port)?;
    let ask = |headers: &str| {
        let said = lb.counted(web, || Ok(clients::http_text(vip, "/", headers)?))?;
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches([':', ' ']).to_owned())
        };
        anyhow::Ok((value("member").context("no member")?, value("set-cookie")))
    };
    let (first, given) = ask("")?;
    let given = given.context("no cookie")?;
    let cookie = given.split(';').next().unwrap_or_default();
    for _ in 0..6 {
        let (member, _) = ask(&format!("Cookie: {cookie}\r\n"))?;
        ensure!(member == first, "{cookie} was given by {first}, and leads to {member}");
    }
    Ok(())
}

fn weights(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    for (protocol, port) in PROTOCOLS {
        let web = lb.listener(protocol, port, json!({}))?;
        let pool = lb.pool(&web, protocol, json!({}))?;
        let members = run.cloud.members.iter().zip(1..);
        let members = members
            .map(|(it, weight)| member(&it.host.name, it.host.v4, HTTP, json!({"weight": weight})));
        lb.members(&pool, &members.collect::<Vec<_>>())?;
        lb.settles(&[])?;
        lb.serves(&web, &[("m1", 4), ("m2", 8), ("m3", 12)]).context(protocol)?;
        lb.is_told(&web)?;
    }
    lb.delete()
}

fn drained_and_disabled(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    for (protocol, port) in PROTOCOLS {
        let (web, pool) = lb.web(protocol, port, json!({}))?;
        // Without one nobody is told who is drained.
        lb.monitor(&pool, "TCP", json!({}))?;
        lb.serves(&web, &[("m1", 4), ("m2", 4), ("m3", 4)])?;
        let mut kept = (protocol == "TCP").then(|| kept_by(&lb, &web, "m3")).transpose()?;
        let set = |changed: Value| {
            let mut members = everybody(run.cloud);
            members[2] = member("m3", run.cloud.members[2].host.v4, HTTP, changed);
            lb.members(&pool, &members)
        };
        set(json!({"weight": 0}))?;
        lb.serves(&web, &[("m1", 6), ("m2", 6)]).context("drained")?;
        if let Some(kept) = &mut kept {
            let response = run.cloud.client.netns.enter(|| kept.get("/"))?;
            ensure!(response.member == "m3", "a connection moved to {}", response.member);
        }
        drop(kept);
        lb.settles(&[("m3", "DRAINING")]).with_context(|| format!("{protocol}, drained"))?;
        set(json!({"admin_state_up": false}))?;
        lb.serves(&web, &[("m1", 6), ("m2", 6)]).context("disabled")?;
        lb.settles(&[("m3", "OFFLINE")])?;
        set(json!({}))?;
        // HAProxy has it down, as it was, until a check has passed.
        lb.settles(&[])?;
        lb.serves(&web, &[("m1", 4), ("m2", 4), ("m3", 4)])
            .with_context(|| format!("{protocol}, enabled again"))?;
        lb.is_told(&web)?;
        disabled(&lb, &web)?;
        // The names of the next one's members are the same.
        lb.change("DELETE", &format!("pools/{pool}"), None)?;
    }
    lb.delete()
}

/// A listener that is disabled answers nobody, and is there again at once.
fn disabled(lb: &LoadBalancer<'_>, web: &Listener) -> Result<()> {
    let set = |up: bool| {
        let wanted = json!({"listener": {"admin_state_up": up}});
        lb.change("PUT", &format!("listeners/{}", web.id), Some(wanted))
    };
    set(false)?;
    let vip = lb.vip(V4, web.port)?;
    eventually(5, || {
        let asked = lb.run.cloud.client.netns.enter(|| clients::http_get(vip, "/"));
        ensure!(asked.is_err(), "a disabled listener answers: {asked:?}");
        Ok(())
    })?;
    set(true)?;
    eventually(5, || lb.get(web, V4)).map(drop)
}

/// A connection that this member serves.
fn kept_by(lb: &LoadBalancer<'_>, web: &Listener, name: &str) -> Result<Connection> {
    let vip = lb.vip(V4, web.port)?;
    for _ in 0..12 {
        let (kept, member) = lb.counted(web, || {
            let mut kept = Connection::open(vip)?;
            let member = kept.get("/")?.member;
            Ok((kept, member))
        })?;
        if member == name {
            return Ok(kept);
        }
    }
    anyhow::bail!("{name} serves nobody")
}

fn backup(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    for (protocol, port) in PROTOCOLS {
        let web = lb.listener(protocol, port, json!({}))?;
        let pool = lb.pool(&web, protocol, json!({}))?;
        let mut members = everybody(run.cloud);
        members[2] = member("m3", run.cloud.members[2].host.v4, HTTP, json!({"backup": true}));
        lb.members(&pool, &members)?;
        lb.monitor(&pool, "TCP", json!({}))?;
        lb.settles(&[])?;
        lb.serves(&web, &[("m1", 6), ("m2", 6)])?;
        let [m1, m2, _] = &run.cloud.members[..] else { anyhow::bail!("there are three") };
        let both = [m1, m2];
        both.iter().for_each(|member| member.dies());
        let name = format!("pool {port}");
        let down = [("m1", "ERROR"), ("m2", "ERROR"), (&name, "DEGRADED"), ("lb", "DEGRADED")];
        let served = lb.settles(&down).and_then(|()| lb.serves(&web, &[("m3", 6)]));
        both.iter().try_for_each(|member| member.lives())?;
        served.context(protocol)?;
        lb.settles(&[])?;
        lb.serves(&web, &[("m1", 6), ("m2", 6)])?;
        lb.is_told(&web)?;
        // The names of the next one's members are the same.
        lb.change("DELETE", &format!("pools/{pool}"), None)?;
    }
    lb.delete()
}

fn other_networks(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let web = lb.listener("TCP", 81, json!({}))?;
    let pool = lb.pool(&web, "TCP", json!({}))?;
    let other = &run.cloud.other.host;
    // Without a subnet it is behind the router of the VIP's network.
    let routed = member(OTHER, other.v4, HTTP, json!({"subnet_id": null}));
    lb.members(&pool, &[routed])?;
    lb.serves(&web, &[(OTHER, 3)]).context("routed")?;
    let peer = lb.get(&web, V4)?.peer;
    let vip = lb.vip(V4, 0)?.ip();
    ensure!(run.image == Image::Stock || peer.ip() == vip, "routed: it comes from {peer}");
    let mut members = everybody(run.cloud);
    members.push(member(OTHER, other.v4, HTTP, json!({"subnet_id": OTHER_SUBNET})));
    lb.members(&pool, &members)?;
    lb.serves(&web, &[("m1", 3), ("m2", 3), ("m3", 3), (OTHER, 3)]).context("plugged")?;
    let is_inside = |peer: SocketAddr| matches!(peer.ip(), std::net::IpAddr::V4(v4) if v4.octets()[..3] == [192, 0, 2]);
    eventually(5, || {
        let response = lb.get(&web, V4)?;
        ensure!(response.member == OTHER, "served by {}", response.member);
        ensure!(is_inside(response.peer), "plugged: it comes from {}", response.peer);
        Ok(())
    })?;
    lb.ends(&[&web])
}

fn batch(run: &Run<'_>) -> Result<()> {
    let lb = run.single()?;
    let web = lb.listener("TCP", 81, json!({}))?;
    let pool = lb.pool(&web, "TCP", json!({}))?;
    let [m1, m2, m3] = &run.cloud.members[..] else { anyhow::bail!("there are three") };
    let of =
        |it: &crate::octavia::cloud::Member, more| member(&it.host.name, it.host.v4, HTTP, more);
    lb.members(&pool, &[of(m1, json!({})), of(m2, json!({}))])?;
    lb.serves(&web, &[("m1", 6), ("m2", 6)])?;
    // One is changed, one goes, one comes.
    lb.members(&pool, &[of(m1, json!({"weight": 2})), of(m3, json!({}))])?;
    lb.serves(&web, &[("m1", 8), ("m3", 4)])?;
    let path = format!("pools/{pool}/members?additive_only=true");
    lb.change("PUT", &path, Some(json!({"members": [of(m2, json!({}))]})))?;
    lb.serves(&web, &[("m1", 6), ("m2", 3), ("m3", 3)])?;
    lb.ends(&[&web])
}
