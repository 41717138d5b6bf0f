//! The network namespace that a load balancer is in: that of its daemon, or of one of its threads.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use nix::net::if_::if_nametoindex;

use crate::namespace;

/// The first namespace of the daemon's threads, or else this thread's own, where `interface` has the
/// index that it was attached by. None where there is none.
pub fn of(daemon: Option<&str>, interface: &str, ifindex: u32) -> io::Result<Option<File>> {
    let is_there = || if_nametoindex(interface) == Ok(ifindex);
    let mut candidates = Vec::new();
    if let Some(daemon) = daemon {
        for task in fs::read_dir(PathBuf::from("/proc").join(daemon).join("task"))? {
            candidates.push(task?.path().join("ns/net"));
        }
    }
    // Where no daemon runs, wherever this was called is the best guess.
    candidates.push(PathBuf::from("/proc/thread-self/ns/net"));
    for candidate in candidates {
        // A thread that has ended meanwhile is nowhere.
        let Ok(file) = File::open(candidate) else { continue };
        if namespace::inside(&file, is_there)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
