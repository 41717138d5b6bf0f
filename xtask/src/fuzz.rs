//! Fuzzing of all that comes over the wire, by libFuzzer, which the stable compiler is enough for.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{process, setup};

#[derive(Args)]
pub struct Options {
    /// Only these: bodies, document, envelopes, haproxy, lvs, oslo, vrrp
    pub targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
}

/// A target, and the vectors that it starts from.
const TARGETS: [(&str, &str); 7] = [
    ("bodies", "agent-api/fuzz/seeds/bodies"),
    ("document", "agent-api/fuzz/seeds/document"),
    ("envelopes", "tests/vectors/heartbeat"),
    ("haproxy", "tests/vectors/haproxy"),
    ("lvs", "tests/vectors/lvs"),
    ("oslo", "tests/vectors/agent_conf"),
    ("vrrp", "tests/vectors/vrrp"),
];

/// What cargo-fuzz builds with where no sanitizer is wanted: there is no `unsafe` to be watched.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

pub fn run(options: &Options) -> Result<()> {
    for name in &options.targets {
        ensure!(TARGETS.iter().any(|(target, _)| target == name), "there is no target {name}");
    }
    setup::libraries()?;
    let workspace = process::workspace();
    let folder = workspace.join("target/fuzz");
    process::step("building the fuzz targets");
    let mut build = process::cargo();
    build.current_dir(workspace.join("agent-api/fuzz"));
    // With a target named, the flags are not those of build scripts.
    build.args(["build", "--release", "--quiet", "--target", TRIPLE]);
    process::run(build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", FLAGS))?;

    let named = |target: &str| {
        options.targets.is_empty() || options.targets.iter().any(|name| name == target)
    };
    for (target, seeds) in TARGETS.into_iter().filter(|(target, _)| named(target)) {
        process::step(format!("fuzzing {target} for {} s", options.seconds));
        fuzz(&folder, target, &workspace.join(seeds), options.seconds)?;
    }
    Ok(())
}

/// Fails where an input makes it panic, takes more than five seconds or 512 MiB; the input is kept.
fn fuzz(folder: &Path, target: &str, seeds: &Path, seconds: u32) -> Result<()> {
    let corpus = folder.join("corpus").join(target);
    let artifacts = folder.join("artifacts").join(target);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    // libFuzzer talks a lot, and to no end but when it has found something.
    let log = folder.join(target).with_extension("log");
    let mut fuzz = Command::new(folder.join(TRIPLE).join("release").join(target));
    fuzz.arg(format!("-max_total_time={seconds}"));
    fuzz.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzz.args(["-timeout=5", "-rss_limit_mb=512", "-max_len=65536", "-print_final_stats=1"]);
    fuzz.arg(&corpus).arg(seeds).stderr(fs::File::create(&log)?);
    process::run(&mut fuzz).with_context(|| {
        format!("what {target} found is in {} and {}", log.display(), artifacts.display())
    })?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let inputs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    process::step(format!("{target} took {} inputs", inputs.unwrap_or("?").trim()));
    Ok(())
}
