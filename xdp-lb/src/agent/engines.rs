//! Who serves which listener: the packet path, HAProxy beside it, or nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use agent_api::amphora::{Haproxy, Wanted};
use agent_api::rules::Rule;
use agent_api::understood::{self, Engine, Listener, Protocol};
use agent_api::{Desired, IpNet, Name, OnMarkedDown};
use ipnet::Ipv4Net;

use crate::balancer::Serving;
use crate::guard;
use crate::record::{Beside, Pool};

/// The network of an address that nobody sends from (RFC 1122, 3.2.1.3): a listener that lets in this
/// one alone is served, and told of in heartbeats, and lets in nobody.
const NOBODY: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 32));

/// What can forward, whom it may let in, and how.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Why the packet path cannot be where the VIPs are, if so.
    pub broken: Option<&'a str>,
    /// The rules of a VIP that no security group guards; where none have come yet, nobody is let in.
    pub guarded: Option<&'a [Rule]>,
    /// What becomes of the flows of members that are down.
    pub on_marked_down: OnMarkedDown,
}

/// A division of all listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engines {
    /// What the packet path does, and is to tell of the rest.
    pub serving: Serving,
    /// Ids of the listeners that are HAProxy's.
    pub haproxy: BTreeSet<String>,
}

impl Engines {
    /// Of all that is wanted. `name` is that of the amphora, for where nothing is.
    pub fn of(wanted: &Wanted, name: &Name, means: Means<'_>) -> Self {
        let (listeners, mut desired) = match &wanted.served {
            Some((understood, desired)) => (&understood.listeners[..], desired.clone()),
            None => {
                let (listeners, pools) = (Vec::new(), Vec::new());
                (&[][..], Desired { name: name.clone(), listeners, pools })
            }
        };
        if means.broken.is_some() {
            desired.listeners.clear();
        }
        if let Some(rules) = means.guarded {
            for listener in &mut desired.listeners {
                let allowed = guard::allowed(rules, listener.protocol, listener.port);
                listener.allowed_networks = allowed.unwrap_or_else(|| vec![NOBODY]);
            }
        }
        for monitor in desired.pools.iter_mut().filter_map(|pool| pool.monitor.as_mut()) {
            monitor.on_marked_down = means.on_marked_down;
        }
        let forwarded: BTreeSet<&str> = desired.listeners.iter().map(|it| &it.id[..]).collect();
        // Without a VIP there is nothing to serve: it is disabled, or its load balancer is.
        let others =
            listeners.iter().filter(|it| !it.vips.is_empty() && !forwarded.contains(&it.id[..]));
        let others: Vec<_> = others.map(|listener| beside(listener, means)).collect();
        let haproxy = others.iter().filter(|it| it.by.is_some()).map(|it| it.id.clone()).collect();
        Self { serving: Serving { desired, beside: others }, haproxy }
    }

    /// HAProxy's part of each load balancer, where it has one, with `more` listeners than its own.
    pub fn parts(&self, wanted: &Wanted, more: &BTreeSet<String>) -> BTreeMap<String, Haproxy> {
        let has = |id: &str| self.haproxy.contains(id) || more.contains(id);
        let parts = wanted.haproxy.iter().map(|(id, whole)| (id.clone(), whole.only(has)));
        parts.filter_map(|(id, part)| Some((id, part?))).collect()
    }
}

fn beside(listener: &Listener, means: Means<'_>) -> Beside {
    let broken = means.broken.unwrap_or_default().to_owned();
    let mended = || "what `xdp-lb doctor` tells of the interface".to_owned();
    let (by, why, change) = match (&listener.engine, listener.protocol) {
        (Engine::Haproxy(why), _) => (Some("haproxy"), why.to_string(), why.change()),
        (Engine::Xdp, Protocol::Udp | Protocol::Sctp) => (None, broken, mended()),
        (Engine::Xdp, _) => (Some("haproxy"), broken, mended()),
    };
    Beside {
        id: listener.id.clone(),
        vips: listener.vips.clone(),
        port: listener.port,
        protocol: listener.protocol.to_string(),
        by: by.map(str::to_owned),
        why,
        change: Some(change),
        pools: listener.pools.iter().map(pool).collect(),
    }
}

fn pool(pool: &understood::Pool) -> Pool {
    Pool {
        id: pool.id.clone(),
        algorithm: pool.algorithm,
        persistence: pool.persistence.clone(),
        monitor: pool.monitor.clone(),
    }
}

#[cfg(test)]
mod tests {
    use agent_api::rules;
    use agent_api::understood::{Layer7, Understood};
    use agent_api::{Paths, haproxy};

    use super::*;

