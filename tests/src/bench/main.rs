//! What the load balancer costs: `cargo xtask bench`.
//!
//! Figures of this machine at this moment. Everything that is compared is measured in turns, within
//! one run; only ratios of one run mean anything elsewhere.

mod balancer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use balancer::{Balancer, Sizes};

#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Options {
    /// Only load the program, fill the maps, pin both as /sys/fs/bpf/xdp-lb/NAME, and leave them there
    #[arg(long, value_name = "NAME")]
    pin: Option<String>,
    /// Remove what --pin NAME left
    #[arg(long, value_name = "NAME", conflicts_with = "pin")]
    unpin: Option<String>,
    /// With --pin: slots of the IPv4 flow table, a power of two; a flow takes two
    #[arg(long, value_name = "SLOTS", default_value_t = 1 << 19)]
    flows4: u32,
    /// With --pin: slots of the IPv6 flow table
    #[arg(long, value_name = "SLOTS", default_value_t = 1 << 19)]
    flows6: u32,
    /// With --pin: members; each has room for some 50,000 flows of one family
    #[arg(long, default_value_t = 10)]
    members: u16,
}

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
    let Some(name) = &options.pin else {
        anyhow::bail!("nothing else is here yet");
    };
    let sizes = Sizes { flows4: options.flows4, flows6: options.flows6, members: options.members };
    let balancer = Balancer::start(name, sizes)?;
    let program: PathBuf = balancer.pins.program();
    println!("{}", program.display());
    balancer.leave();
    Ok(())
}
