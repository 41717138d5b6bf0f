//! What the driver of Octavia 19.0.0 and probes by hand asked the stock agent, asked again here: the
//! statuses are the same, and so is the shape of the answers.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_api::config::AgentConfig;
use agent_api::door::{Answer, Door, Method, Request};
use agent_api::{Paths, Store, oslo};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use xdp_lb_tests::door::config;
use xdp_lb_tests::memory::{Machine, Memory};

#[derive(Deserialize)]
struct Scenario {
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    request: Recorded,
    response: Reply,
}

#[derive(Deserialize)]
struct Recorded {
    method: String,
    target: String,
    /// Of the driver.
    #[serde(default)]
    body: String,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    /// Of the probes: one or the other.
    #[serde(default)]
    data: String,
    #[serde(default)]
    json: Value,
}

#[derive(Deserialize)]
struct Reply {
    status: u16,
    headers: serde_json::Map<String, Value>,
    body: Value,
}

type Change = (&'static str, fn(&mut Machine));

/// What happens to the machine before the driver's call of this number.
#[rustfmt::skip]
const BEFORE: &[Change] = &[
    ("04", |machine| {
        machine.host.insert("fa:16:3e:00:00:01".parse().unwrap(), "ens7".into());
        machine.addresses.insert("10.0.0.11".parse().unwrap(), "eth1".into());
    }),
    ("06", |machine| { machine.host.insert("fa:16:3e:00:00:02".parse().unwrap(), "ens8".into()); }),
    ("17", |machine| machine.fault = Some("boom".into())),
    ("18", |machine| machine.fault = None),
];

/// The driver's calls that are about its own dealing with servers of another kind.
const DRIVER_ALONE: std::ops::RangeInclusive<&str> = "35"..="42";

/// In the order in which they were asked.
const PROBES: [&str; 52] = [
    "discovery",
    "discovery_v",
    "unknown_route",
    "wrong_method",
    "head_info",
    "options_info",
    "trailing_slash",
    "double_slash",
    "info",
    "details",
    "listeners_empty",
    "haproxy_get_missing",
    "udp_get_missing",
    "start_missing_lb",
    "bad_action",
    "delete_missing",
    "cert_get_missing",
    "cert_bad_name",
    "cert_put",
    "cert_get",
    "cert_delete",
    "cert_delete_missing",
    "interface_bad_ip",
    "interface_missing",
    "plug_vip_no_json",
    "plug_vip_missing_keys",
    "plug_vip_list",
    "plug_vip_bad_ip",
    "plug_vip_bad_cidr",
    "plug_vip_bad_vrrp",
    "plug_vip_no_nic",
    "plug_network_no_mac",
    "plug_network_bad_ip",
    "plug_network_minimal",
    "vrrp_bad_action",
    "rules_bad",
    "haproxy_put_invalid",
    "haproxy_put",
    "haproxy_get",
    "start_upper_case",
    "stop",
    "listeners",
    "udp_put",
    "udp_get",
    "udp_reload",
    "udp_stop",
    "listeners_both",
    "details_both",
    "udp_delete",
    "lb_delete",
    "vrrp_upload",
    "vrrp_start",
];

/// Where we differ, and why.
const OTHERWISE: [(&str, u16); 1] = [
    // The stock agent redirects, and the driver follows; answering spares the way.
    ("double_slash", 200),
];

#[tokio::test]
async fn driver_and_probes() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder).await;
    let mut calls: Vec<PathBuf> = files("rest_driver").collect();
    calls.sort();
    assert_eq!(calls.len(), 42);
    for call in calls {
        let name = call.file_stem().unwrap().to_str().unwrap();
        if DRIVER_ALONE.contains(&&name[..2]) {
            continue;
        }
        for (number, change) in BEFORE {
            if name.starts_with(number) {
                change(&mut door.amphora().machine());
            }
        }
        let Scenario { exchanges } = read(&call);
        for Exchange { request, response } in exchanges {
            let what = format!("{name}: {} {}", request.method, request.target);
            let answer = door.answer(ours(&request, folder.path())).await;
            same(&what, &answer, &response, folder.path());
        }
    }

    let mac = "fa:16:3e:00:00:09".parse().unwrap();
    door.amphora().machine().host.insert(mac, "ens9".into());
    // The only one that no request brings about.
    assert_eq!(files("rest_agent").count(), PROBES.len() + 1);
    for name in PROBES {
        let Exchange { request, mut response } =
            read(&vectors("rest_agent").join(format!("{name}.json")));
        let answer = door.answer(ours(&request, folder.path())).await;
        if let Some((_, status)) = OTHERWISE.iter().find(|(other, _)| *other == name) {
            assert_eq!(answer.status.as_u16(), *status, "{name}");
            continue;
        }
        if let Value::String(body) = &mut response.body {
            *body = placed(body, folder.path());
        }
        same(name, &answer, &response, folder.path());
    }
}

