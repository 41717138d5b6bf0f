//! What Octavia's health manager makes of our heartbeats: its own code on recorded rows, and its listener
//! at work on a database.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use agent_api::heartbeat::message::{
    Count, Listener, ListenerStatus, MemberStatus, Pool, PoolKey, PoolStatus, Stats,
};
use agent_api::heartbeat::{Message, envelope, shrink};
use serde_json::{Map, Value, json};
use xdp_lb_tests::manager::Manager;
use xdp_lb_tests::octavia::fed;

const KEY: &str = "insecure";
/// Of them all, and of those that our own types can say.
const ROWS: (usize, usize) = (39, 27);

/// The rows of `tests/vectors/health`, each message in our envelope and, where our types can say it, in our
/// words.
#[test]
fn edges_19_22_23_24_25_26_30_31_33_rows_of_outcomes() {
    let rows: Vec<Value> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/health"))
            .expect("rows")
            .map(|entry| fs::read(entry.expect("an entry").path()).expect("a row"))
            .map(|row| serde_json::from_slice(&row).expect("JSON"))
            .collect();
    let mut ours = 0;
    let asked: String = rows
        .iter()
        .map(|row| {
            let said = row["message"].to_string().into_bytes();
            let typed = Message::from_json(&said).and_then(|it| it.to_json());
            ours += usize::from(typed.is_ok());
            let datagram = envelope::wrap(&typed.unwrap_or(said), KEY.as_bytes()).expect("it fits");
            let line = json!({
                "key": KEY, "datagram": hex(&datagram), "database": row["db_before"],
                "delay": row["processing_delay"], "known": row["name"] != "zombie_unknown_amphora",
            });
            format!("{line}\n")
        })
        .collect();
    assert_eq!((rows.len(), ours), ROWS);

    let text = fed("19.0.0", "health_rows.py", asked);
    let done: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(done.len(), rows.len());
    for (row, done) in rows.iter().zip(done) {
        for part in ["updates", "health_row_written", "vm_deleted", "stats"] {
            assert_eq!(done[part], row["result"][part], "{}: {part}", row["name"]);
        }
        let failed =
            ["health_exception", "stats_exception"].map(|it| row["result"][it].is_string());
        assert_eq!(done["failed"].is_array(), failed.contains(&true), "{}", row["name"]);
    }
}

/// A load balancer with a TCP listener and a UDP one, as Octavia knows it.
fn described(members: &[&str]) -> Value {
    let pool = |id: &str, protocol: &str, members: &[&str]| json!({"id": id, "protocol": protocol, "members": members});
    json!({
        "key": KEY, "amphora": "amphora", "load_balancer": "balancer",
        "listeners": [{"id": "tcp", "protocol": "TCP"}, {"id": "udp", "protocol": "UDP"}],
        "pools": [pool("streams", "TCP", members), pool("packets", "UDP", &["packet"])],
    })
}

/// What an amphora says of it: of the pool of the TCP listener as told, of the other that all is well.
fn message(seq: u64, stats: Stats, pool: PoolStatus, members: &[(&str, MemberStatus)]) -> Message {
    let status = ListenerStatus::Open;
    let listener = |stats| Listener { status, stats };
    let listeners = [("tcp", listener(stats)), ("udp", listener(Stats::default()))];
    let named = |members: &[(&str, MemberStatus)]| {
        members.iter().map(|(id, status)| ((*id).to_owned(), *status)).collect()
    };
    let streams = PoolKey::OfListener { pool: "streams".to_owned(), listener: "tcp".to_owned() };
    let packets = PoolKey::Alone { pool: "packets".to_owned() };
    let pools = BTreeMap::from([
        (streams, Pool { status: pool, members: named(members) }),
        (
            packets,
            Pool { status: PoolStatus::Up, members: named(&[("packet", MemberStatus::NoCheck)]) },
        ),
    ]);
    let listeners = listeners.map(|(id, listener)| (id.to_owned(), listener)).into();
    Message::new("amphora".to_owned(), seq, listeners, pools)
}

fn datagram(message: &Message) -> Vec<u8> {
    envelope::wrap(&message.to_json().expect("JSON"), KEY.as_bytes()).expect("it fits")
}

