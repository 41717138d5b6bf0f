//! All tests: host, kernel (`BPF_PROG_TEST_RUN`) and network namespaces.

use anyhow::{Result, ensure};
use clap::Args;

use crate::{build_ebpf, process, releases, setup};

/// What needs root, in nextest's language: two kinds of test binaries of one package.
const ROOT_TESTS: &str = "package(xdp-lb-tests) & binary(/^(kernel|netns)/)";

#[derive(Args, Default)]
pub struct Options {
    /// Run only tests with one of these in their names
    pub filters: Vec<String>,
    /// Leave out the tests that need root: kernel and network namespaces
    #[arg(long)]
    pub host_only: bool,
}

pub fn run(options: &Options) -> Result<()> {
    if options.host_only {
        setup::libraries()?;
        releases::install()?;
    } else {
        ensure!(
            process::is_root(),
            "the kernel and namespace tests need root: run `cargo xtask test` as root, or \
             `cargo xtask test --host-only`"
        );
        setup::run(&setup::Options { purposes: vec![setup::Purpose::Test] })?;
    }
    build_ebpf::run(&build_ebpf::Options::default())?;

    process::step(if options.host_only {
        "testing on the host only"
    } else {
        "testing on the host, in the kernel and in network namespaces"
    });
    if process::find("cargo-nextest").is_some() { nextest(options) } else { cargo_test(options) }
}

fn nextest(options: &Options) -> Result<()> {
    let mut nextest = process::cargo();
    nextest.args(["nextest", "run", "--workspace"]).args(&options.filters);
    if options.host_only {
        nextest.args(["--filterset", &format!("not ({ROOT_TESTS})")]);
    }
    process::run(&mut nextest)?;
    if options.filters.is_empty() {
        // nextest does not know the examples in documentation.
        process::run(process::cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    Ok(())
}

fn cargo_test(options: &Options) -> Result<()> {
    let mut test = process::cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]);
    if options.host_only {
        // `cargo test` cannot leave out single test binaries, so the whole package goes.
        test.args(["--exclude", "xdp-lb-tests"]);
    }
    process::run(test.arg("--").args(&options.filters))
}
