//! What the load balancer costs: builds the program and its measure, and runs that.

use std::ffi::OsString;

use anyhow::{Result, ensure};
use clap::Args;

use crate::{build_ebpf, process, setup};

#[derive(Args, Default)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// See `cargo xtask bench --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<()> {
    ensure!(process::is_root(), "the bench loads BPF programs: run `cargo xtask bench` as root");
    setup::run(&setup::Options { purposes: vec![setup::Purpose::Bench] })?;
    build_ebpf::run(&build_ebpf::Options::default())?;
    let run = ["run", "--quiet", "--release", "--package=xdp-lb-tests", "--bin=xdp-lb-bench", "--"];
    process::run(process::cargo().args(run).args(&options.arguments))
}