#[test]
fn edges_22_to_29_operating_statuses_and_statistics_in_a_database() {
    use MemberStatus::{Down, Drain, Maint, NoCheck, Restarting, Up};
    let ids = ["up", "rising", "falling", "down", "drain", "maint", "free", "new"];
    let mut manager = Manager::start(&described(&ids)).expect("a health manager");
    let count = |done, of| Some(Count { done, of });
    let well: Vec<_> = ids.iter().map(|id| (*id, Up(None))).collect();
    let mixed = [
        ("up", Up(None)),
        ("rising", Down(count(1, 2))),
        ("falling", Up(count(1, 3))),
        ("down", Down(None)),
        ("drain", Drain),
        ("maint", Maint),
        ("free", NoCheck),
        ("new", Restarting),
    ];
    let dead: Vec<_> = ids.iter().map(|id| (*id, Down(None))).collect();
    let stats = |n: u64| Stats { tx: 2 * n, rx: n, conns: n, totconns: n, ereq: 0 };

    /// A name, what is said, and what becomes of balancer, listener, pool and members.
    type Step<'a> = (&'a str, Message, [&'a str; 3], Vec<(&'a str, &'a str)>);
    let all = |status| ids.iter().map(|id| (*id, status)).collect::<Vec<_>>();
    let steps: [Step<'_>; 4] = [
        (
            "all is well",
            message(0, stats(5), PoolStatus::Up, &well),
            ["ONLINE", "ONLINE", "ONLINE"],
            all("ONLINE"),
        ),
        (
            "one of each",
            message(1, stats(7), PoolStatus::Up, &mixed),
            ["DEGRADED", "ONLINE", "DEGRADED"],
            vec![
                ("up", "ONLINE"),
                ("rising", "ERROR"),
                ("falling", "ONLINE"),
                ("down", "ERROR"),
                ("drain", "DRAINING"),
                ("maint", "OFFLINE"),
                ("free", "NO_MONITOR"),
                // As it was.
                ("new", "ONLINE"),
            ],
        ),
        (
            "nobody is left",
            message(2, stats(0), PoolStatus::Down, &dead),
            ["ERROR", "ONLINE", "ERROR"],
            all("ERROR"),
        ),
        (
            "all are back",
            message(3, stats(1), PoolStatus::Up, &well),
            ["ONLINE", "ONLINE", "ONLINE"],
            all("ONLINE"),
        ),
    ];
    for (step, message, [balancer, listener, pool], members) in steps {
        manager.hears(&datagram(&message)).expect("sent");
        let mut want: Map<String, Value> =
            members.into_iter().map(|(id, status)| (id.to_owned(), status.into())).collect();
        want.insert("packet".to_owned(), "NO_MONITOR".into());
        let good = |held: &Value| {
            held["load_balancer"]["balancer"] == balancer
                && held["listener"]["tcp"] == listener
                && held["pool"]["streams"] == pool
                && held["member"] == Value::from(want.clone())
        };
        manager.held_when(step, good).unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    // Bytes in and out, connections open and in total, errors.
    let sums = json!([13, 26, 1, 13, 0]);
    let counted = |held: &Value| held["statistics"]["tcp"] == sums;
    let held = manager.held_when("the sums", counted).expect("statistics");
    assert_eq!(held["statistics"]["udp"], json!([0, 0, 0, 0, 0]));
    assert_eq!(held["health_rows"], 1);
}

/// What no datagram carries is left out so that the database says what it can.
#[test]
fn a_message_that_was_shrunk_is_taken() {
    use MemberStatus::{Down, Maint, NoCheck, Up};
    let random = |number: u64| {
        format!("{:032x}", u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).pow(2))
    };
    let many: Vec<String> = (0..6000).map(random).collect();
    let told: Vec<(&str, MemberStatus)> = many.iter().map(|id| (&id[..], Up(None))).collect();
    let few = [("down", Down(None)), ("maint", Maint), ("free", NoCheck)];
    let message = message(0, Stats::default(), PoolStatus::Up, &[&told[..], &few].concat());
    assert!(envelope::wrap(&message.to_json().expect("JSON"), KEY.as_bytes()).is_err());
    let (shrunk, left_out) = shrink::shrink(message).expect("JSON");
    assert!(left_out.disabled == 1 && left_out.unchecked == 2, "{left_out}");

    let mut manager = Manager::start(&described(&["down", "maint", "free"])).expect("a manager");
    manager.hears(&datagram(&shrunk)).expect("sent");
    let held = manager.held_when("the health row", |held| held["health_rows"] == 1);
    let held =
        held.and_then(|_| manager.held_when("ERROR", |held| held["member"]["down"] == "ERROR"));
    let held = held.expect("a heartbeat");
    assert_eq!(held["listener"], json!({"tcp": "ONLINE", "udp": "ONLINE"}));
    assert_eq!(held["pool"]["streams"], "DEGRADED");
    assert_eq!(held["member"]["maint"], "OFFLINE");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
