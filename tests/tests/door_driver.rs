//! Octavia's own REST driver, of today and of long ago, finds in our agent what it finds in the stock
//! one: `tests/octavia/driver.py` says what it does, `tests/octavia/expected/` what must come out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::{env, fs, process, thread};

use serde_json::{Map, Value};
use xdp_lb_tests::octavia::{RELEASES, script};

/// Fewer calls than these have not all been made.
const CALLS_MIN: usize = 80;

/// What operators make of certificates (`tests/octavia/pki.py`), one test each.
const FLAVOURS: [&str; 6] = ["generated", "guide", "v1", "no_eku", "bundle", "joined"];

#[test]
fn drives_with_generated_certificates() {
    drives("generated");
}

#[test]
fn drives_with_certificates_of_the_guide() {
    drives("guide");
}

#[test]
fn drives_with_certificates_of_version_1() {
    drives("v1");
}

#[test]
fn drives_with_a_certificate_for_nothing_in_particular() {
    drives("no_eku");
}

#[test]
fn drives_with_several_authorities() {
    drives("bundle");
}

#[test]
fn drives_with_the_key_on_the_line_of_the_certificate() {
    drives("joined");
}

/// The driver of each release comes to the outcomes expected of it.
fn drives(flavour: &str) {
    for (index, release) in (0..).zip(RELEASES) {
        let folder = Folder::new(&format!("{flavour}-{release}"));
        let pki = folder.0.join("pki");
        finished(script(release, "pki.py").arg(flavour).arg(&pki));

        let mut driver = script(release, "driver.py");
        driver.arg("--pki").arg(&pki).arg("--work").arg(folder.0.join("work"));
        driver.args(["--address", &address(flavour, index).to_string(), "--"]).arg(door());
        let got = outcomes(&String::from_utf8_lossy(&finished(&mut driver).stdout));

        let expected = format!("{}/octavia/expected/{release}.json", env!("CARGO_MANIFEST_DIR"));
        let want = outcomes(&fs::read_to_string(expected).expect("expectations"));
        assert!(want.len() >= CALLS_MIN, "{release}: {} calls are expected", want.len());
        let wrong: Vec<_> =
            want.iter().filter(|(call, want)| got.get(*call) != Some(want)).collect();
        for (call, want) in &wrong {
            let got = got.get(*call).unwrap_or(&Value::Null);
            eprintln!("{flavour}, {release}, {call}\n  got  {got}\n  want {want}");
        }
        assert!(wrong.is_empty(), "{flavour}, {release}: {} calls went wrong", wrong.len());
        assert_eq!(got.len(), want.len(), "{flavour}, {release}: calls");
    }
}

/// By the names of the calls, from a line of JSON for each.
fn outcomes(lines: &str) -> BTreeMap<String, Value> {
    let outcome = |line: &str| {
        let mut outcome: Map<_, _> = serde_json::from_str(line).expect("an object of JSON");
        let call = outcome.remove("call");
        let call = call.as_ref().and_then(Value::as_str).expect("a name");
        (call.to_owned(), Value::Object(outcome))
    };
    lines.lines().map(outcome).collect()
}

/// Runs to its end, which must be a good one.
fn finished(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output
}

/// The server under test. `XDP_LB_DOOR` puts another in its place: the stock agent, to see that all
/// of this but the joined key holds of it too.
fn door() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_xdp-lb-door");
    env::var_os("XDP_LB_DOOR").map_or_else(|| built.into(), PathBuf::from)
}

/// A loopback address for each driver, of whatever test process: the port is the same for all, as it
/// is for amphorae, and is still theirs when a server comes back.
fn address(flavour: &str, release: u32) -> Ipv4Addr {
    let flavour = FLAVOURS.iter().position(|name| *name == flavour).expect("a flavour") as u32;
    let of_process = flavour * RELEASES.len() as u32 + release;
    Ipv4Addr::from_bits(127 << 24 | (process::id() & 0xf_ffff) << 4 | of_process)
}

/// Of one run; gone afterwards, unless that failed.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("xdp-lb-door-{}-{name}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !thread::panicking() {
            // What is left over lies in the way of nobody.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
