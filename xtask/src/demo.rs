//! The load balancer among clients and members: built with all that it needs, then watched (`demo`)
//! or left standing to play with (`lab`).

use std::{ffi::OsString, os::unix::process::CommandExt};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::{build_ebpf, process, setup};

#[derive(Args, Default)]
pub struct Options {}

#[derive(Subcommand)]
pub enum Lab {
    /// Start the lab, and leave it standing
    Up,
    /// Enter one of its hosts, or run a command there: `shell client curl -s 192.0.2.10`
    Shell {
        /// client, router, amphora, m1, m2, m3; the client when none is named
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Remove it
    Down,
}

pub fn run(_: &Options) -> Result<()> {
    root("demo")?;
    ready()?;
    become_lab("demo", &[])
}

pub fn lab(task: &Lab) -> Result<()> {
    root("lab")?;
    match task {
        Lab::Up => {
            ready()?;
            become_lab("up", &[])
        }
        Lab::Shell { arguments } => become_lab("shell", arguments),
        Lab::Down => become_lab("down", &[]),
    }
}

fn root(task: &str) -> Result<()> {
    ensure!(
        process::is_root(),
        "network namespaces and BPF need root: run `cargo xtask {task}` as root"
    );
    Ok(())
}

fn ready() -> Result<()> {
    setup::run(&setup::Options { purposes: vec![setup::Purpose::Demo] })?;
    build_ebpf::run(&build_ebpf::Options::default())?;
    process::step("building xdp-lb");
    let build = ["build", "--quiet", "--release", "--package=xdp-lb", "--package=xdp-lb-tests"];
    process::run(process::cargo().args(build).args(["--bin=xdp-lb", "--bin=xdp-lb-lab"]))
}

/// Takes the place of this process, so that a Ctrl-C is the lab's alone.
fn become_lab(task: &str, arguments: &[OsString]) -> Result<()> {
    let run = ["run", "--quiet", "--release", "--package=xdp-lb-tests", "--bin=xdp-lb-lab", "--"];
    let mut lab = process::cargo();
    let error = lab.args(run).arg(task).args(arguments).exec();
    Err(error).context("cannot start the lab")
}
