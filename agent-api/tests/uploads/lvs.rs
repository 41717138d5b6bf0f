//! The grammar of UDP and SCTP listeners beside what the vectors show: what makes a difference, what
//! makes none, and that nothing upsets the reader.

use std::path::PathBuf;

use agent_api::understood::{Listener, Persistence, Server};
use agent_api::{HttpProbe, Monitor, Paths, Probe, Refused, lvs};
use proptest::prelude::*;

const POOL: &str = "# Configuration for Pool f609e499-56b2-59a1-8995-c391176319cf";
const NO_POOL: &str = "# Pool f609e499-56b2-59a1-8995-c391176319cf is disabled";
const OTHER: &str = "00000000-0000-4000-8000-000000000000";

/// A name, a vector, and a text in it with what to put there instead, wherever it stands.
type Change = (&'static str, &'static str, &'static str, &'static str);

type Edit = fn(&mut Listener);

/// What no vector has, and what it does to what is understood.
#[test]
fn understood() {
    let rows: [(Change, Edit); 14] = [
        (("a limit", "UDP_persist_default", "weight 1\n", "weight 1\nuthreshold 9\n"), |it| {
            it.connection_limit = Some(9);
        }),
        (("the greatest weight", "SCTP_persist_custom", "weight 1", "weight 256"), |it| {
            servers(it).for_each(|server| server.weight = 256);
        }),
        (("the last port", "UDP_dualstack_persist", " 53\n", " 65535\n"), |it| it.port = 65535),
        (("a disabled pool", "UDP_no_members", POOL, NO_POOL), |it| it.pools[0].enabled = false),
        (("no retry", "UDP_monitor_own", "retry 3", ""), |it| monitor(it).fall = 1),
        (("more retries", "UDP_monitor_own", "retry 3", "retry 10"), |it| monitor(it).fall = 10),
        (("another port to probe", "UDP_monitor_tcp", "port 8080", "port 99"), |it| {
            servers(it).take(1).for_each(|server| server.probed_at = "10.1.0.21:99".parse().ok());
        }),
        (
            ("the other family to probe", "SCTP_monitor_own", "10.1.0.21 8080\"", "::9 8080\""),
            |it| {
                servers(it).take(1).for_each(|server| server.probed_at = "[::9]:8080".parse().ok())
            },
        ),
        (("a code twice", "UDP_monitor_http", "status_code 202", "status_code 200"), |it| {
            assert!(page(it).codes.remove(&202));
        }),
        (("a path with a query", "UDP_monitor_http", "/hc", "/~a{}/@?b=1&amp;c=&lt;&gt;"), |it| {
            page(it).path = "/~a{}/@?b=1&c=<>".into()
        }),
        (("a path with an entity", "SCTP_monitor_http", "/hc", "/&amp;lt;"), |it| {
            page(it).path = "/&lt;".into();
        }),
        (("a longer mask", "UDP_persist_custom", "255.255.0.0", "255.255.255.128"), |it| {
            prefixes(it, 25, 128);
        }),
        (("the shortest mask", "UDP_persist_custom", "255.255.0.0", "128.0.0.0"), |it| {
            prefixes(it, 1, 128);
        }),
        (
            ("a length for IPv6", "UDP_dualstack_persist", "granularity 128", "granularity 64"),
            |it| {
                prefixes(it, 32, 64);
            },
        ),
    ];
    for ((row, vector, from, to), change) in rows {
        let mut want = parse(&text(vector)).unwrap().listener();
        change(want.as_mut().unwrap());
        let listener = parse(&changed(row, vector, from, to)).map(|config| config.listener());
        assert_eq!(listener, Ok(want), "{row}");
    }
}

/// The file of a disabled listener has ids and nothing else.
/// Octavia 4 has one VIP, no groups, a scheduler without weights, and says again what it said.
#[test]
fn octavia_4() {
    let group = "virtual_server_group ipv4-group {\n    10.0.0.10 53\n}\n\n";
    let check = "        MISC_CHECK {";
    let again = format!("        delay_before_retry 4\n        retry 3\n{check}");
    let old = text("UDP_monitor_own")
        .replace(group, "")
        .replace("virtual_server group ipv4-group {", "virtual_server 10.0.0.10 53 {")
        .replace("lb_algo wrr", "lb_algo rr")
        .replace("delay_before_retry 5", "delay_before_retry 4")
        .replace(check, &again);
    assert_eq!(parse(&old), parse(&text("UDP_monitor_own")));
}

