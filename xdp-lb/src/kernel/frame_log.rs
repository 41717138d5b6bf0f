//! What the program tells of frames, into the log of the daemon.
//!
//! Each load of the program has a ring buffer of its own, which is not pinned: a daemon that takes over
//! loads its own program, and what the one before told last is lost with its daemon.

use std::io;
use std::thread;

use aya::Ebpf;
use aya_log::EbpfLogger;
use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, poll};
use tracing::warn;

/// How much the program tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FrameLog {
    /// Each flow that is opened.
    Info,
    /// And each frame that is dropped or answered.
    Debug,
    /// And each that goes on to the kernel.
    Trace,
}

/// The global by which the program knows its level.
pub const LEVEL: &str = aya_log::LEVEL;
/// The ring buffer.
pub const MAP: &str = "AYA_LOGS";
/// Its bytes where nothing is told: a page is the least there is.
pub const SILENT_BYTES: u32 = 4096;

impl FrameLog {
    /// As the program has it; 0 for none.
    pub fn level(this: Option<Self>) -> u8 {
        match this {
            None => 0,
            Some(Self::Info) => aya_log::Level::Info as u8,
            Some(Self::Debug) => aya_log::Level::Debug as u8,
            Some(Self::Trace) => aya_log::Level::Trace as u8,
        }
    }
}

/// Starts a thread that logs what the object's programs tell, as long as this process lives.
pub fn follow(object: &mut Ebpf) -> io::Result<()> {
    let mut logger = EbpfLogger::init(object).map_err(io::Error::other)?;
    let follow = move || {
        loop {
            match poll(&mut [PollFd::new(&logger, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => logger.flush(),
                Err(error) => return warn!("frames are not told of any more: {error}"),
            }
        }
    };
    thread::Builder::new().name("frame-log".to_owned()).spawn(follow).map(drop)
}
