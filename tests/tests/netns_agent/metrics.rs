//! What Prometheus is shown: of a listener of the tenant's, and of the agent for the operator.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use xdp_lb_tests::agent::Agent;
use xdp_lb_tests::clients::{TIMEOUT, http_get, udp_ask};
use xdp_lb_tests::lab::{FAMILIES, Family, Lab};
use xdp_lb_tests::uploads::{self, LOAD_BALANCER, Speaks, member, uuid};

use super::world::{HTTP, TCP, UDP, frontend, haproxy, lab, members, port, servers, vips};

/// Id of the PROMETHEUS listener, and so its port.
const METRICS: u32 = 9;
/// Of each kind, in each family.
const REQUESTS: u64 = 7;
/// For a listener that is wanted to be there, and counters to be HAProxy's.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

#[test]
fn netns_edge_20_metrics_of_all_listeners() {
    let lab = lab();
    let _servers = servers(&lab);
    let agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    let frontends = [(TCP, Speaks::Tcp), (HTTP, Speaks::Http)];
    let frontends = frontends.map(|(id, speaks)| frontend(&lab, id, speaks));
    let config = haproxy(&agent, &frontends);
    let config = uploads::with_metrics(&config, &vips(&lab), METRICS, port(METRICS));
    agent.serve(LOAD_BALANCER, &config).expect("served");
    let packets = uploads::lvs(UDP, "UDP", &vips(&lab), port(UDP), &members(&lab.members));
    agent.serve_lvs(&uuid(UDP), &packets).expect("served");

    lab.client.netns.enter(|| {
        for family in FAMILIES {
            for _ in 0..REQUESTS {
                http_get(lab.vip(family, port(TCP)), "/").expect("TCP");
                http_get(lab.vip(family, port(HTTP)), "/").expect("HTTP");
                udp_ask(lab.vip(family, port(UDP)), b"?", TIMEOUT).expect("UDP");
            }
        }
    });
    let of_listener =
        |what: &str, id: u32| format!("octavia_listener_{what}{{listener=\"{}\"}}", uuid(id));
    let all = (2 * REQUESTS).to_string();
    let counted = |shown: &BTreeMap<String, String>| {
        [TCP, HTTP, UDP]
            .iter()
            .all(|id| shown.get(&of_listener("sessions_total", *id)) == Some(&all))
    };
    let tenants = until(&counted, || asked(&lab));
    // A question over UDP is one byte, behind 28 and 48 of headers.
    let bytes = (REQUESTS * (29 + 49)).to_string();
    assert_eq!(tenants.get(&of_listener("bytes_in_total", UDP)), Some(&bytes), "whole packets");
    // HAProxy's own listener of the metrics is one too, and the way there is not.
    assert!(tenants.contains_key(&of_listener("sessions_total", METRICS)));
    assert!(!tenants.keys().any(|series| series.contains("prometheus-exporter")));
    let by_members: u64 = (0..4)
        .map(|at| {
            let (pool, member) = (uuid(UDP + 1000), member(UDP, at));
            let labels = format!("pool=\"{pool}:{}\",member=\"{member}\"", uuid(UDP));
            let series = format!("octavia_member_sessions_total{{{labels}}}");
            tenants.get(&series).and_then(|count| count.parse::<u64>().ok()).expect("a member")
        })
        .sum();
    assert_eq!(by_members, 2 * REQUESTS);

    // The operator is shown the same listeners, at the agent's own port.
    let answer = agent.ask("GET", "/metrics", b"").expect("an answer");
    assert_eq!(answer.status, 200);
    let operators = parse(&answer.body);
    for id in [TCP, HTTP, UDP] {
        assert_eq!(operators.get(&of_listener("sessions_total", id)), Some(&all), "{id}");
    }

    // Without the listener nobody is asked at that port, and the operator is shown them still.
    agent.serve(LOAD_BALANCER, &haproxy(&agent, &frontends)).expect("served");
    let inside = agent.inside().expect("a namespace");
    let listening = || inside.run("ss", &["-Hltn", "sport = :9102"]).expect("ss").trim().to_owned();
    until(&|listening: &String| listening.is_empty(), listening);
    let answer = agent.ask("GET", "/metrics", b"").expect("an answer");
    assert_eq!(parse(&answer.body).get(&of_listener("sessions_total", TCP)), Some(&all));
}

/// By a client, of the tenant's listener; empty while it is not there.
fn asked(lab: &Lab) -> BTreeMap<String, String> {
    let get = || -> io::Result<String> {
        let mut stream = TcpStream::connect(lab.vip(Family::V4, port(METRICS)))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = lab.client.netns.enter(get).unwrap_or_default();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => parse(body),
        Some(_) | None => BTreeMap::new(),
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series.to_owned(), value.to_owned()))
        .collect()
}

fn until<T: std::fmt::Debug>(good: &dyn Fn(&T) -> bool, look: impl Fn() -> T) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if good(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "{seen:?}");
        sleep(POLL);
    }
}