#[test]
fn disabled() {
    let comment = "# Configuration for Listener f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3";
    let to = "# Listener f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3 is disabled";
    let config = parse(&changed("disabled", "SCTP_no_pool", comment, to)).unwrap();
    assert_eq!(config.listener(), None);
    assert_eq!(config.load_balancer(), "40c52c12-68e1-5926-83e7-88107bce47cb");
    assert_eq!(config.listener_id(), "f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3");
    assert_eq!(config.health_monitor(), None);
}

/// A disabled pool keeps its monitor.
#[test]
fn disabled_pool() {
    let timed = format!(
        "delay_loop 5\ndelay_before_retry 5\nretry 3\n{NO_POOL}\n\
         # Configuration for HealthMonitor {OTHER}"
    );
    let config = parse(&text("UDP_no_members").replace(POOL, &timed)).unwrap();
    assert_eq!(config.health_monitor(), Some(OTHER));
    let without = parse(&text("UDP_no_members").replace(POOL, NO_POOL)).unwrap();
    assert_eq!(config.listener(), without.listener());
}

/// The check has one place, which the operator chooses.
#[test]
fn base_path() {
    let stock = text("UDP_monitor_own");
    let moved = stock.replace("/var/lib/octavia/", "/srv/amphora/");
    let paths = Paths::new("/srv/amphora", "/srv/amphora/certs");
    assert_eq!(lvs::parse(&moved, &paths), parse(&stock));
    assert_eq!(lvs::parse(&stock, &paths).map_err(|refused| refused.line), Err(25));
    assert_eq!(parse(&moved).map_err(|refused| refused.line), Err(25));
}

#[test]
fn equal() {
    let rows: [Change; 8] = [
        ("no blank lines", "UDP_monitor_http", "\n\n", "\n"),
        ("more blank lines", "UDP_monitor_http", "\n", "\n \t \n"),
        ("no indentation", "UDP_dualstack_persist", "    ", ""),
        ("tabs", "SCTP_monitor_own", "    ", "\t\t"),
        ("an address in other words", "UDP_dualstack_persist", "2001:db8::10", "2001:DB8:0::10"),
        ("a number in other words", "UDP_dualstack_persist", "timeout 360", "timeout 0360"),
        ("Octavia 11's mask for IPv6", "UDP_dualstack_persist", " 128", " 255.255.255.255"),
        ("a mask of the user's for IPv6", "UDP_dualstack_persist", " 128", " 255.255.0.0"),
    ];
    for (row, vector, from, to) in rows {
        assert_eq!(parse(&changed(row, vector, from, to)), parse(&text(vector)), "{row}");
    }
}

#[test]
fn different() {
    let rows: [Change; 14] = [
        ("the load balancer", "UDP_no_pool", "40c52c12-68e1-5926-83e7-88107bce47cb", OTHER),
        ("the listener", "UDP_no_pool", "f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3", OTHER),
        ("the pool", "UDP_no_members", "f609e499-56b2-59a1-8995-c391176319cf", OTHER),
        ("the monitor", "UDP_monitor_own", "a23c180f-b3e4-53fa-b943-49b7920ad336", OTHER),
        ("a member", "UDP_monitor_own", "c8d7b10d-6230-5253-8b55-3375e94c23a0", OTHER),
        ("a disabled member", "SCTP_all_disabled", "9929a9f5-6b62-5531-aa79-73d43d83748c", OTHER),
        ("a VIP", "UDP_monitor_own", "10.0.0.10 53", "10.0.0.12 53"),
        ("the protocol", "UDP_no_members", "protocol UDP", "protocol SCTP"),
        ("the algorithm", "UDP_no_members", "lb_algo wrr", "lb_algo lc"),
        ("a weight", "UDP_member_states", "weight 5", "weight 6"),
        ("the delay", "UDP_monitor_own", "5\n", "6\n"),
        ("the timeout", "SCTP_monitor_tcp", "connect_timeout 4", "connect_timeout 3"),
        ("an address", "UDP_LEAST_CONNECTIONS_v6", "2001:db8:1::21", "2001:db8:1::23"),
        ("persistence", "UDP_persist_custom", "timeout 33", "timeout 34"),
    ];
    for (row, vector, from, to) in rows {
        let config = parse(&changed(row, vector, from, to)).unwrap();
        assert_ne!(Ok(config), parse(&text(vector)), "{row}");
    }
}

