//! The files of UDP and SCTP listeners that Octavia rendered, each against its sidecar: the model it was
//! rendered from, and what the stock agent reads in it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use agent_api::understood::{Engine, Listener, Member, Persistence, Pool, Protocol, Server};
use agent_api::{Algorithm, HttpProbe, Monitor, OnMarkedDown, Paths, Probe, lvs};
use serde_json::{Map, Value, json};

use super::sidecar::{address, each, number, text};

#[test]
fn vectors() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/lvs");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        count += 1;
        let name = path.file_stem().unwrap().display();
        let text = std::fs::read_to_string(&path).unwrap();
        let side = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let side: Value = serde_json::from_str(&side).unwrap();
        let model = Model::of(&side);
        let config = lvs::parse(&text, &Paths::default());
        let config = config.unwrap_or_else(|refused| panic!("{name}: {refused}"));
        assert_eq!(config.load_balancer(), side["load_balancer"]["id"], "{name}");
        assert_eq!(config.listener_id(), side["listener_id"], "{name}");
        assert_eq!(config.health_monitor(), model.monitor["id"].as_str(), "{name}");
        assert_eq!(config.listener(), model.listener(), "{name}");
        assert_eq!(agent_view(&config), side["agent_view"], "{name}");
    }
    assert!(count >= 35, "{count} vectors");
}

/// What the file was rendered from, as far as it tells.
struct Model<'a> {
    listener: &'a Value,
    /// Null for a pool that is not rendered, as for a monitor.
    pool: &'a Value,
    monitor: &'a Value,
    /// IPv4 first.
    vips: Vec<IpAddr>,
}

impl<'a> Model<'a> {
    fn of(side: &'a Value) -> Self {
        let load_balancer = &side["load_balancer"];
        let listener = by_id(&load_balancer["listeners"], &side["listener_id"]);
        let served = load_balancer["enabled"] == true && listener["enabled"] == true;
        let pool = by_id(&load_balancer["pools"], &listener["default_pool_id"]);
        let pool = if served { pool } else { &Value::Null };
        let monitor = &pool["health_monitor"];
        let monitored = monitor["enabled"] == true && is_there(monitor);
        let mut vips = vec![address(&load_balancer["vip_address"])];
        vips.extend(each(&load_balancer["additional_vips"]).map(address));
        vips.sort_by_key(IpAddr::is_ipv6);
        if pool.is_null() {
            vips.clear();
        }
        Self { listener, pool, monitor: if monitored { monitor } else { &Value::Null }, vips }
    }

    fn listener(&self) -> Option<Listener> {
        let pool = (!self.pool.is_null()).then(|| self.pool());
        let enabled = pool.iter().flat_map(|pool| &pool.members).any(|member| member.enabled);
        let limit = self.listener["connection_limit"].as_u64();
        let limit = limit.filter(|_| enabled).and_then(|limit| u32::try_from(limit).ok());
        let listener = Listener {
            id: text(&self.listener["id"]),
            port: if pool.is_some() { number(&self.listener["protocol_port"]) } else { 0 },
            protocol: match self.listener["protocol"].as_str() {
                Some("SCTP") if pool.is_some() => Protocol::Sctp,
                _ => Protocol::Udp,
            },
            vips: self.vips.clone(),
            engine: Engine::Xdp,
            connection_limit: limit,
            client_timeout_ms: 0,
            server_timeout_ms: 0,
            default_pool: pool.as_ref().map(|pool| pool.id.clone()),
            pools: pool.into_iter().collect(),
            log_format: None,
        };
        (self.listener["enabled"] == true).then_some(listener)
    }

    fn pool(&self) -> Pool {
        let pool = self.pool;
        let persistence = &pool["session_persistence"];
        let mask = persistence["persistence_granularity"].as_str().unwrap_or("255.255.255.255");
        let mask: Ipv4Addr = mask.parse().expect("a mask");
        let persistence = (persistence["type"] == "SOURCE_IP").then(|| {
            Persistence::SourceIp(agent_api::Persistence {
                timeout_s: persistence["persistence_timeout"].as_u64().unwrap_or(360) as u32,
                prefix4: mask.to_bits().count_ones() as u8,
                prefix6: 128,
            })
        });
        let has_vip = |six| self.vips.iter().any(|vip| vip.is_ipv6() == six);
        let of_family = |six| {
            let members = each(&pool["members"]).filter(|member| is_there(member));
            members.filter(move |it| address(&it["ip_address"]).is_ipv6() == six && has_vip(six))
        };
        let members = of_family(false).chain(of_family(true));
        let members: Vec<_> = members.map(|member| self.member(member)).collect();
        let probed = members.iter().any(|member| member.enabled);
        Pool {
            id: text(&pool["id"]),
            algorithm: match pool["lb_algorithm"].as_str() {
                Some("ROUND_ROBIN") => Algorithm::RoundRobin,
                Some("LEAST_CONNECTIONS") => Algorithm::LeastConnections,
                Some("SOURCE_IP") => Algorithm::SourceIp,
                other => panic!("algorithm {other:?}"),
            },
            persistence,
            monitor: self.probe().filter(|_| probed).map(|probe| Monitor {
                probe,
                delay_s: number(&self.monitor["delay"]),
                timeout_s: number(&self.monitor["timeout"]),
                rise: 1,
                fall: number(&self.monitor["fall_threshold"]),
                on_marked_down: OnMarkedDown::Keep,
            }),
            enabled: pool["enabled"] == true,
            members,
        }
    }

