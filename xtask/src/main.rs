//! The workshop: what is done to the project, one file per task.

mod bench;
mod build_ebpf;
mod ci;
mod compiler;
mod demo;
mod fuzz;
mod image;
mod linker;
mod octavia;
mod package;
mod packages;
mod process;
mod python;
mod releases;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The tasks of the workshop")]
enum Task {
    /// Build the XDP program into target/bpf/xdp-lb.bpf.o
    BuildEbpf(build_ebpf::Options),
    /// Install what the other tasks call, and Octavia for the tests; mount /sys/fs/bpf
    Setup(setup::Options),
    /// Build all and run the tests: host, kernel and network namespaces
    Test(test::Options),
    /// Measure what a packet costs, and compare with HAProxy and nftables; --help tells more
    Bench(bench::Options),
    /// Watch real traffic go through the load balancer, then leave nothing behind
    Demo(demo::Options),
    /// Keep clients, load balancer and members standing, to play with
    #[command(subcommand)]
    Lab(demo::Lab),
    /// Real Octavia on this machine, whose load balancers run on xdp-lb; `octavia help` tells more
    Octavia(octavia::Options),
    /// Make the Debian package, a file in target/
    Package(package::Options),
    /// Make an image for amphorae, with diskimage-builder; xdp-lb/elements/README.md tells how to use it
    Image(image::Options),
    /// Real traffic and the kernel tests on kernels of several ages, under qemu; --help tells more
    Vm(vm::Options),
    /// Fuzz what comes over the wire: uploads, bodies, the agent's configuration, envelopes
    Fuzz(fuzz::Options),
    /// Check format, lints and documentation, then test
    Ci(ci::Options),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::BuildEbpf(options) => build_ebpf::run(&options),
        Task::Setup(options) => setup::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Lab(task) => demo::lab(&task),
        Task::Octavia(options) => octavia::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Image(options) => image::run(&options),
        Task::Vm(options) => vm::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Ci(options) => ci::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Causes in one sentence; the backtrace of a failed command tells nothing.
            process::step(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