/// What is stored is there after a restart, and what was applied is applied.
#[tokio::test]
async fn restart() {
    let folder = TempDir::new().unwrap();
    let before = door(&folder).await;
    let mac = "fa:16:3e:00:00:01".parse().unwrap();
    before.amphora().machine().host.insert(mac, "ens7".into());
    for name in ["04_post_vip_plug", "11_update_listeners_tcp_and_udp"] {
        let file = vectors("rest_driver").join(format!("{name}.json"));
        let Scenario { exchanges } = read(&file);
        for Exchange { request, response } in exchanges {
            let answer = before.answer(ours(&request, folder.path())).await;
            assert_eq!(answer.status.as_u16(), response.status, "{}", request.target);
        }
    }
    let applied = before.amphora().machine().applied.clone();
    assert_eq!(applied.served.as_ref().unwrap().0.listeners.len(), 2);
    drop(before);

    let after = door(&folder).await;
    assert_eq!(after.amphora().machine().applied, applied);
    let inside: Vec<_> = after.amphora().machine().inside.values().cloned().collect();
    assert_eq!(inside, ["eth1"]);
}

/// An interface that was plugged when the agent died is noted when the controller asks again.
#[tokio::test]
async fn plugged_and_not_noted() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder).await;
    let mac = "fa:16:3e:00:00:01".parse().unwrap();
    door.amphora().machine().inside.insert(mac, "eth1".into());
    let Scenario { exchanges } =
        read(&vectors("rest_driver").join("05_post_vip_plug_again_409.json"));
    let answer = door.answer(ours(&exchanges[0].request, folder.path())).await;
    assert_eq!(answer.status.as_u16(), 409);
    drop(door);
    let (store, troubles) =
        Store::open(Paths::new(folder.path().join("octavia"), folder.path().join("octavia/certs")))
            .unwrap();
    assert_eq!(troubles, []);
    assert_eq!(store.document().plugs.vip.as_ref().map(|vip| vip.mac), Some(mac));
}

/// An update that changes nothing is applied to nothing.
#[tokio::test]
async fn again() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder).await;
    let file = vectors("rest_driver").join("11_update_listeners_tcp_and_udp.json");
    let mut changes = Vec::new();
    for _ in 0..3 {
        let Scenario { exchanges } = read(&file);
        for Exchange { request, .. } in exchanges {
            door.answer(ours(&request, folder.path())).await;
        }
        changes.push(door.amphora().machine().changes);
    }
    assert_eq!(changes, [2, 2, 2]);
}

/// Octavia renders the same in another order, and nothing is applied; then something else, and it is.
#[tokio::test]
async fn rendered_again() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder).await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/haproxy/monitor_HTTP_http.cfg");
    let text = placed(&fs::read_to_string(file).unwrap(), folder.path());
    let text = text.replace("rstatus 200", "rstatus 200|202");
    let rows = [
        ("first", text.clone(), 1),
        ("codes in another order", text.replace("200|202", "202|200"), 1),
        ("another code", text.replace("200|202", "200|203"), 2),
    ];
    for (row, text, want) in rows {
        let load_balancer = "40c52c12-68e1-5926-83e7-88107bce47cb";
        let upload = format!("/1.0/loadbalancer/a/{load_balancer}/haproxy");
        let reload = format!("/1.0/loadbalancer/{load_balancer}/reload");
        for (target, body) in [(upload, text), (reload, String::new())] {
            let answer = door.answer(put(&target, body)).await;
            assert_eq!(answer.status.as_u16(), 202, "{row}: {target}");
        }
        assert_eq!(door.amphora().machine().changes, want, "{row}");
    }
}