    fn member(&self, member: &Value) -> Member {
        let own = SocketAddr::new(address(&member["ip_address"]), number(&member["protocol_port"]));
        let mut probed_at = own;
        if member["monitor_address"].is_string() {
            probed_at.set_ip(address(&member["monitor_address"]));
        }
        if member["monitor_port"].is_number() {
            probed_at.set_port(number(&member["monitor_port"]));
        }
        let enabled = member["enabled"] == true;
        let server = Server {
            address: own.ip(),
            port: own.port(),
            weight: number(&member["weight"]),
            backup: false,
            probed_at: (self.probe().is_some() && probed_at != own).then_some(probed_at),
        };
        Member { id: text(&member["id"]), enabled, server: enabled.then_some(server) }
    }

    fn probe(&self) -> Option<Probe> {
        match self.monitor["type"].as_str()? {
            "UDP-CONNECT" => Some(Probe::UdpConnect),
            "SCTP" => Some(Probe::Sctp),
            "TCP" => Some(Probe::Tcp),
            "HTTP" if self.monitor["http_method"] != "GET" => None,
            "HTTP" => Some(Probe::Http(HttpProbe {
                method: "GET".into(),
                path: text(&self.monitor["url_path"]),
                version: None,
                host: None,
                codes: codes(&text(&self.monitor["expected_codes"])),
            })),
            other => panic!("monitor of type {other}"),
        }
    }
}

/// What the stock agent would have extracted, told from what we did.
fn agent_view(config: &lvs::Config) -> Value {
    let mut view = json!({
        "hm_enabled": false, "mapping": null, "namespace": "amphora-haproxy", "vips": [],
    });
    let Some(listener) = config.listener() else { return view };
    view["mapping"] = json!({});
    let Some(pool) = listener.pools.first() else { return view };
    view["hm_enabled"] = pool.monitor.is_some().into();
    view["vips"] = listener.vips.iter().map(IpAddr::to_string).collect();
    let of_family = |six| listener.vips.iter().find(move |vip| vip.is_ipv6() == six);
    let firsts = of_family(false).into_iter().chain(of_family(true));
    let ports: Vec<_> =
        firsts.map(|&vip| SocketAddr::new(vip, listener.port).to_string()).collect();
    let mut mapping = Map::from_iter([
        ("Loadbalancer".into(), json!({"id": config.load_balancer()})),
        ("Listener".into(), json!({"id": config.listener_id(), "ipports": ports})),
    ]);
    if pool.enabled {
        mapping.insert("Pool".into(), json!({"id": pool.id}));
    }
    if let Some(id) = config.health_monitor() {
        mapping.insert("HealthMonitor".into(), json!({"id": id}));
    }
    let (enabled, disabled): (Vec<_>, Vec<_>) = pool.members.iter().partition(|it| it.enabled);
    let members = enabled.into_iter().chain(disabled).map(|member| {
        let server = member.server.as_ref();
        let at = server.map(|it| SocketAddr::new(it.address, it.port).to_string());
        json!({"id": member.id, "ipport": at})
    });
    let members: Vec<_> = members.collect();
    if !members.is_empty() {
        mapping.insert("Members".into(), members.into());
    }
    view["mapping"] = mapping.into();
    view
}

fn is_there(object: &Value) -> bool {
    object["provisioning_status"] != "PENDING_DELETE"
}

fn by_id<'a>(objects: &'a Value, id: &Value) -> &'a Value {
    each(objects).find(|object| object["id"] == *id).unwrap_or(&Value::Null)
}

/// Octavia's `expected_codes`: `200`, `200,202` or `200-204`.
fn codes(text: &str) -> BTreeSet<u16> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("code {text}"));
    let ranges = text.split(',').map(|part| part.split_once('-').unwrap_or((part, part)));
    ranges.flat_map(|(first, last)| number(first)..=number(last)).collect()
}
