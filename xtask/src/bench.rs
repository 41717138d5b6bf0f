//! What the load balancer costs: builds the program and its measure, and runs that.

use std::{env, ffi::OsString, process::Command};

use anyhow::{Context, Result, ensure};
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
    let packages = ["--package=xdp-lb", "--package=xdp-lb-tests"];
    process::run(process::cargo().args(["build", "--quiet", "--release"]).args(packages))?;
    // Beside this task: target/debug/xtask, target/release/xdp-lb.
    let own = env::current_exe().context("where is this task?")?;
    let target = own.ancestors().nth(2).context("this task is in no target folder")?;
    let release = target.join("release");
    let mut bench = Command::new(release.join("xdp-lb-bench"));
    process::run(bench.args(&options.arguments).env("XDP_LB", release.join("xdp-lb")))
}