    const BROKEN: &str = "another XDP program is there";
    const NOBODY: &str = "0.0.0.0/32";

    /// On port 80, whose id is its protocol.
    fn listener(protocol: Protocol, engine: Engine) -> Listener {
        Listener {
            id: protocol.to_string(),
            vips: vec!["192.0.2.1".parse().unwrap()],
            port: 80,
            protocol,
            engine,
            connection_limit: None,
            client_timeout_ms: 0,
            server_timeout_ms: 0,
            default_pool: None,
            pools: Vec::new(),
            log_format: None,
        }
    }

    fn forwarded(protocol: agent_api::Protocol, id: &Protocol) -> agent_api::Listener {
        agent_api::Listener {
            id: id.to_string(),
            vips: vec!["192.0.2.1".parse().unwrap()],
            port: 80,
            protocol,
            pool: None,
            enabled: true,
            connection_limit: None,
            allowed_networks: Vec::new(),
            idle_timeout_s: 60,
            log_format: None,
        }
    }

    fn name() -> Name {
        Name::try_from("a".to_owned()).unwrap()
    }

    /// TCP and UDP of the packet path, HTTP of HAProxy, and a UDP listener that is disabled.
    fn wanted() -> Wanted {
        use agent_api::Protocol::{Tcp, Udp};
        let off = Listener {
            id: "off".to_owned(),
            vips: Vec::new(),
            port: 0,
            ..listener(Protocol::Udp, Engine::Xdp)
        };
        let listeners = vec![
            listener(Protocol::Tcp, Engine::Xdp),
            listener(Protocol::Http, Engine::Haproxy(Layer7::Http)),
            listener(Protocol::Udp, Engine::Xdp),
            off,
        ];
        let understood = Understood { load_balancer: "lb".to_owned(), listeners };
        let listeners = vec![forwarded(Tcp, &Protocol::Tcp), forwarded(Udp, &Protocol::Udp)];
        let desired = Desired { name: name(), listeners, pools: Vec::new() };
        Wanted { served: Some((understood, desired)), haproxy: BTreeMap::new() }
    }

