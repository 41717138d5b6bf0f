//! A real Octavia on this machine: kept standing to play with, walked through, and compared.

mod compare;
mod demo;
mod soak;
mod typed;

use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use xdp_lb_tests::balancer::beside;
use xdp_lb_tests::container;
use xdp_lb_tests::octavia::STACKS;
use xdp_lb_tests::octavia::stack::{Options, Stack};

#[derive(Parser)]
#[command(name = "cargo xtask octavia", bin_name = "cargo xtask octavia", about)]
enum Task {
    /// Start Octavia, and leave it standing
    Up(Up),
    /// End it and all its amphorae; nothing stays
    Down,
    /// Show its services and amphorae
    Status,
    /// Call the API: `api GET lbaas/loadbalancers`
    Api { method: String, path: String, body: Option<String> },
    /// Run a command next to Octavia: where its networks are, with the addresses of their gateways
    #[command(trailing_var_arg = true)]
    Run {
        #[arg(allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Run the OpenStack client: `openstack loadbalancer list`
    #[command(trailing_var_arg = true)]
    Openstack {
        #[arg(allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command in an amphora, or in the one whose id begins so
    #[command(trailing_var_arg = true)]
    Amphora {
        id: String,
        #[arg(allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Walk through it: a load balancer from its creation to its end; leaves nothing behind
    Demo,
    /// Do what users do, with stock amphorae and with ours, and print what came of it
    Compare(compare::Options),
    /// Change many load balancers at random, delete them, and look for what is left
    Soak(soak::Options),
}

#[derive(Args)]
struct Up {
    /// Of Octavia
    #[arg(long, default_value = STACKS[0])]
    release: String,
    /// A file with settings over those of octavia.conf
    #[arg(long)]
    settings: Option<PathBuf>,
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Up(options) => up(&options),
        Task::Down => Stack::down(&directory()?),
        Task::Status => {
            let units = ["octavia.service", "database.service", "networks.service", "amphora-*"];
            let list = ["--no-pager", "--plain", "list-units"];
            become_command(&mut standing()?.command("systemctl", &[&list[..], &units].concat()))
        }
        Task::Api { method, path, body } => api(&method, &path, body.as_deref()),
        Task::Run { command } => become_command(&mut inside(&standing()?, &command)),
        Task::Openstack { arguments } => {
            let client = ["/etc/octavia/venv/bin/openstack", "--os-auth-type=none"];
            let endpoint = ["--os-endpoint=http://127.0.0.1:9876"];
            let words = client.into_iter().chain(endpoint).map(str::to_owned).chain(arguments);
            become_command(&mut inside(&standing()?, &words.collect::<Vec<_>>()))
        }
        Task::Amphora { id, command } => {
            let pid = standing()?.amphora_pid(&id)?;
            let words: Vec<_> = command.iter().map(String::as_str).collect();
            become_command(&mut container::inside(pid, words[0], &words[1..]))
        }
        Task::Demo => demo::run(),
        Task::Compare(options) => compare::run(&options),
        Task::Soak(options) => soak::run(&options),
    }
}

fn up(options: &Up) -> Result<()> {
    let directory = directory()?;
    if Stack::find(&directory)?.is_some() {
        println!("it is up");
        return Ok(());
    }
    Stack::down(&directory)?;
    let settings = options.settings.as_ref().map(std::fs::read_to_string).transpose()?;
    let settings = settings.unwrap_or_default();
    let options = Options { release: &options.release, program: &beside()?, settings: &settings };
    let began = std::time::Instant::now();
    let stack = Stack::start(&directory, &options)?;
    println!(
        "Octavia is up after {:.1} s; its logs are in {}",
        began.elapsed().as_secs_f64(),
        stack.directory.join("log").display()
    );
    Ok(())
}

fn api(method: &str, path: &str, body: Option<&str>) -> Result<()> {
    let body = body.map(serde_json::from_str).transpose().context("the body")?;
    let answer = xdp_lb_tests::octavia::api::call(&standing()?.netns, method, path, body.as_ref())?;
    // Whoever reads it may have seen enough.
    match writeln!(std::io::stdout(), "{answer:#}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Where the one that stands has its state.
fn directory() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    Ok(workspace.join("target/octavia-stack"))
}

fn standing() -> Result<Stack> {
    Stack::find(&directory()?)?.context("Octavia is not up: run `cargo xtask octavia up`")
}

fn inside(stack: &Stack, words: &[String]) -> Command {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    stack.command(words[0], &words[1..])
}

/// Takes the place of this process, so that its output and a Ctrl-C are the command's own.
fn become_command(command: &mut Command) -> Result<()> {
    bail!("{command:?}: {}", command.exec())
}
