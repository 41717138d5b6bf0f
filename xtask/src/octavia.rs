//! A real Octavia on this machine: built with all that it needs, then the task of `xdp-lb-octavia`.

use std::{ffi::OsString, os::unix::process::CommandExt};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{build_ebpf, process, setup};

#[derive(Args)]
pub struct Options {
    /// up, down, status, demo, compare and more: `help` tells
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<()> {
    ensure!(process::is_root(), "containers need root: run `cargo xtask octavia` as root");
    setup::run(&setup::Options { purposes: vec![setup::Purpose::Octavia] })?;
    build_ebpf::run(&build_ebpf::Options::default())?;
    process::step("building xdp-lb");
    let build = ["build", "--quiet", "--release", "--package=xdp-lb", "--package=xdp-lb-tests"];
    process::run(process::cargo().args(build).args(["--bin=xdp-lb", "--bin=xdp-lb-octavia"]))?;
    // Takes the place of this process, so that a Ctrl-C is its alone.
    let run =
        ["run", "--quiet", "--release", "--package=xdp-lb-tests", "--bin=xdp-lb-octavia", "--"];
    let error = process::cargo().args(run).args(&options.arguments).exec();
    Err(error).context("cannot start xdp-lb-octavia")
}