    #[test]
    fn edges_19_37_56_who_serves_what() {
        let rule = |protocol, port, cidr: &str| Rule { protocol, port, cidr: cidr.parse().ok() };
        let tcp_from_some = [rule(rules::Protocol::Tcp, 80, "10.0.0.0/8")];
        let all = [rule(rules::Protocol::Tcp, 80, ""), rule(rules::Protocol::Udp, 80, "")];
        let other_port = [rule(rules::Protocol::Tcp, 81, ""), rule(rules::Protocol::Udp, 81, "")];
        let http = "the listener speaks HTTP";
        type Served<'a> = &'a [(&'a str, &'a [&'a str])];
        type Others<'a> = &'a [(&'a str, Option<&'a str>, &'a str)];
        type Case<'a> = (&'a str, Option<&'a str>, Option<&'a [Rule]>, Served<'a>, Others<'a>);
        let cases: [Case<'_>; 7] = [
            (
                "all is well",
                None,
                None,
                &[("TCP", &[]), ("UDP", &[])],
                &[("HTTP", Some("haproxy"), http)],
            ),
            (
                "no packet path: UDP is nobody's",
                Some(BROKEN),
                None,
                &[],
                &[
                    ("TCP", Some("haproxy"), BROKEN),
                    ("HTTP", Some("haproxy"), http),
                    ("UDP", None, BROKEN),
                ],
            ),
            (
                "no rules yet: nobody comes in",
                None,
                Some(&[]),
                &[("TCP", &[NOBODY]), ("UDP", &[NOBODY])],
                &[
                    // nftables stands in front of HAProxy.
                    ("HTTP", Some("haproxy"), http),
                ],
            ),
            (
                "rules of one",
                None,
                Some(&tcp_from_some),
                &[("TCP", &["10.0.0.0/8"]), ("UDP", &[NOBODY])],
                &[("HTTP", Some("haproxy"), http)],
            ),
            (
                "rules of all",
                None,
                Some(&all),
                &[("TCP", &[]), ("UDP", &[])],
                &[("HTTP", Some("haproxy"), http)],
            ),
            (
                "rules of other ports",
                None,
                Some(&other_port),
                &[("TCP", &[NOBODY]), ("UDP", &[NOBODY])],
                &[("HTTP", Some("haproxy"), http)],
            ),
            (
                "no packet path, and rules",
                Some(BROKEN),
                Some(&tcp_from_some),
                &[],
                &[
                    ("TCP", Some("haproxy"), BROKEN),
                    ("HTTP", Some("haproxy"), http),
                    ("UDP", None, BROKEN),
                ],
            ),
        ];
        for (case, broken, guarded, served, others) in cases {
            let engines = Engines::of(
                &wanted(),
                &name(),
                Means { broken, guarded, on_marked_down: OnMarkedDown::Keep },
            );
            let listeners = engines.serving.desired.listeners.iter();
            let got: Vec<(&str, &[IpNet])> =
                listeners.map(|it| (&it.id[..], &it.allowed_networks[..])).collect();
            let networks = |texts: &[&str]| -> Vec<IpNet> {
                texts.iter().map(|text| text.parse().unwrap()).collect()
            };
            let want: Vec<_> = served.iter().map(|(id, texts)| (*id, networks(texts))).collect();
            let want: Vec<_> = want.iter().map(|(id, networks)| (*id, &networks[..])).collect();
            assert_eq!(got, want, "{case}");
            let got = engines.serving.beside.iter();
            let got: Vec<_> = got.map(|it| (&it.id[..], it.by.as_deref(), &it.why[..])).collect();
            assert_eq!(got, others, "{case}");
            let haproxies = others.iter().filter(|(_, by, _)| by.is_some());
            let haproxies: BTreeSet<String> = haproxies.map(|(id, ..)| (*id).to_owned()).collect();
            assert_eq!(engines.haproxy, haproxies, "{case}");
        }
    }

    #[test]
    fn nothing_wanted_is_nothing_served() {
        let means = Means { broken: None, guarded: None, on_marked_down: OnMarkedDown::Keep };
        let engines = Engines::of(&Wanted::default(), &name(), means);
        let (listeners, pools) = (Vec::new(), Vec::new());
        let desired = Desired { name: name(), listeners, pools };
        assert_eq!(engines.serving, Serving { desired, beside: Vec::new() });
        assert_eq!(engines.parts(&Wanted::default(), &BTreeSet::new()), BTreeMap::new());
    }

    #[test]
    fn edge_38_parts_of_haproxy() {
        let id = |number: u32| format!("00000000-0000-4000-8000-{number:012}");
        let frontend = |number: u32, mode: &str| {
            let (listener, pool) = (id(number), id(number + 10));
            format!(
                "frontend {listener}\n    maxconn 100\n    bind 192.0.2.1:{number}\n    mode {mode}\n    \
                 default_backend {pool}:{listener}\n    timeout client 50000\n\n\
                 backend {pool}:{listener}\n    mode {mode}\n    balance roundrobin\n    \
                 fullconn 100\n    option allbackups\n    timeout connect 5000\n    \
                 timeout server 50000\n    server {} 10.0.0.1:80 weight 1\n\n",
                id(number + 20)
            )
        };
        let lb = id(0);
        let text = format!(
            "# Configuration for loadbalancer {lb}\nglobal\n    daemon\n    user nobody\n    \
             log /run/rsyslog/octavia/log local0\n    \
             log /run/rsyslog/octavia/log local1 notice\n    \
             stats socket /var/lib/octavia/{lb}.sock mode 0666 level user\n    maxconn 100\n\n\
             defaults\n    log global\n    retries 3\n    option redispatch\n    \
             option splice-request\n    option splice-response\n    \
             option http-keep-alive\n\n{}{}",
            frontend(1, "tcp"),
            frontend(2, "http")
        );
        let config = haproxy::parse(&text, &Paths::default()).expect("a configuration");
        let whole = Haproxy { peer: "p".to_owned(), config, certificates: BTreeMap::new() };
        let wanted = Wanted { haproxy: [(lb.clone(), whole)].into(), ..Wanted::default() };
        type Row<'a> = (&'a str, &'a [u32], &'a [u32], &'a [u32]);
        let rows: [Row<'_>; 4] = [
            ("its own", &[2], &[], &[2]),
            ("one that moves too", &[2], &[1], &[1, 2]),
            ("only that", &[], &[1], &[1]),
            ("none, and it need not run", &[], &[], &[]),
        ];
        let ids = |numbers: &[u32]| numbers.iter().copied().map(id).collect::<BTreeSet<_>>();
        for (row, own, more, want) in rows {
            let means = Means { broken: None, guarded: None, on_marked_down: OnMarkedDown::Keep };
            let none = Engines::of(&Wanted::default(), &name(), means);
            let engines = Engines { haproxy: ids(own), ..none };
            let parts = engines.parts(&wanted, &ids(more));
            let got = parts.values().flat_map(|part| part.config.listeners()).map(|it| it.id);
            assert_eq!(got.collect::<BTreeSet<_>>(), ids(want), "{row}");
            assert_eq!(parts.len(), usize::from(!want.is_empty()), "{row}");
        }
    }
}
