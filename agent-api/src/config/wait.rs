//! Waiting for the configuration: cloud-init may write it after the agent has started, or while it reads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use inotify::{Inotify, WatchMask};
use tracing::info;

use super::AgentConfig;
use crate::oslo::File;

/// Returns once a file is there that is a configuration. Why one is not, or none is, is told when it
/// changes.
pub async fn wait_for(path: &Path) -> io::Result<AgentConfig> {
    let mut told = String::new();
    loop {
        // Watched before it is read: what happens in between is not missed.
        let mut events = watch(path)?;
        match read(path) {
            Ok(config) => return Ok(config),
            Err(why) if why != told => {
                info!("waiting for {}: {why}", path.display());
                told = why;
            }
            Err(_) => {}
        }
        // That there was one is all that matters; a lost watch shows up as the end of the stream.
        if let Some(Err(error)) = events.next().await {
            return Err(error);
        }
    }
}

fn read(path: &Path) -> Result<AgentConfig, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let file = File::parse(&text).map_err(|error| error.to_string())?;
    AgentConfig::from_file(&file).map_err(|error| error.to_string())
}

/// Of the directory of the file, or the nearest above it that is there.
fn watch(path: &Path) -> io::Result<inotify::EventStream<[u8; 4096]>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MODIFY
        | WatchMask::MOVED_TO
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    let absolute = std::path::absolute(path)?;
    let mut directory: PathBuf = absolute.clone();
    while directory.pop() {
        match inotify.watches().add(&directory, mask | WatchMask::ONLYDIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return inotify.into_event_stream([0; 4096]),
        }
    }
    Err(io::Error::other(format!("{} is in no directory", absolute.display())))
}
