//! Octavia itself, in the Python environments that `cargo xtask setup test` makes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// The releases at hand; xtask's `octavia.rs` says why these.
pub const RELEASES: [&str; 2] = ["19.0.0", "4.1.0"];

/// A script of `tests/octavia/`, to be run in the environment of `release`.
///
/// # Panics
///
/// When there is no such environment.
pub fn script(release: &str, name: &str) -> Command {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = tests.join("../target/octavia").join(release).join("bin/python");
    assert!(python.exists(), "{} is missing: run `cargo xtask setup test`", python.display());
    let mut script = Command::new(python);
    // Octavia's imports warn of each other.
    script.args(["-W", "ignore"]).arg(tests.join("octavia").join(name));
    script
}

/// What such a script answers to its input.
///
/// # Panics
///
/// When it fails.
pub fn fed(release: &str, name: &str, input: String) -> String {
    let mut python = script(release, name);
    let mut python =
        python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = python.stdin.take().expect("a pipe");
    let writing = thread::spawn(move || stdin.write_all(input.as_bytes()).expect("it reads"));
    let output = python.wait_with_output().expect("it ends");
    writing.join().expect("all is written");
    assert!(output.status.success(), "{name} of {release}: {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}
