//! What must hold before a change goes in.

use anyhow::Result;
use clap::Args;

use crate::{build_ebpf, fuzz, process, setup, test};

/// Of each target: enough for what a change broke, not for what nobody found yet.
const FUZZ_S: u32 = 10;

#[derive(Args, Default)]
pub struct Options {
    /// Leave out the tests that need root
    #[arg(long)]
    pub host_only: bool,
}

pub fn run(options: &Options) -> Result<()> {
    process::step("checking the format");
    process::run(process::cargo().args(["fmt", "--all", "--check"]))?;

    setup::libraries()?;

    // Clippy sees the program's file as the host does. What rustc warns of for BPF is shown, not an
    // error: that the target feature is unstable is one of its warnings.
    build_ebpf::run(&build_ebpf::Options::default())?;

    process::step("checking the lints");
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    process::run(process::cargo().args(clippy))?;

    process::step("checking the documentation");
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    process::run(process::cargo().args(doc).env("RUSTDOCFLAGS", "--deny warnings"))?;

    test::run(&test::Options { host_only: options.host_only, ..Default::default() })?;

    fuzz::run(&fuzz::Options { targets: Vec::new(), seconds: FUZZ_S })
}
