//! The kernel tests and real traffic on kernels of several ages, each started with qemu from its
//! Debian package. The same program is the first process of those machines.

mod archive;
mod guest;
mod image;
mod modules;
mod nics;
mod programs;
mod qemu;
mod report;
mod table;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use nix::unistd::Uid;
use xdp_lb_tests::signals;

use archive::Archive;
use nics::PAIRS;
use report::Report;

/// The kernels of Debian 12 and 13, the one that the project is developed on, and whatever is new.
const KERNELS: [&str; 4] = ["6.1", "6.12", "6.18", archive::NEWEST];

#[derive(Parser)]
#[command(name = "cargo xtask vm", bin_name = "cargo xtask vm", about)]
struct Options {
    /// Versions, each the newest package of which is taken: 6.1, 6.18.12, newest
    #[arg(default_values = KERNELS)]
    kernels: Vec<String>,
    /// Print a table in Markdown
    #[arg(long)]
    markdown: bool,
    /// Of the pairs of NICs, only so many: the first alone shows native mode
    #[arg(long, default_value_t = PAIRS.len())]
    pairs: usize,
    /// How long one machine may take
    #[arg(long, default_value = "900")]
    bound_s: u64,
}

/// What came of one kernel.
struct Outcome {
    kernel: String,
    report: Report,
    took: Duration,
}

fn main() -> ExitCode {
    if process::id() == 1 {
        guest::run();
    }
    match host(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn host(options: &Options) -> Result<()> {
    ensure!(Uid::effective().is_root(), "tap devices need root: run `cargo xtask vm` as root");
    let all = 1..=PAIRS.len();
    ensure!(all.contains(&options.pairs), "there are {} pairs of NICs", PAIRS.len());
    signals::catch_signals()?;
    let directory = directory();
    let programs = programs::find()?;
    let archive = Archive::open(&directory, &options.kernels)?;
    let mut outcomes = Vec::new();
    for version in &options.kernels {
        let package = archive.newest(version)?;
        let kernel = archive.kernel(&package)?;
        eprintln!("{} ({})", kernel.release, qemu::accelerator());
        let began = Instant::now();
        let want = qemu::Want { pairs: options.pairs, bound: Duration::from_secs(options.bound_s) };
        let report = qemu::run(&directory, &kernel, &programs, want)?;
        outcomes.push(Outcome { kernel: kernel.release, report, took: began.elapsed() });
        signals::check()?;
    }
    println!("{}", table::kernels(&outcomes, options.markdown));
    println!("\n{}", table::stages(&outcomes, options.markdown));
    let failed = outcomes.iter().filter(|outcome| !outcome.report.passed()).count();
    ensure!(failed == 0, "{failed} of {} kernels failed", outcomes.len());
    Ok(())
}

/// Where kernels are kept.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("vm")
}
