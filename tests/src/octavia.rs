//! Octavia itself, in the Python environments that `cargo xtask setup test` makes.

pub mod amphora;
pub mod api;
pub mod balancer;
pub mod cloud;
pub mod scenarios;
pub mod soak;
pub mod stack;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// Those whose driver is at hand; xtask's `releases.rs` says why these.
pub const RELEASES: [&str; 2] = ["19.0.0", "4.1.0"];

/// Those whose whole control plane is at hand, for [`stack`].
pub const STACKS: [&str; 2] = ["19.0.0", "11.0.3"];

/// Where a release is installed.
///
/// # Panics
///
/// When it is not.
pub fn environment(release: &str) -> PathBuf {
    let at = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/octavia").join(release);
    assert!(at.exists(), "{} is missing: run `cargo xtask setup test`", at.display());
    at
}

/// A script of `tests/octavia/`, to be run in the environment of `release`.
///
/// # Panics
///
/// When there is no such environment.
pub fn script(release: &str, name: &str) -> Command {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new(environment(release).join("bin/python"));
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
