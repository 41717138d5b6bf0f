//! What it takes to understand an upload of ten thousand members, and of a tenth of them: ten times as
//! much, not more.

use std::fmt::Write;
use std::time::Instant;

use agent_api::{Paths, haproxy, lvs};
use anyhow::{Context, Result, ensure};

use crate::report::{Parse, quantile};

const MEMBERS: [u32; 2] = [1_000, 10_000];
const LOAD_BALANCER: &str = "40c52c12-68e1-5926-83e7-88107bce47cb";
const LISTENER: &str = "f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3";
const POOL: &str = "f609e499-56b2-59a1-8995-c391176319cf";

pub fn run(rounds: u32) -> Result<Vec<Parse>> {
    let mut parses = Vec::new();
    for members in MEMBERS {
        let text = haproxy_text(members)?;
        parses.push(measure("HAProxy", members, &text, rounds, |text| {
            Ok(haproxy::parse(text, &Paths::default())?.listeners().pop())
        })?);
        let text = lvs_text(members)?;
        parses.push(measure("keepalived", members, &text, rounds, |text| {
            Ok(lvs::parse(text, &Paths::default())?.listener())
        })?);
    }
    Ok(parses)
}

fn measure(
    name: &str,
    members: u32,
    text: &str,
    rounds: u32,
    parse: impl Fn(&str) -> Result<Option<agent_api::understood::Listener>>,
) -> Result<Parse> {
    let mut ms = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let listener = parse(text)?.context("a listener")?;
        ms.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(listener.pools[0].members.len() == members as usize, "all of them");
    }
    let (name, bytes) = (name.to_owned(), text.len());
    Ok(Parse { name, members, bytes, median_ms: quantile(&ms, 0.5) })
}

fn haproxy_text(members: u32) -> Result<String> {
    let mut text = format!(
        "# Configuration for loadbalancer {LOAD_BALANCER}
global
    daemon
    user nobody
    log /run/rsyslog/octavia/log local0
    log /run/rsyslog/octavia/log local1 notice
    stats socket /var/lib/octavia/{LOAD_BALANCER}.sock mode 0666 level user
    server-state-file /var/lib/octavia/{LOAD_BALANCER}/servers-state
    maxconn 50000

defaults
    log global
    retries 3
    option redispatch
    option splice-request
    option splice-response
    option http-keep-alive

frontend {LISTENER}
    maxconn 50000
    bind 10.0.0.10:80
    mode tcp
    default_backend {POOL}:{LISTENER}
    timeout client 50000

backend {POOL}:{LISTENER}
    mode tcp
    balance roundrobin
    load-server-state-from-file global
    timeout check 4s
    fullconn 50000
    option allbackups
    timeout connect 5000
    timeout server 50000
"
    );
    for member in 0..members {
        let (id, address) = (id(member), address(member));
        let check = "check inter 5s fall 3 rise 2";
        writeln!(text, "    server {id} {address}:8080 weight 1 {check}")?;
    }
    Ok(text)
}

fn lvs_text(members: u32) -> Result<String> {
    let mut text = format!(
        "# Configuration for Loadbalancer {LOAD_BALANCER}
# Configuration for Listener {LISTENER}

net_namespace amphora-haproxy

virtual_server_group ipv4-group {{
    10.0.0.10 53
}}

virtual_server group ipv4-group {{
    lb_algo wrr
    lb_kind NAT
    protocol UDP
    delay_loop 5
    delay_before_retry 5
    retry 3

    # Configuration for Pool {POOL}
    # Configuration for HealthMonitor a23c180f-b3e4-53fa-b943-49b7920ad336
"
    );
    for member in 0..members {
        let (id, address) = (id(member), address(member));
        writeln!(
            text,
            "    # Configuration for Member {id}
    real_server {address} 8080 {{
        weight 1
        MISC_CHECK {{
            misc_path \"/var/lib/octavia/lvs/check/udp_check.sh {address} 8080\"
            misc_timeout 4
        }}
    }}
"
        )?;
    }
    text.push_str("}\n");
    Ok(text)
}

fn id(member: u32) -> String {
    format!("{member:08x}-0000-5000-8000-000000000000")
}

fn address(member: u32) -> std::net::Ipv4Addr {
    (0x0a01_0000 + member + 1).into()
}
