//! `xdp-lb heartbeat`: what amphorae send, taken apart, watched, or opened and handed on.

mod capture;
pub mod decode;
pub mod listen;
mod read;
pub mod relay;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agent_api::config::{self, Secret};

/// Port of a health manager, unless it is told another (Octavia `[health_manager] bind_port`).
pub const PORT: u16 = 5555;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", .file.display())]
    Config { file: PathBuf, error: config::Error },
    #[error("{}: {error}", .file.display())]
    Capture { file: PathBuf, error: capture::Error },
    #[error("{address}: {error}")]
    Bind { address: SocketAddr, error: std::io::Error },
    #[error("{}: {error}; what came before the start could come again: remove it to go on without", .file.display())]
    State { file: PathBuf, error: String },
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The key of heartbeats as `file` has it: `amphora-agent.conf`, or the controller's `octavia.conf`. Not
/// an argument, which everybody on the machine could read.
pub fn key(file: &Path) -> Result<Secret, Error> {
    config::heartbeat_key(file).map_err(|error| Error::Config { file: file.to_owned(), error })
}