/// Where a file may end: behind the ids, and behind a family.
#[test]
fn torn() {
    let whole = text("UDP_dualstack_persist");
    let lines: Vec<&str> = whole.lines().collect();
    let ends = (0..=lines.len()).filter(|&end| match parse(&lines[..end].join("\n")) {
        Ok(_) => !lines[end - 1].is_empty(),
        Err(refused) => {
            assert!((1..=end.max(1)).contains(&refused.line), "{refused} of {end}");
            false
        }
    });
    assert_eq!(ends.collect::<Vec<_>>(), [4, 32, 58]);
}

#[test]
fn many_members() {
    let whole = text("UDP_monitor_http");
    let start = whole.find("    # Configuration for Member").unwrap();
    let end = whole.rfind('}').unwrap();
    let head = &whole[..start];
    let members = whole[start..end].repeat(5_000);
    let listener = parse(&format!("{head}{members}}}")).unwrap().listener().unwrap();
    assert_eq!(listener.pools[0].members.len(), 10_000);
    let refused = parse(&format!("{head}{members}")).unwrap_err();
    assert_eq!(refused.line, head.lines().count() + members.lines().count() - 1);
}

proptest! {
    /// Whatever becomes of a file, it is read, or refused at a line that it has.
    #[test]
    fn mutated(
        vector in prop::sample::select(&VECTORS[..]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..64_usize, edit()), 1..6),
    ) {
        let mut bytes: Vec<char> = text(vector).chars().collect();
        for (at, removed, put) in edits {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + removed);
            bytes.splice(at..end, put.chars());
        }
        let mutant = String::from_iter(bytes);
        if let Err(refused) = parse(&mutant) {
            let lines = mutant.split('\n').count();
            prop_assert!((1..=lines).contains(&refused.line), "{refused} of {lines}");
        }
    }
}

const VECTORS: [&str; 5] = [
    "SCTP_monitor_own",
    "UDP_dualstack_persist",
    "UDP_lb_disabled",
    "UDP_member_states",
    "UDP_monitor_http",
];

const WORDS: [&str; 12] =
    ["", "\n", "{", "}", "\"", "#", "-", "0", "99999999999", "::", "&amp;", "None"];

/// What the grammar has, and anything.
fn edit() -> impl Strategy<Value = String> {
    let word = prop::sample::select(&WORDS[..]).prop_map(Into::into);
    prop_oneof![word, ".{0,8}", "[ -~\n]{0,16}"]
}

fn parse(text: &str) -> Result<lvs::Config, Refused> {
    lvs::parse(text, &Paths::default())
}

fn text(vector: &str) -> String {
    let file = format!("../tests/vectors/lvs/{vector}.conf");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{vector}: {error}"))
}

fn changed(row: &str, vector: &str, from: &str, to: &str) -> String {
    let text = text(vector);
    assert!(text.contains(from), "{row}");
    text.replace(from, to)
}

fn servers(listener: &mut Listener) -> impl Iterator<Item = &mut Server> {
    listener.pools[0].members.iter_mut().filter_map(|member| member.server.as_mut())
}

fn monitor(listener: &mut Listener) -> &mut Monitor {
    listener.pools[0].monitor.as_mut().expect("a monitor")
}

fn page(listener: &mut Listener) -> &mut HttpProbe {
    match &mut monitor(listener).probe {
        Probe::Http(page) => page,
        other => panic!("{other:?}"),
    }
}

fn prefixes(listener: &mut Listener, prefix4: u8, prefix6: u8) {
    match &mut listener.pools[0].persistence {
        Some(Persistence::SourceIp(source)) => {
            (source.prefix4, source.prefix6) = (prefix4, prefix6);
        }
        other => panic!("{other:?}"),
    }
}
