//! The configuration of VRRP: the files that Octavia rendered, each against its sidecar, and beside
//! them what makes a difference, what makes none, and that nothing upsets the reader.

use std::net::IpAddr;
use std::path::PathBuf;

use agent_api::vrrp::{self, Check, Config, Hop, Route, Rule, State};
use agent_api::{Paths, Refused};
use proptest::prelude::*;
use serde_json::Value;

use super::sidecar::{address, each, number, text};

#[test]
fn vectors() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/vrrp");
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
        let config = parse(&text).unwrap_or_else(|refused| panic!("{name}: {refused}"));
        assert_eq!(config, wanted(&serde_json::from_str(&side).unwrap()), "{name}");
    }
    assert!(count >= 18, "{count} vectors");
}

fn wanted(side: &Value) -> Config {
    let load_balancer = &side["load_balancer"];
    let (group, conf) = (&side["vrrp_group"], &side["conf"]);
    let amphora = &load_balancer["amphorae"][number::<usize>(&side["amphora_index"])];
    let source = address(&amphora["vrrp_ip"]);
    let peers = each(&load_balancer["amphorae"])
        .filter(|other| other["status"] == "ALLOCATED" && other["id"] != amphora["id"]);
    let vips = vips(side);
    let of_family = |six| {
        let addresses = vips.iter().map(|(vip, _)| *vip);
        addresses.filter(move |vip| vip.is_ipv6() == six).collect()
    };
    Config {
        name: text(&load_balancer["id"]).replace('-', ""),
        interface: Some(text(&amphora["vrrp_interface"])),
        state: State::Backup,
        router_id: number(&amphora["vrrp_id"]),
        priority: number(&amphora["vrrp_priority"]),
        garp_refresh_s: number(&conf["vrrp_garp_refresh_interval"]),
        garp_refresh_repeat: number(&conf["vrrp_garp_refresh_count"]),
        advert_interval_s: number(&group["advert_int"]),
        auth_pass: text(&group["vrrp_auth_pass"]),
        source,
        peers: peers.map(|peer| address(&peer["vrrp_ip"])).collect(),
        vips: of_family(source.is_ipv6()),
        excluded_vips: of_family(source.is_ipv4()),
        routes: vips.iter().flat_map(|(vip, subnet)| routes(*vip, subnet)).collect(),
        rules: vips.iter().map(|&(from, _)| Rule { from, table: 1, priority: 100 }).collect(),
        check: Check {
            interval_s: number(&conf["vrrp_check_interval"]),
            fall: number(&conf["vrrp_fail_count"]),
            rise: number(&conf["vrrp_success_count"]),
        },
    }
}

/// The VIPs with their subnets: the first, and the others as their text sorts.
fn vips(side: &Value) -> Vec<(IpAddr, &Value)> {
    let network = &side["amp_network_config"];
    let first = (address(&side["load_balancer"]["vip_address"]), &network["vip_subnet"]);
    let mut others: Vec<_> = each(&network["additional_vip_data"]).collect();
    others.sort_by_key(|vip| text(&vip["ip_address"]));
    let others = others.into_iter().map(|vip| (address(&vip["ip_address"]), &vip["subnet"]));
    std::iter::once(first).chain(others).collect()
}

fn routes(vip: IpAddr, subnet: &Value) -> Vec<Route> {
    let route = |destination: &str, hop| {
        let destination = destination.parse().unwrap_or_else(|_| panic!("{destination}"));
        Route { destination, hop, table: 1 }
    };
    let mut routes = vec![route(&text(&subnet["cidr"]), Hop::Link { source: vip })];
    if subnet["gateway_ip"].is_string() {
        let all = if vip.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
        routes.push(route(all, Hop::Gateway(address(&subnet["gateway_ip"]))));
    }
    routes.extend(
        each(&subnet["host_routes"]).map(|host| {
            route(&text(&host["destination"]), Hop::Gateway(address(&host["nexthop"])))
        }),
    );
    routes
}

/// A name, a vector, and a text in it with what to put there instead, wherever it stands.
type Change = (&'static str, &'static str, &'static str, &'static str);

type Edit = fn(&mut Config);

