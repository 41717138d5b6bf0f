//! `xdp-lb trace`: what becomes of a frame, decision by decision, by the live maps.
//!
//! It is reckoned by the path's own code on a [`Trial`] of the maps, which nothing is written to. `--run` has
//! the kernel's program do it too, and compares: that counts, and may open a flow, which is taken away.

mod frame;
pub mod look;
pub mod names;
mod place;
pub mod rehearse;
mod run;
pub mod sockets;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use agent_api::Name;
use aya::programs::ProgramError;
use pcap_file::DataLink;
use procfs_core::ProcError;
use serde::Serialize;
use xdp_lb_ebpf::family::Key;
use xdp_lb_ebpf::headers::{KIND_IPV4, KIND_IPV6};
use xdp_lb_ebpf::hook::Verdict;

pub use frame::{Flags, Protocol, Tuple};
use names::Names;
use rehearse::{Rehearsed, Step, rehearse};
use run::{Left, Runner};

use crate::kernel::{self, FlowTables, Maps, Pins, Trial, links};
use crate::net::topology::Mac;
use crate::observe::{or_dash, row, table};
use crate::record::Record;
use crate::{lock, namespace, pcap};

/// Where the frames come from.
#[derive(Clone, Debug)]
pub enum Source {
    Tuple(Tuple),
    /// A capture; `-` for the standard input. The frames that it says have left are passed over.
    File(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Options {
    pub source: Source,
    /// The interface that the frames come in by, where the capture names none; else the VIPs'.
    pub interface: Option<String>,
    /// Take the frames for sent to our MAC, wherever they were captured.
    pub readdress: bool,
    /// So many frames at most.
    pub limit: usize,
    /// Have the kernel's program do it too.
    pub run: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error("the program is on no interface")]
    Nowhere,
    #[error("the program is not on {wanted}; it is on {}", .there.join(", "))]
    Interface { wanted: String, there: Vec<String> },
    #[error("{interface} has no MAC in PORT_MACS")]
    NoMac { interface: String },
    #[error(transparent)]
    Tuple(#[from] frame::Error),
    #[error("{}: {error}", .file.display())]
    File { file: PathBuf, error: io::Error },
    #[error("{}: {error}", .file.display())]
    Capture { file: PathBuf, error: pcap::Error },
    #[error("{}: neither pcap nor pcapng", .file.display())]
    NoCapture { file: PathBuf },
    #[error("packet {number} of the capture: link type {link:?} is not read")]
    Link { number: usize, link: DataLink },
    #[error("the sockets: {0}")]
    Sockets(#[from] ProcError),
    #[error("the network namespace of the load balancer: {0}")]
    Namespace(io::Error),
    #[error(
        "no thread of the daemon is where {0} is: name the network namespace with --netns, which local \
         sockets and --run need"
    )]
    Elsewhere(String),
    #[error("the program: {}", links::chain(.0))]
    Program(ProgramError),
    #[error("packet {number}: the kernel does not run the program on it: {}", links::chain(.error))]
    Run { number: usize, error: ProgramError },
}

#[derive(Debug, Serialize)]
pub struct Traced {
    pub frames: Vec<Frame>,
    /// Whether the kernel's program ran.
    pub ran: bool,
    /// Flows that it opened, and of them those that were taken away again.
    pub opened: usize,
    pub removed: usize,
    /// Frames of the capture that were not looked at.
    pub left_out: usize,
}

#[derive(Debug, Serialize)]
pub struct Frame {
    /// In the capture.
    pub number: usize,
    pub interface: String,
    /// Hexadecimal: as it came in, and as it leaves.
    pub before: String,
    pub after: String,
    pub steps: Vec<Step>,
    pub listener: Option<String>,
    pub pool: Option<String>,
    pub member: Option<String>,
    /// `pass`, `drop`, `tx` or `redirect`.
    pub verdict: &'static str,
    /// By which it leaves.
    pub egress: Option<String>,
    pub reasons: Vec<&'static str>,
    /// What the kernel's program made of it.
    pub kernel: Option<Kernel>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernel {
    /// The same, byte by byte.
    Same,
    Differs {
        verdict: &'static str,
        after: String,
    },
    /// It would have changed a connection that is not the trace's own.
    NotRun {
        why: &'static str,
    },
}

/// A frame to be traced.
struct Sent {
    number: usize,
    interface: String,
    ifindex: u32,
    bytes: Vec<u8>,
}

/// Traces the frames of `options` through the load balancer `name`, one after the other: what one opens,
/// the next ones meet.
///
/// `here` says that this thread is in its network namespace; else that is the daemon's.
pub fn trace(name: &Name, options: &Options, here: bool) -> Result<Traced, Error> {
    let pins = Pins::of(name);
    let maps = Maps::open(&pins)?;
    let record = Record::read(&lock::run_file(name, "json")).unwrap_or_default();
    let (interface, ifindex) = default(&Names(&record), options.interface.as_deref())?;
    let work = || {
        let (sent, left_out) = frames(&maps, &record, options, &interface)?;
        let sockets = sockets::connections()?;
        let traced = match options.run {
            false => rehearsed(&maps, &record, &sockets, &sent)?,
            true => ran(&pins, &record, &sockets, &sent)?,
        };
        Ok(Traced { left_out, ..traced })
    };
    if here {
        return work();
    }
    let daemon = lock::holder(name);
    match place::of(daemon.as_deref(), &interface, ifindex).map_err(Error::Namespace)? {
        Some(place) => namespace::inside(&place, work).map_err(Error::Namespace)?,
        None => Err(Error::Elsewhere(interface)),
    }
}

fn default(names: &Names<'_>, wanted: Option<&str>) -> Result<(String, u32), Error> {
    let mut there = names.interfaces();
    let found = match wanted {
        Some(wanted) => there.find(|(name, _)| *name == wanted),
        None => there.next(),
    };
    match (found, wanted) {
        (Some((name, ifindex)), _) => Ok((name.to_owned(), ifindex)),
        (None, None) => Err(Error::Nowhere),
        (None, Some(wanted)) => Err(Error::Interface {
            wanted: wanted.to_owned(),
            there: names.interfaces().map(|(name, _)| name.to_owned()).collect(),
        }),
    }
}

/// The frames to be traced, and how many more there are.
fn frames(
    maps: &Maps,
    record: &Record,
    options: &Options,
    interface: &str,
) -> Result<(Vec<Sent>, usize), Error> {
    let names = Names(record);
    let own = |interface: &str, ifindex: u32| match maps.port_macs.get(&ifindex, 0) {
        Ok([a, b, c, d, e, f, _, _]) => Ok([a, b, c, d, e, f]),
        Err(_) => Err(Error::NoMac { interface: interface.to_owned() }),
    };
    let file = match &options.source {
        Source::Tuple(tuple) => {
            let (interface, ifindex) = default(&names, Some(interface))?;
            let bytes = tuple.frame(own(&interface, ifindex)?)?;
            return Ok((vec![Sent { number: 1, interface, ifindex, bytes }], 0));
        }
        Source::File(file) => file,
    };
    let mut sent = Vec::new();
    let captured = captured(file)?.into_iter();
    let incoming: Vec<_> = captured.filter(|frame| frame.direction != pcap::OUTBOUND).collect();
    for frame in incoming.iter().take(options.limit) {
        // One of another machine's names is not ours.
        let named = frame.interface.as_deref().filter(|_| options.interface.is_none());
        let (interface, ifindex) = named
            .and_then(|named| default(&names, Some(named)).ok())
            .map_or_else(|| default(&names, Some(interface)), Ok)?;
        let own = own(&interface, ifindex)?;
        let bytes = ethernet(frame, own, options.readdress)?;
        sent.push(Sent { number: frame.number, interface, ifindex, bytes });
    }
    let left_out = incoming.len() - sent.len();
    Ok((sent, left_out))
}

fn captured(file: &Path) -> Result<Vec<pcap::Frame>, Error> {
    let bytes = pcap::read(file).map_err(|error| Error::File { file: file.into(), error })?;
    pcap::frames(&bytes)
        .ok_or_else(|| Error::NoCapture { file: file.into() })?
        .map_err(|error| Error::Capture { file: file.into(), error })
}

/// The frame as it is on Ethernet. What the capture cut off is zeros: the path does not look at it.
fn ethernet(frame: &pcap::Frame, own: Mac, readdress: bool) -> Result<Vec<u8>, Error> {
    let mut bytes = frame.bytes.clone();
    bytes.resize(bytes.len().max(frame.length as usize), 0);
    match frame.link {
        DataLink::ETHERNET => {
            if let Some(to) = bytes.get_mut(..6).filter(|_| readdress) {
                to.copy_from_slice(&own);
            }
        }
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => {
            let version = bytes.first().map_or(0, |byte| byte >> 4);
            let kind = if version == 6 { KIND_IPV6 } else { KIND_IPV4 };
            bytes.splice(..0, [&own[..], &frame::FROM, &kind].concat());
        }
        link => return Err(Error::Link { number: frame.number, link }),
    }
    Ok(bytes)
}

fn rehearsed(
    maps: &Maps,
    record: &Record,
    sockets: &HashSet<Key<[u8; 16]>>,
    sent: &[Sent],
) -> Result<Traced, Error> {
    let (names, mapped) = (Names(record), maps.map_flows()?);
    let trial = Trial::new(maps, &mapped, sockets)?;
    let frames = sent.iter().map(|sent| {
        let told = rehearse(&trial, &names, sent.ifindex, &sent.bytes);
        shown(&names, sent, told, None)
    });
    Ok(Traced { frames: frames.collect(), ran: false, opened: 0, removed: 0, left_out: 0 })
}

/// Each frame is rehearsed and then run, so that each is rehearsed on what the ones before left.
fn ran(
    pins: &Pins,
    record: &Record,
    sockets: &HashSet<Key<[u8; 16]>>,
    sent: &[Sent],
) -> Result<Traced, Error> {
    let runner = Runner::open(&pins.program()).map_err(Error::Program)?;
    let (names, mut maps) = (Names(record), Maps::open(pins)?);
    let mapped = maps.map_flows()?;
    let (mut frames, mut left): (Vec<Frame>, Vec<Left>) = Default::default();
    let mut failed = None;
    for sent in sent {
        match run_one(&maps, &mapped, sockets, &names, &runner, sent, &mut left) {
            Ok(frame) => frames.push(frame),
            // What is there is taken away all the same.
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let live = maps.table(&mapped);
    let removed = left.iter().filter(|left| left.remove(&live)).count();
    left.iter().for_each(|left| left.release(&mut maps));
    match failed {
        Some(error) => Err(error),
        None => Ok(Traced { frames, ran: true, opened: left.len(), removed, left_out: 0 }),
    }
}

fn run_one(
    maps: &Maps,
    mapped: &FlowTables,
    sockets: &HashSet<Key<[u8; 16]>>,
    names: &Names<'_>,
    runner: &Runner,
    sent: &Sent,
    left: &mut Vec<Left>,
) -> Result<Frame, Error> {
    let trial = Trial::new(maps, mapped, sockets)?;
    let told = rehearse(&trial, names, sent.ifindex, &sent.bytes);
    let ours: HashSet<_> = left.iter().flat_map(Left::places).collect();
    if trial.disturbed().iter().any(|place| !ours.contains(place)) {
        let why = "it would change a connection that is there";
        return Ok(shown(names, sent, told, Some(Kernel::NotRun { why })));
    }
    let ran = runner
        .run(sent.ifindex, &sent.bytes)
        .map_err(|error| Error::Run { number: sent.number, error })?;
    left.extend(Left::of(&maps.table(mapped), &sent.bytes, &told));
    let same = action(told.verdict) == ran.action && told.frame == ran.frame;
    let kernel = if same {
        Kernel::Same
    } else {
        Kernel::Differs { verdict: word(ran.action), after: hex::encode(&ran.frame) }
    };
    Ok(shown(names, sent, told, Some(kernel)))
}

const ACTIONS: [&str; 5] = ["aborted", "drop", "pass", "tx", "redirect"];

fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop => 1,
        Verdict::Pass => 2,
        Verdict::Tx => 3,
        Verdict::Redirect(_) => 4,
    }
}

fn word(action: u32) -> &'static str {
    ACTIONS.get(action as usize).copied().unwrap_or("unknown")
}

fn shown(names: &Names<'_>, sent: &Sent, told: Rehearsed, kernel: Option<Kernel>) -> Frame {
    let (member, pool) = told.backend.and_then(|number| names.member(number)).unzip();
    let egress = match told.verdict {
        Verdict::Pass | Verdict::Drop => None,
        Verdict::Tx => Some(sent.interface.clone()),
        Verdict::Redirect(egress) => Some(names.interface(egress)),
    };
    Frame {
        number: sent.number,
        interface: sent.interface.clone(),
        before: hex::encode(&sent.bytes),
        after: hex::encode(&told.frame),
        listener: told.listener.and_then(|number| names.listener(number)).map(str::to_owned),
        pool: pool.map(str::to_owned),
        member: member.map(str::to_owned),
        verdict: word(action(told.verdict)),
        egress,
        reasons: told.reasons.iter().map(|reason| reason.text().0).collect(),
        steps: told.steps,
        kernel,
    }
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for frame in &self.frames {
            let Frame { number, interface, before, verdict, egress, kernel, .. } = frame;
            let bytes = before.len() / 2;
            let to = or_dash(egress.as_ref());
            writeln!(
                f,
                "frame {number}: {bytes} bytes in by {interface}: {verdict}, out by {to}\n"
            )?;
            let mut steps = table(&["STAGE", "DECIDED"]);
            for Step { stage, says } in &frame.steps {
                row(&mut steps, [stage, says]);
            }
            match kernel {
                None => {}
                Some(Kernel::Same) => row(&mut steps, [&"kernel", &"the same, byte by byte"]),
                Some(Kernel::Differs { verdict, after }) => {
                    row(&mut steps, [&"kernel", &format!("OTHERWISE: {verdict}, {after}")]);
                }
                Some(Kernel::NotRun { why }) => {
                    row(&mut steps, [&"kernel", &format!("not run: {why}")]);
                }
            }
            writeln!(f, "{steps}\n")?;
        }
        if self.left_out > 0 {
            writeln!(f, "left out: {} more frames (--limit)", self.left_out)?;
        }
        let Self { opened, removed, .. } = self;
        match self.ran {
            false => {
                writeln!(f, "reckoned on a copy: nothing is changed (--run has the kernel do it)")
            }
            true => writeln!(
                f,
                "run by the kernel: what it counted stays counted; flows opened: {opened}, taken away \
                 again: {removed}"
            ),
        }
    }
}
