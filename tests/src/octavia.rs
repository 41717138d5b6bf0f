//! Octavia itself, in the Python environments that `cargo xtask setup test` makes.

use std::path::Path;
use std::process::Command;

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
