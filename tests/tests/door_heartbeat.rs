//! Octavia's health manager, of today and of long ago, reads our heartbeats.

use std::fs;
use std::path::{Path, PathBuf};

use agent_api::heartbeat::envelope;
use serde_json::{Value, json};
use xdp_lb_tests::octavia::{RELEASES, fed};

/// Fewer vectors than these are not all.
const VECTORS_MIN: usize = 60;

/// A recorded datagram; what Octavia made of it.
struct Vector {
    name: String,
    key: String,
    datagram: Vec<u8>,
    verdict: Value,
}

#[test]
fn releases_agree_on_the_recorded_datagrams() {
    let vectors = vectors();
    let sent: Vec<_> =
        vectors.iter().map(|vector| (vector.key.as_str(), vector.datagram.clone())).collect();
    for release in RELEASES {
        for (vector, got) in vectors.iter().zip(verdicts(release, &sent)) {
            assert_eq!(got, vector.verdict, "{release}: {}", vector.name);
        }
    }
}

#[test]
fn ours_are_read() {
    let vectors: Vec<_> =
        vectors().into_iter().filter(|vector| vector.verdict["message"].is_object()).collect();
    let wrap = |vector: &Vector| {
        let json = vector.verdict["message"].to_string();
        let wrapped = envelope::wrap(json.as_bytes(), vector.key.as_bytes());
        wrapped.expect("it fits a datagram")
    };
    let sent: Vec<_> = vectors.iter().map(|vector| (vector.key.as_str(), wrap(vector))).collect();
    for release in RELEASES {
        for (vector, got) in vectors.iter().zip(verdicts(release, &sent)) {
            assert_eq!(got, vector.verdict, "{release}: {}", vector.name);
        }
    }
}

/// What `release` makes of datagrams, each with its key.
fn verdicts(release: &str, sent: &[(&str, Vec<u8>)]) -> Vec<Value> {
    let lines: String = sent
        .iter()
        .map(|(key, datagram)| format!("{} {}\n", hex(key.as_bytes()), hex(datagram)))
        .collect();
    let text = fed(release, "heartbeat.py", lines);
    let verdicts: Vec<_> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(verdicts.len(), sent.len(), "{release}");
    verdicts
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/heartbeat");
    let files = fs::read_dir(folder).expect("vectors").map(|entry| entry.expect("an entry").path());
    let is_json = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "json");
    let vectors: Vec<_> = files.filter(is_json).map(|file| vector(&file)).collect();
    assert!(vectors.len() >= VECTORS_MIN, "{} vectors", vectors.len());
    vectors
}

fn vector(file: &Path) -> Vector {
    let side = fs::read(file).expect("a vector");
    let side: Value = serde_json::from_slice(&side).expect("JSON");
    let text = |key: &str| side[key].as_str().unwrap_or_default().to_owned();
    let verdict = match &side["unwrap"] {
        unwrap if unwrap["ok"].is_null() => json!({ "error": unwrap["error"] }),
        unwrap => json!({ "message": unwrap["ok"] }),
    };
    Vector {
        name: text("name"),
        key: text("key"),
        datagram: fs::read(file.with_extension("bin")).expect("a datagram"),
        verdict,
    }
}
