//! The load balancer on kernels of several ages: built with all that it needs, then the machines of
//! `xdp-lb-vm`.

use std::{env, ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{build_ebpf, packages, process, setup};

#[derive(Args, Default)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Versions of kernels; see `cargo xtask vm --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Takes the place of this process, so that a Ctrl-C is the machines' alone.
pub fn run(options: &Options) -> Result<()> {
    let error = ready()?.args(&options.arguments).exec();
    Err(error).context("cannot start xdp-lb-vm")
}

/// With all that it needs.
fn ready() -> Result<Command> {
    ensure!(process::is_root(), "tap devices need root: run `cargo xtask vm` as root");
    setup::run(&setup::Options { purposes: vec![setup::Purpose::Vm] })?;
    build_ebpf::run(&build_ebpf::Options::default())?;
    process::step("building xdp-lb");
    // As the tests are built: emulated, a release's code is hardly faster.
    process::run(process::cargo().args(["build", "--quiet", "--package=xdp-lb"]))?;
    let test = ["test", "--quiet", "--no-run", "--package=xdp-lb-tests", "--test=kernel_frames"];
    process::run(process::cargo().args(test))?;
    // With the test come the package's programs, beside this task.
    let own = env::current_exe().context("where is this task?")?;
    Ok(Command::new(own.with_file_name("xdp-lb-vm")))
}

/// Where `qemu-utils` is of another release of qemu, as from backports, the two exclude each other, and apt
/// gives up: so that is made the same. Else qemu is a tool as any other.
pub fn install_qemu() -> Result<()> {
    if process::find("qemu-system-x86_64").is_some() || process::find("qemu-img").is_none() {
        return Ok(());
    }
    let utils = format!("qemu-utils={}", packages::candidate("qemu-system-x86")?);
    packages::install(&["--allow-downgrades", "qemu-system-x86", &utils])
}