/// What no vector has, and what it does to what is understood.
#[test]
fn understood() {
    let rows: [(Change, Edit); 17] = [
        (("Octavia 11's master", "v4_amp1_peers1", "interface", "state MASTER\ninterface"), |it| {
            it.state = State::Master;
        }),
        (("Octavia 11's backup", "v4_amp2_peers1", "interface", "state BACKUP\ninterface"), |_| ()),
        (("an interface that nobody knew", "v4_amp1_peers1", "eth1", "None"), |it| {
            it.interface = None;
        }),
        (("the longest name", "v4_amp1_peers1", "eth1", "aZ0._@-aaaaaaaa"), |it| {
            it.interface = Some("aZ0._@-aaaaaaaa".into());
        }),
        (("a peer without an address", "v4_amp1_peers1", "10.0.0.12", "None"), |it| {
            it.peers.clear();
        }),
        (("two peers", "v4_amp1_peers1", "10.0.0.12", "10.0.0.12\n10.0.0.13"), |it| {
            it.peers.push([10, 0, 0, 13].into());
        }),
        (("a router id", "v4_amp1_peers1", "router_id 1", "router_id 255"), |it| {
            it.router_id = 255;
        }),
        (("no gratuitous ARP", "v4_amp1_peers1", "refresh 5", "refresh 0"), |it| {
            it.garp_refresh_s = 0;
        }),
        (("more of it", "v4_amp1_peers1", "repeat 2", "repeat 3"), |it| it.garp_refresh_repeat = 3),
        (("an interval", "v4_amp1_peers1", "advert_int 1", "advert_int 255"), |it| {
            it.advert_interval_s = 255;
        }),
        (("a long password", "v4_amp1_peers1", "1a2b3c4", "1A2b3c4d"), |it| {
            it.auth_pass = "1A2b3c4d".into();
        }),
        (("a slower check", "v4_amp1_peers1", "interval 5", "interval 60"), |it| {
            it.check.interval_s = 60;
        }),
        (("a check that fails later", "v4_amp1_peers1", "fall 2", "fall 3"), |it| {
            it.check.fall = 3
        }),
        (("a check that heals later", "v4_amp1_peers1", "rise 2", "rise 3"), |it| {
            it.check.rise = 3
        }),
        (
            ("a table of routes", "v6_amp1_peers1", "scope link table 1", "scope link table 252"),
            |it| {
                it.routes[0].table = 252;
            },
        ),
        (("a table of rules", "v6_amp1_peers1", "128 table 1", "128 table 2"), |it| {
            it.rules[0].table = 2;
        }),
        (
            ("a priority of rules", "v6_amp1_peers1", "priority 100\n    }", "priority 32765\n }"),
            |it| {
                it.rules[0].priority = 32_765;
            },
        ),
    ];
    for ((row, vector, from, to), change) in rows {
        let mut want = parse(&read(vector)).unwrap();
        change(&mut want);
        assert_eq!(parse(&changed(row, vector, from, to)), Ok(want), "{row}");
    }
}

/// The script has one place, which the operator chooses.
#[test]
fn base_path() {
    let stock = read("v4_amp1_peers1");
    let moved = stock.replace("/var/lib/octavia/", "/srv/amphora/");
    let paths = Paths::new("/srv/amphora", "/srv/amphora/certs");
    assert_eq!(vrrp::parse(&moved, &paths), parse(&stock).map(Some));
    assert_eq!(vrrp::parse(&stock, &paths).map_err(|refused| refused.line), Err(2));
    assert_eq!(parse(&moved).map_err(|refused| refused.line), Err(2));
}

#[test]
fn equal() {
    let rows: [Change; 6] = [
        ("no blank lines", "v4_add_v4_v6_amp1_peers1", "\n\n", "\n"),
        ("more blank lines", "v4_add_v4_v6_amp1_peers1", "\n", "\n \t \n"),
        ("no indentation", "v4_host_routes_amp1_peers1", "    ", ""),
        ("more blanks", "v4_host_routes_amp1_peers1", " ", " \t "),
        ("an address in other words", "v6_amp1_peers1", "2001:db8::1", "2001:DB8:0::1"),
        ("a number in other words", "v6_amp1_peers1", "priority 100", "priority 0100"),
    ];
    for (row, vector, from, to) in rows {
        assert_eq!(parse(&changed(row, vector, from, to)), parse(&read(vector)), "{row}");
    }
}

/// Every line is needed.
#[test]
fn torn() {
    let whole = read("v4_amp1_peers1");
    let lines: Vec<&str> = whole.lines().collect();
    for end in 0..lines.len() {
        let refused = parse(&lines[..end].join("\n")).unwrap_err();
        assert!((1..=end.max(1)).contains(&refused.line), "{refused} of {end}");
        let without = [&lines[..end], &lines[end + 1..]].concat().join("\n");
        // What has no number of lines of its own: the blank, and what stands in lists.
        let listed = ["10.0.0.", "default via", "from "];
        let listed = listed.iter().any(|start| lines[end].trim().starts_with(start));
        assert_eq!(parse(&without).is_ok(), listed || lines[end].is_empty(), "{}", lines[end]);
    }
}

proptest! {
    /// Whatever becomes of a file, it is read, or refused at a line that it has.
    #[test]
    fn mutated(
        vector in prop::sample::select(&VECTORS[..]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..64_usize, edit()), 1..6),
    ) {
        let mut text: Vec<char> = read(vector).chars().collect();
        for (at, removed, put) in edits {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + removed);
            text.splice(at..end, put.chars());
        }
        let mutant = String::from_iter(text);
        if let Err(refused) = parse(&mutant) {
            let lines = mutant.split('\n').count();
            prop_assert!((1..=lines).contains(&refused.line), "{refused} of {lines}");
        }
    }
}

const VECTORS: [&str; 3] =
    ["v4_add_v4_v6_amp1_peers1", "v4_host_routes_amp2_peers1", "v6_add_v4_amp1_peers0"];

const WORDS: [&str; 12] =
    ["", "\n", "{", "}", "\"", "#", "-", "0", "99999999999", "::", "/33", "None"];

/// What the grammar has, and anything.
fn edit() -> impl Strategy<Value = String> {
    let word = prop::sample::select(&WORDS[..]).prop_map(Into::into);
    prop_oneof![word, ".{0,8}", "[ -~\n]{0,16}"]
}

fn parse(text: &str) -> Result<Config, Refused> {
    vrrp::parse(text, &Paths::default())
        .map(|config| config.expect("an instance that says something"))
}

fn read(vector: &str) -> String {
    let file = format!("../tests/vectors/vrrp/{vector}.conf");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{vector}: {error}"))
}

fn changed(row: &str, vector: &str, from: &str, to: &str) -> String {
    let text = read(vector);
    assert!(text.contains(from), "{row}");
    text.replace(from, to)
}