/// A new configuration is in force for whoever watches it; a bad one changes nothing.
#[tokio::test]
async fn configured() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder).await;
    let (file, watched) = (folder.path().join("amphora-agent.conf"), door.config());
    let old = config(folder.path());
    let new = old.replace("insecure", "other").replace("bind_port = 0", "bind_port = 1");
    let rows = [
        ("half a file", old[..old.len() / 2].to_owned(), 500, "insecure"),
        ("another key, and a port that has to wait", new, 202, "other"),
        ("not a configuration", "x".to_owned(), 500, "other"),
    ];
    for (row, text, status, key) in rows {
        let before = fs::read_to_string(&file).unwrap();
        let answer = door.answer(put("/1.0/config", text.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{row}");
        assert_eq!(watched.borrow().heartbeat_key.reveal(), key, "{row}");
        assert_eq!(watched.borrow().bind_port, 0, "{row}");
        let want = if status == 202 { &text } else { &before };
        assert_eq!(&fs::read_to_string(&file).unwrap(), want, "{row}");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

fn put(target: &str, body: String) -> Request {
    Request { method: Method::PUT, path: target.to_owned(), content_type: None, body: body.into() }
}

/// What could not be done is as if it had not been asked for, also after a restart.
#[tokio::test]
async fn fails() {
    let folder = TempDir::new().unwrap();
    let before = door(&folder).await;
    let file = vectors("rest_driver").join("11_update_listeners_tcp_and_udp.json");
    let Scenario { exchanges } = read(&file);
    let listener = exchanges[3].request.target.clone();
    for Exchange { request, .. } in exchanges {
        before.answer(ours(&request, folder.path())).await;
    }
    let applied = before.amphora().machine().applied.clone();

    before.amphora().machine().fault = Some("no".into());
    let of_listener = |action: &str| listener.replace("reload", action);
    let deleted = of_listener("").replace("loadbalancer", "listeners");
    for (method, target) in [
        (Method::PUT, of_listener("stop")),
        (Method::PUT, of_listener("reload")),
        (Method::DELETE, deleted.trim_end_matches('/').to_owned()),
    ] {
        let what = format!("{method} {target}");
        let request =
            Request { method, path: target, content_type: None, body: Default::default() };
        let answer = before.answer(request).await;
        assert_eq!(answer.status.as_u16(), 500, "{what}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["details"], "no", "{what}");
    }
    drop(before);
    assert_eq!(door(&folder).await.amphora().machine().applied, applied);
}

/// HAProxy reads a certificate when it is started or reloaded: one that was replaced, or came again after
/// a reboot, is something else to apply, though the configuration is the same.
#[tokio::test]
async fn certificate_replaced() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder).await;
    let file = vectors("haproxy").join("proto_TERMINATED_HTTPS_HTTP_ROUND_ROBIN.cfg");
    let text = placed(&fs::read_to_string(file).unwrap(), folder.path());
    let load_balancer = "40c52c12-68e1-5926-83e7-88107bce47cb";
    let upload = format!("/1.0/loadbalancer/a/{load_balancer}/haproxy");
    assert_eq!(door.answer(put(&upload, text)).await.status.as_u16(), 202);
    let certificate = format!("/1.0/loadbalancer/{load_balancer}/certificates/a.pem");
    let reload = format!("/1.0/loadbalancer/{load_balancer}/reload");
    let rows = [("first", "one", 1), ("again", "one", 1), ("replaced", "another", 2)];
    for (row, content, changes) in rows {
        assert_eq!(
            door.answer(put(&certificate, content.into())).await.status.as_u16(),
            200,
            "{row}"
        );
        let answer = door.answer(put(&reload, String::new())).await;
        assert_eq!(answer.status.as_u16(), 202, "{row}");
        assert_eq!(door.amphora().machine().changes, changes, "{row}");
    }
}

/// Listeners that share a pool are uploaded and reloaded one after the other; the pool is what the last
/// one says.
#[tokio::test]
async fn shared_pool() {
    let folder = TempDir::new().unwrap();
    let door = door(&folder).await;
    let file = vectors("lvs").join("UDP_ROUND_ROBIN_v4.conf");
    let first = placed(&fs::read_to_string(file).unwrap(), folder.path());
    let ids = ["f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3", "098bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3"];
    let second = first.replace(ids[0], ids[1]).replace("10.0.0.10 53", "10.0.0.10 54");
    let moved = |text: &str| text.replace("10.1.0.22 8080", "10.1.0.23 8080");
    let rows = [
        ("the first", ids[0], first.clone(), 1, "10.1.0.22"),
        ("the second", ids[1], second.clone(), 2, "10.1.0.22"),
        ("the first, with another member", ids[0], moved(&first), 3, "10.1.0.23"),
        ("the second too", ids[1], moved(&second), 3, "10.1.0.23"),
        ("the second, as before", ids[1], second, 4, "10.1.0.22"),
    ];
    for (row, id, text, changes, member) in rows {
        let upload = format!("/1.0/listeners/a/{id}/udp_listener");
        let reload = format!("/1.0/loadbalancer/{id}/reload");
        for (target, body, status) in [(upload, text, 200), (reload, String::new(), 202)] {
            let answer = door.answer(put(&target, body)).await;
            let body = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status.as_u16(), status, "{row}: {target}: {body}");
        }
        let machine = door.amphora().machine();
        let desired = &machine.applied.served.as_ref().unwrap().1;
        assert_eq!(desired.pools.len(), 1, "{row}");
        assert_eq!(desired.pools[0].members[1].address.to_string(), member, "{row}");
        assert_eq!(machine.changes, changes, "{row}");
    }
}

/// What could not be brought back at the start is still wanted, all of it.
#[tokio::test]
async fn restart_fails() {
    let folder = TempDir::new().unwrap();
    let before = door(&folder).await;
    let file = vectors("rest_driver").join("11_update_listeners_tcp_and_udp.json");
    let Scenario { exchanges } = read(&file);
    let reload = exchanges[3].request.target.clone();
    for Exchange { request, .. } in exchanges {
        before.answer(ours(&request, folder.path())).await;
    }
    let applied = before.amphora().machine().applied.clone();
    drop(before);

    let broken = Memory::default();
    broken.machine().fault = Some("no".into());
    let after = door_before(broken, &folder).await;
    assert!(after.amphora().machine().applied.served.is_none());
    after.amphora().machine().fault = None;
    let answer = after.answer(put(&reload, String::new())).await;
    assert_eq!(answer.status.as_u16(), 202);
    assert_eq!(after.amphora().machine().applied, applied);
}

async fn door(folder: &TempDir) -> Door<Memory> {
    door_before(Memory::default(), folder).await
}

async fn door_before(memory: Memory, folder: &TempDir) -> Door<Memory> {
    let file = folder.path().join("amphora-agent.conf");
    let text = config(folder.path());
    fs::write(&file, &text).unwrap();
    let (config, _) = AgentConfig::from_file(&oslo::File::parse(&text).unwrap()).unwrap();
    let door = Door::open(memory, file, watch::Sender::new(Arc::new(config))).unwrap();
    door.restore().await;
    door
}

fn ours(recorded: &Recorded, folder: &Path) -> Request {
    let body = match (&recorded.json, &recorded.body, &recorded.data) {
        (Value::Null, body, data) => placed(&format!("{body}{data}"), folder),
        (json, _, _) => json.to_string(),
    };
    let kind = recorded.headers.get("Content-Type").and_then(Value::as_str);
    let kind = if recorded.json.is_null() { kind } else { Some("application/json") };
    Request {
        method: recorded.method.parse().unwrap(),
        path: recorded.target.clone(),
        content_type: kind.map(str::to_owned),
        body: body.into(),
    }
}

/// With the paths of this amphora, whose base is not that of the recorded one. The path of the wrapper
/// of ping is the same everywhere.
fn placed(text: &str, folder: &Path) -> String {
    let folder = folder.display();
    let text = text.replace("/var/lib/octavia/ping-wrapper.sh", "PING");
    let text = text.replace("/var/lib/octavia/", "/octavia/");
    let mut placed = String::new();
    for line in text.split_inclusive('\n') {
        let line = match line.strip_prefix("/octavia/") {
            Some(rest) => format!("{folder}/octavia/{rest}"),
            None => line.to_owned(),
        };
        let line = line.replace(" /octavia", &format!(" {folder}/octavia"));
        placed += &line.replace("\"/octavia/", &format!("\"{folder}/octavia/"));
    }
    placed.replace("PING", "/var/lib/octavia/ping-wrapper.sh")
}

fn same(what: &str, answer: &Answer, want: &Reply, folder: &Path) {
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status.as_u16(), want.status, "{what}: {body}");
    let kind = |value: Option<&str>| value.unwrap_or_default().to_lowercase();
    let ours = kind(answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()));
    assert_eq!(ours, kind(want.headers.get("Content-Type").and_then(Value::as_str)), "{what}");
    let want_body = want.body.as_str().unwrap_or_default();
    match serde_json::from_str::<Value>(want_body) {
        Ok(want) => {
            let ours = serde_json::from_str(&body).unwrap_or_default();
            assert_eq!(shape(&ours), shape(&want), "{what}: {body}");
        }
        Err(_) => assert_eq!(body, placed(want_body, folder), "{what}"),
    }
}

/// Types in place of values, except for what the driver reads.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let read =
                ["api_version", "interface", "status", "uuid", "type", "http_code", "message"];
            let entry = |(key, value): (&String, &Value)| {
                let value = if read.contains(&&key[..]) { value.clone() } else { shape(value) };
                (key.clone(), value)
            };
            Value::Object(map.iter().map(entry).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(shape).collect()),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => Value::Null,
    }
}

fn read<T: for<'de> Deserialize<'de>>(file: &Path) -> T {
    let json = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn vectors(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(folder)
}

fn files(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(vectors(folder)).unwrap().map(|entry| entry.unwrap().path())
}
