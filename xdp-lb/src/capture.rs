//! `xdp-lb capture`: frames as they come and as they leave, with their verdict, as pcapng. What is sent on
//! by XDP no packet socket sees, so `tcpdump` does not.
//!
//! While it runs, another program is in the place of the load balancer's ([`Tapped`]); nothing of it is in
//! the packet path without.

mod write;

use std::fs::{File, TryLockError};
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_api::Name;
use aya::programs::{ProgramError, Xdp};
use aya_obj::programs::XdpAttachType;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use xdp_lb_ebpf::abi::{SCTP, TCP, UDP};
use xdp_lb_ebpf::capture::{Head, SNAP_MAX, VIPS_MAX, Wanted};
use zerocopy::{FromBytes, transmute};

use crate::kernel::{self, Pins, Tapped, links};
use crate::lock;
use crate::record::Record;
use crate::tables::octets;
use write::Writer;

/// How long it waits for a frame before it looks whether it is to go on.
const TURN: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct Options {
    /// `-` for the standard output.
    pub file: PathBuf,
    /// Ends after so many frames, or so many seconds.
    pub count: u64,
    pub seconds: u64,
    /// Bytes that are kept of a frame, at most [`SNAP_MAX`].
    pub snap: u32,
    /// Frames from this client or to it.
    pub client: Option<IpAddr>,
    /// Frames of the connections of this listener.
    pub listener: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error("the program: {}", links::chain(.0))]
    Program(#[from] ProgramError),
    #[error("{what}: {errno}")]
    Call { what: &'static str, errno: Errno },
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("another capture of {0} is under way")]
    Busy(Name),
    #[error("pcapng is not for a terminal: name a file (--file), or pipe it on")]
    Terminal,
    #[error("there is no listener {0} that XDP serves")]
    Listener(String),
    #[error("listener {listener} has {there} addresses, {VIPS_MAX} can be told apart")]
    Vips { listener: String, there: usize },
}

/// How a capture went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    pub frames: u64,
    /// Frames that came too fast.
    pub lost: u64,
    /// The load balancer runs another program since: its frames are not seen.
    pub replaced: bool,
}

/// Captures until `options` say that it is enough, or SIGINT, SIGTERM or SIGHUP does, which end this thread
/// no longer otherwise. `begun` is told when it sees frames.
pub fn capture(name: &Name, options: &Options, begun: impl FnOnce()) -> Result<Captured, Error> {
    let pins = Pins::of(name);
    let _only = only(name)?;
    let record = Record::read(&lock::run_file(name, "json")).unwrap_or_default();
    let wanted = wanted(options, &record)?;
    let mut out = out(&options.file)?;
    let failed = |error| Error::File { path: options.file.clone(), error };
    let signals = signals().map_err(|errno| Error::Call { what: "signals", errno })?;

    let program = program(&pins)?;
    let mut tapped = Tapped::start(&pins, &wanted)?;
    let mut writer = Writer::new(&record, options.snap).map_err(failed)?;
    out.write_all(&writer.written()).and_then(|()| out.flush()).map_err(failed)?;
    begun();

    let end = Instant::now() + Duration::from_secs(options.seconds);
    let (mut replaced, mut ended) = (false, false);
    while writer.frames < options.count && !replaced && !ended {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        ended = wait(&tapped, &signals, left.min(TURN))?;
        while writer.frames < options.count
            && let Some(seen) = tapped.seen.next()
        {
            if let Ok((head, bytes)) = Head::read_from_prefix(&seen) {
                writer.frame(&head, bytes).map_err(failed)?;
            }
        }
        match out.write_all(&writer.written()).and_then(|()| out.flush()) {
            // `| head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            written => written.map_err(failed)?,
        }
        replaced = self::program(&pins).is_ok_and(|now| now != program);
    }
    Ok(Captured { frames: writer.frames, lost: tapped.lost()?, replaced })
}

/// One at a time: each puts back what was there before all. Held until it is dropped, or the process ends.
fn only(name: &Name) -> Result<File, Error> {
    let path = lock::run_file(name, "capture");
    let failed = |error| Error::File { path: path.clone(), error };
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy(name.clone())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Id of the load balancer's own program.
fn program(pins: &Pins) -> Result<u32, ProgramError> {
    Ok(Xdp::from_pin(pins.program(), XdpAttachType::Interface)?.info()?.id())
}

fn signals() -> nix::Result<SignalFd> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        ends.add(signal);
    }
    ends.thread_block()?;
    SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC)
}

/// Waits for a frame, and says whether it is to end.
fn wait(tapped: &Tapped, signals: &SignalFd, patience: Duration) -> Result<bool, Error> {
    let mut waiting = [
        PollFd::new(tapped.seen.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut waiting, patience) {
        Ok(_) => Ok(waiting[1].any().unwrap_or(true)),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(Error::Call { what: "poll", errno }),
    }
}

fn out(file: &Path) -> Result<Box<dyn Write>, Error> {
    if file == Path::new("-") {
        let out = io::stdout();
        return if out.is_terminal() { Err(Error::Terminal) } else { Ok(Box::new(out)) };
    }
    let made = File::create(file).map_err(|error| Error::File { path: file.into(), error })?;
    Ok(Box::new(made))
}

fn wanted(options: &Options, record: &Record) -> Result<Wanted, Error> {
    let mut wanted = Wanted { snap: options.snap.min(SNAP_MAX), ..Wanted::default() };
    if let Some(client) = options.client {
        wanted.client = transmute!(octets(client));
    }
    let Some(id) = &options.listener else {
        return Ok(wanted);
    };
    let listener = record.listeners.iter().find(|listener| listener.id == *id);
    let listener = listener.ok_or_else(|| Error::Listener(id.clone()))?;
    let there = listener.vips.len();
    if there > VIPS_MAX {
        return Err(Error::Vips { listener: id.clone(), there });
    }
    for (place, vip) in wanted.vips.iter_mut().zip(&listener.vips) {
        *place = transmute!(octets(*vip));
    }
    wanted.vips_len = there as u32;
    wanted.port = listener.port.to_be_bytes();
    wanted.proto = match listener.protocol.to_ascii_lowercase().as_str() {
        "udp" => UDP,
        "sctp" => SCTP,
        _ => TCP,
    };
    Ok(wanted)
}
