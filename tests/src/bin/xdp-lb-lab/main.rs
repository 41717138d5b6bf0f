//! A load balancer among its clients and members, to be watched (`cargo xtask demo`) or played with
//! (`cargo xtask lab`).

mod demo;
mod document;
mod kept;
mod stand;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// The whole of it in half a minute; leaves nothing behind
    Demo,
    /// Start the lab, and leave it standing
    Up,
    /// Enter one of its hosts, or run a command there
    Shell {
        /// client, router, amphora, m1, m2, m3
        #[arg(default_value = "client")]
        host: String,
        /// In place of a shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Remove it
    Down,
    /// The lab's own process
    #[command(hide = true)]
    Stay,
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Demo => demo::run(),
        Task::Up => kept::up(),
        Task::Shell { host, command } => kept::shell(&host, &command),
        Task::Down => kept::down(),
        Task::Stay => kept::stay(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
