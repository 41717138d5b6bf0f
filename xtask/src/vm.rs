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

pub fn run(options: &Options) -> Result<()> {
    ensure!(process::is_root(), "tap devices need root: run `cargo xtask vm` as root");
    install_qemu()?;
    setup::run(&setup::Options { purposes: vec![setup::Purpose::Vm] })?;
    build_ebpf::run(&build_ebpf::Options::default())?;
    process::step("building xdp-lb");
    // As the tests are built: emulated, a release's code is hardly faster.
    process::run(process::cargo().args(["build", "--quiet", "--package=xdp-lb"]))?;
    let test = ["test", "--quiet", "--no-run", "--package=xdp-lb-tests", "--test=kernel_frames"];
    process::run(process::cargo().args(test))?;
    // With the test come the package's programs, beside this task. Takes its place, so that a Ctrl-C is
    // that one's alone.
    let own = env::current_exe().context("where is this task?")?;
    let error = Command::new(own.with_file_name("xdp-lb-vm")).args(&options.arguments).exec();
    Err(error).context("cannot start xdp-lb-vm")
}

/// As any other tool; but where `qemu-utils` is of another release of qemu, as from backports, the two
/// exclude each other, and it is made the same.
fn install_qemu() -> Result<()> {
    if process::find("qemu-system-x86_64").is_some() || process::find("qemu-img").is_none() {
        return Ok(());
    }
    let show = ["show", "--no-all-versions", "qemu-system-x86"];
    let shown = process::output(Command::new("apt-cache").args(show))?;
    let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
    let version = version.context("apt knows no qemu-system-x86: run `apt-get update`")?;
    packages::install(&["--allow-downgrades", "qemu-system-x86", &format!("qemu-utils={version}")])
}
