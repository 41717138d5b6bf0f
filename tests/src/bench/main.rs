//! What the load balancer costs: `cargo xtask bench`.
//!
//! Figures of this machine at this moment. Everything that is compared is measured in turns, within
//! one run; only ratios of one run mean anything elsewhere.

mod balancer;
mod driver;
mod frames;
mod micro;
mod netns;
mod parse;
mod report;

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use balancer::{Balancer, Sizes};
use report::Report;

/// Measures what a packet costs, and compares the load balancer with HAProxy and nftables.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Options {
    /// Write the figures there too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds, each of which goes through everything once
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: u32,
    /// Leave the other parts out
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// A few minutes less: 5 rounds, and no more than 16,384 flows
    #[arg(long)]
    quick: bool,
    /// A million flows too
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// The TCP listeners log their flows, which then keep accounts
    #[arg(long)]
    logged: bool,
    /// Packets of each sample
    #[arg(long, value_name = "N", default_value_t = 60_000)]
    packets: u32,
    /// The CPU that the packets are measured on
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpu: usize,

    /// Only load the program, fill the maps, pin both as /sys/fs/bpf/xdp-lb/NAME, and leave them there
    #[arg(long, value_name = "NAME", help_heading = "For measuring from outside")]
    pin: Option<String>,
    /// Remove what --pin NAME left
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "pin",
        help_heading = "For measuring from outside"
    )]
    unpin: Option<String>,
    /// With --pin: slots of the IPv4 flow table, a power of two; a flow takes two
    #[arg(long, value_name = "SLOTS", default_value_t = 1 << 19, help_heading = "For measuring from outside")]
    flows4: u32,
    /// With --pin: slots of the IPv6 flow table
    #[arg(long, value_name = "SLOTS", default_value_t = 1 << 19, help_heading = "For measuring from outside")]
    flows6: u32,
    /// With --pin: members; each has room for some 50,000 flows of one family
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        help_heading = "For measuring from outside"
    )]
    members: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Nanoseconds per packet of the program alone
    Micro,
    /// Connections through network namespaces
    Netns,
    /// Milliseconds to understand an upload of many members
    Parse,
}

/// A round through namespaces takes some 20 seconds.
const NETNS_ROUNDS_MAX: u32 = 3;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if let Some(name) = &options.unpin {
        return balancer::unpin(name);
    }
    if let Some(name) = &options.pin {
        return pin(name, options);
    }
    let mut report = Report::default();
    // First, on all CPUs: the other part stays on one.
    let wanted = |part| options.only.is_none_or(|only| only == part);
    if wanted(Part::Netns) {
        report.paths = netns::run(options.rounds.min(NETNS_ROUNDS_MAX))?;
        println!("Through network namespaces\n\n{}\n", report::paths(&report.paths));
    }
    if wanted(Part::Parse) {
        report.parses = parse::run(options.rounds)?;
        println!("Milliseconds to understand an upload\n\n{}\n", report::parses(&report.parses));
    }
    if wanted(Part::Micro) {
        stay_on(options.cpu)?;
        let plan = micro::Plan {
            rounds: if options.quick { options.rounds.min(5) } else { options.rounds },
            frames: options.packets,
            quick: options.quick,
            full: options.full,
            logged: options.logged,
        };
        (report.costs, report.programs) = micro::run(&plan)?;
        println!(
            "Nanoseconds per packet of the program alone\n\n{}\n",
            report::costs(&report.costs)
        );
        println!("{}", report::programs(&report.programs));
    }
    if let Some(path) = &options.json {
        let failed = || format!("writing {}", path.display());
        let file = File::create(path).with_context(failed)?;
        serde_json::to_writer_pretty(file, &report).with_context(failed)?;
    }
    Ok(())
}

fn pin(name: &str, options: &Options) -> Result<()> {
    let Options { flows4, flows6, members, logged, .. } = *options;
    let sizes = Sizes { flows4, flows6, members, logged };
    let balancer = Balancer::start(name, sizes)?;
    println!("{}", balancer.pins.program().display());
    balancer.leave();
    Ok(())
}

/// This thread, and those it starts.
fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("running on CPU {cpu}"))
}
