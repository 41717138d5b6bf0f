//! Metrics in Prometheus' text format: what a stock amphora shows, with the listeners of the packet path
//! under the same names and labels, and our own beside them.
//!
//! A PROMETHEUS listener is HAProxy's: it asks 127.0.0.1:9102, where [`serve`] answers, and that asks
//! HAProxy's own exporter in turn.

pub mod exposition;
pub mod names;
mod packets;
pub mod serve;

use exposition::{Exposition, Kind};

use super::message::Known;
use crate::observe::status::Count;

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub known: Known<'a>,
    /// Frames that the packet path did not forward.
    pub frames: &'a [Count],
    /// What HAProxy's exporter says, or why it says nothing; none where it is not wanted.
    pub exporter: Option<Result<&'a str, &'a str>>,
    pub utilization: Utilization,
}

/// How busy the machine is, in percent, as the stock amphora reckons it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Utilization {
    /// The load of the last minute, by CPUs.
    pub cpu: f64,
    /// What is not available to new processes.
    pub memory: f64,
}

/// All of it. Where HAProxy's exporter fails, what its stats socket says stands in for it, and a gauge says
/// so.
pub fn metrics(observed: &Observed<'_>) -> Exposition {
    let mut shown = Exposition::default();
    let Utilization { cpu, memory } = observed.utilization;
    let help = "Load balancer CPU utilization (percentage).";
    shown.add("octavia_loadbalancer_cpu", Kind::Gauge, help, &[], format!("{cpu:.1}"));
    let help = "Load balancer memory utilization (percentage).";
    shown.add("octavia_loadbalancer_memory", Kind::Gauge, help, &[], format!("{memory:.1}"));
    match observed.exporter {
        Some(Ok(text)) => names::take(text, &|id| observed.known.by_packets(id), &mut shown),
        Some(Err(_)) | None => packets::of_rows(&observed.known, &mut shown),
    }
    let fails = matches!(observed.exporter, Some(Err(_)));
    let help = "Whether HAProxy's own exporter did not answer.";
    shown.add("octavia_xdp_exporter_fails", Kind::Gauge, help, &[], u8::from(fails));
    packets::of_packets(&observed.known, &mut shown);
    let help = "Frames that the packet path did not forward, by the reason.";
    for Count { reason, frames, .. } in observed.frames {
        let labels = [("reason", *reason)];
        shown.add("octavia_xdp_frames_not_forwarded_total", Kind::Counter, help, &labels, frames);
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agent_api::understood::{self, Engine, Layer7, Protocol};

    use super::super::pools::tests::{member, pool, row};
    use super::*;
    use crate::health::{Member, Standing, Standings, Thresholds};
    use crate::moved::Moved;
    use crate::observe::stats;

    const EXPORTER: &str = "\
# HELP haproxy_process_nbthread Threads
# TYPE haproxy_process_nbthread gauge
haproxy_process_nbthread 2
# HELP haproxy_process_current_connections Connections
# TYPE haproxy_process_current_connections gauge
haproxy_process_current_connections 4
# HELP haproxy_frontend_bytes_in_total Bytes
# TYPE haproxy_frontend_bytes_in_total counter
haproxy_frontend_bytes_in_total{proxy=\"prometheus-exporter-internal-endpoint\"} 99
haproxy_frontend_bytes_in_total{proxy=\"http\"} 5
haproxy_frontend_bytes_in_total{proxy=\"tcp\"} 6
# HELP haproxy_backend_active_servers Servers
# TYPE haproxy_backend_active_servers gauge
haproxy_backend_active_servers{proxy=\"p:http\"} 1
haproxy_backend_active_servers{proxy=\"p:tcp\"} 1
# HELP haproxy_server_weight Weight
# TYPE haproxy_server_weight gauge
haproxy_server_weight{proxy=\"p:http\",server=\"m\"} 7
";

    fn listener(id: &str, protocol: Protocol) -> understood::Listener {
        let engine = match protocol {
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => Engine::Xdp,
            Protocol::Http | Protocol::TerminatedHttps | Protocol::Prometheus => {
                Engine::Haproxy(Layer7::Http)
            }
        };
        understood::Listener {
            id: id.to_owned(),
            vips: vec!["192.0.2.1".parse().unwrap()],
            port: 80,
            protocol,
            engine,
            connection_limit: Some(50),
            client_timeout_ms: 0,
            server_timeout_ms: 0,
            default_pool: Some("p".to_owned()),
            pools: vec![pool(vec![member("m", 1), member("n", 2)])],
            log_format: None,
        }
    }

    fn moved(n: u64) -> Moved {
        let (bytes_in, bytes_out) = (100 * n, 200 * n);
        Moved {
            opened: n,
            bytes_in,
            bytes_out,
            payload_in: n,
            payload_out: 2 * n,
            ..Moved::default()
        }
    }

    fn stats() -> stats::Stats {
        let listener = |id: &str| stats::Listener {
            id: id.to_owned(),
            leaving: false,
            source: String::new(),
            connections: 3,
            // One of them by a member that is no more.
            moved: moved(6),
            refused: 1,
            limited: 2,
            unserved: 3,
            exhausted: 4,
            logged: 5,
            unlogged: 6,
        };
        let member = |listener: &str, id: &str, n| stats::Member {
            listener: listener.to_owned(),
            pool: "p".to_owned(),
            id: id.to_owned(),
            connections: 1,
            moved: moved(n),
        };
        let both = |of: &dyn Fn(&str) -> Vec<stats::Member>| [of("tcp"), of("udp")].concat();
        stats::Stats {
            name: "a".to_owned(),
            listeners: vec![listener("tcp"), listener("udp")],
            members: both(&|it| vec![member(it, "m", 2), member(it, "n", 3)]),
        }
    }

    fn shown(
        exporter: Option<Result<&str, &str>>,
        rows: &[crate::haproxy_stats::Row],
    ) -> BTreeMap<String, String> {
        let monitor = agent_api::Monitor {
            probe: agent_api::Probe::Tcp,
            delay_s: 1,
            timeout_s: 1,
            rise: 1,
            fall: 1,
            on_marked_down: agent_api::OnMarkedDown::Keep,
        };
        let mut tcp = listener("tcp", Protocol::Tcp);
        tcp.pools[0].monitor = Some(monitor);
        let listeners = [tcp, listener("udp", Protocol::Udp), listener("http", Protocol::Http)];
        let thresholds = Thresholds { rise: 1, fall: 1 };
        let standing =
            |id: &str, member| (("p".to_owned(), id.to_owned()), Standing { member, thresholds });
        let standings = Standings::from([
            standing("m", Member::Up { failed: 0 }),
            standing("n", Member::Down { passed: 0 }),
        ]);
        let stats = stats();
        let known = Known {
            listeners: &listeners,
            forwarded: Some(&stats),
            standings: &standings,
            rows,
            starting: false,
        };
        let frames = [Count { reason: "NotIp", text: "", frames: 8 }];
        let utilization = Utilization { cpu: 12.34, memory: 50.0 };
        let observed = Observed { known, frames: &frames, exporter, utilization };
        let text = metrics(&observed).to_string();
        strict(&text)
    }

    /// Its samples, if the text is as the format wants it: each family once, with one HELP and one TYPE
    /// before all of its samples, and no sample twice.
    pub fn strict(text: &str) -> BTreeMap<String, String> {
        let (mut samples, mut families, mut family) = (BTreeMap::new(), Vec::new(), None);
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split(' ').next().unwrap().to_owned();
                let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
                assert!(["gauge", "counter"].contains(&kind), "{line}");
                assert!(!families.contains(&name), "{name} twice");
                families.push(name.clone());
                family = Some(name);
                assert!(lines.peek().is_some_and(|next| !next.starts_with('#')), "{line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(Some(series.split('{').next().unwrap()), family.as_deref(), "{line}");
            value.parse::<f64>().unwrap();
            assert_eq!(samples.insert(series.to_owned(), value.to_owned()), None, "{line}");
        }
        samples
    }

    #[test]
    fn of_both_engines() {
        let shown = shown(Some(Ok(EXPORTER)), &[]);
        let rows = [
            ("octavia_loadbalancer_cpu", Some("12.3")),
            ("octavia_loadbalancer_memory", Some("50.0")),
            // HAProxy's four, and three of each listener of packets.
            ("octavia_loadbalancer_current_connections", Some("10")),
            ("octavia_loadbalancer_nbthread", None),
            ("octavia_listener_bytes_in_total{listener=\"http\"}", Some("5")),
            ("octavia_listener_bytes_in_total{listener=\"tcp\"}", Some("6")),
            ("octavia_listener_bytes_in_total{listener=\"udp\"}", Some("600")),
            ("octavia_listener_bytes_out_total{listener=\"udp\"}", Some("1200")),
            ("octavia_listener_status{listener=\"tcp\",state=\"UP\"}", Some("1")),
            ("octavia_listener_status{listener=\"tcp\",state=\"DOWN\"}", Some("0")),
            ("octavia_listener_current_sessions{listener=\"tcp\"}", Some("3")),
            ("octavia_listener_sessions_total{listener=\"tcp\"}", Some("6")),
            ("octavia_listener_limit_sessions{listener=\"udp\"}", Some("50")),
            ("octavia_listener_denied_connections_total{listener=\"udp\"}", Some("1")),
            (
                "octavia_listener_bytes_in_total{listener=\"prometheus-exporter-internal-endpoint\"}",
                None,
            ),
            ("octavia_pool_active_members{pool=\"p:http\"}", Some("1")),
            ("octavia_pool_active_members{pool=\"p:tcp\"}", Some("1")),
            ("octavia_pool_active_members{pool=\"p:udp\"}", Some("2")),
            ("octavia_pool_status{pool=\"p:tcp\",state=\"UP\"}", Some("1")),
            ("octavia_pool_bytes_in_total{pool=\"p:tcp\"}", Some("6")),
            ("octavia_member_weight{pool=\"p:http\",member=\"m\"}", Some("7")),
            ("octavia_member_weight{pool=\"p:udp\",member=\"n\"}", Some("2")),
            ("octavia_member_status{pool=\"p:tcp\",member=\"m\",state=\"UP\"}", Some("1")),
            ("octavia_member_status{pool=\"p:tcp\",member=\"n\",state=\"DOWN\"}", Some("1")),
            ("octavia_member_status{pool=\"p:tcp\",member=\"n\",state=\"UP\"}", Some("0")),
            ("octavia_member_bytes_out_total{pool=\"p:tcp\",member=\"n\"}", Some("6")),
            ("octavia_xdp_listener_limited_total{listener=\"tcp\"}", Some("2")),
            ("octavia_xdp_frames_not_forwarded_total{reason=\"NotIp\"}", Some("8")),
            ("octavia_xdp_exporter_fails", Some("0")),
        ];
        for (series, want) in rows {
            assert_eq!(shown.get(series).map(String::as_str), want, "{series}");
        }
    }

    #[test]
    fn without_the_exporter() {
        let rows = [
            row("http", "FRONTEND", "OPEN", 0),
            row("p:http", "m", "DOWN", 7),
            row("p:http", "BACKEND", "UP", 7),
        ];
        let wants = [
            ("octavia_listener_bytes_in_total{listener=\"http\"}", "100"),
            ("octavia_listener_bytes_in_total{listener=\"tcp\"}", "6"),
            ("octavia_pool_sessions_total{pool=\"p:http\"}", "7"),
            ("octavia_member_weight{pool=\"p:http\",member=\"m\"}", "7"),
            ("octavia_member_status{pool=\"p:http\",member=\"m\",state=\"DOWN\"}", "1"),
            ("octavia_loadbalancer_current_connections", "9"),
        ];
        for (exporter, fails) in [(None, "0"), (Some(Err("refused")), "1")] {
            let shown = shown(exporter, &rows);
            for (series, want) in wants.into_iter().chain([("octavia_xdp_exporter_fails", fails)]) {
                assert_eq!(shown.get(series).map(String::as_str), Some(want), "{series}");
            }
        }
    }
}
