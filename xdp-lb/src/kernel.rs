//! Program, maps and links of one load balancer, as the kernel has them.
//!
//! All of it is pinned, so it outlives us: the next start opens the maps it finds and puts its own
//! program in the place of the old one, without a packet lost or a flow forgotten.

mod contents;
mod frame_log;
pub mod links;
mod mapped;
mod maps;
mod pins;
mod program;
mod table;
mod tapped;
mod trial;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::{MapError, MapInfo};
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_DEVMAP_HASH, BPF_MAP_TYPE_PROG_ARRAY};
use xdp_lb_ebpf::abi::{Meta, VERSION};
use xdp_lb_ebpf::limits::{FLOWS_MAX, FLOWS_MIN, FLOWS4_DEFAULT, FLOWS6_DEFAULT, STICKY_DEFAULT};

pub use frame_log::FrameLog;
pub use links::{Attached, Mode};
pub use mapped::{BackendWords, Mappable, Mapped, Padded32};
pub use maps::{Maps, total};
pub use pins::{Pins, mounted};
use program::Loaded;
pub use table::{FlowTables, Table};
pub use tapped::Tapped;
pub use trial::{Event, Trial};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-lb.bpf.o"));

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "this xdp-lb was built without its BPF program: run `cargo xtask build-ebpf`, then build again"
    )]
    NoObject,
    #[error(
        "/sys/fs/bpf is not a BPF file system: mount one (`mount -t bpf bpf /sys/fs/bpf`), and use --netns instead of `ip netns exec`, which hides it"
    )]
    NoBpfFs,
    #[error("nothing is pinned in {0}: `xdp-lb run` has not been started")]
    NotStarted(PathBuf),
    #[error(
        "the pinned maps are of version {pinned}, this program knows {VERSION} only; `xdp-lb detach` removes them, and with them the flows"
    )]
    OtherVersion { pinned: u32 },
    #[error(
        "{name} was made with {what} {pinned}, {wanted} is wanted; leave it as it is, or let `xdp-lb detach` remove it, and with it the flows"
    )]
    Differs { name: String, what: &'static str, pinned: u32, wanted: u32 },
    #[error("links are pinned in {0}, but no maps that are whole; `xdp-lb detach` removes them")]
    Damaged(PathBuf),
    #[error("{flows} flow slots: a power of two from {FLOWS_MIN} to {FLOWS_MAX} is needed")]
    Slots { flows: u32 },
    #[error("the BPF object: {0}")]
    Object(#[from] aya_obj::ParseError),
    #[error("the BPF object does not load: {}", links::chain(.0))]
    Load(#[from] EbpfError),
    #[error("the program: {}", links::chain(.0))]
    Program(#[from] ProgramError),
    #[error("the kernel refuses {program}: {}", program::verdict(.error))]
    Refused { program: &'static str, error: ProgramError },
    #[error("map {name}: {}", links::chain(.error))]
    Map { name: &'static str, error: MapError },
    #[error("interface {ifindex} in PORTS: {reason}")]
    Port { ifindex: u32, reason: String },
    #[error("what the program tells of frames: {0}")]
    FrameLog(io::Error),
    #[error("pinning {}: {}", .path.display(), links::chain(.error))]
    Pin { path: PathBuf, error: PinError },
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{interface}: {}", links::why(.error))]
    Attach { interface: String, error: ProgramError },
    #[error("{interface}: its link: {}", links::chain(.error))]
    Link { interface: String, error: LinkError },
    #[error("{interface}: the kernel attached without a link, which cannot be pinned")]
    NoLink { interface: String },
}

impl Error {
    /// Whether it comes again with the same pins, however often one tries.
    pub fn lasts(&self) -> bool {
        match self {
            Self::OtherVersion { .. }
            | Self::Differs { .. }
            | Self::Damaged(_)
            | Self::NoObject
            | Self::Object(_)
            | Self::Load(_)
            | Self::Program(_)
            | Self::Refused { .. } => true,
            Self::NoBpfFs
            | Self::NotStarted(_)
            | Self::Slots { .. }
            | Self::Map { .. }
            | Self::FrameLog(_)
            | Self::Port { .. }
            | Self::Pin { .. }
            | Self::File { .. }
            | Self::Attach { .. }
            | Self::Link { .. }
            | Self::NoLink { .. } => false,
        }
    }
}

/// Sizes that may be chosen at the first start; where none is, what is pinned stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub flows4: Option<u32>,
    pub flows6: Option<u32>,
    pub sticky: Option<u32>,
}

/// Source ports towards members: the first, and how many follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    pub low: u16,
    pub span: u16,
}

pub struct Kernel {
    pub maps: Maps,
    /// Whether maps of an earlier start were found.
    pub resumed: bool,
    pins: Pins,
    loaded: Loaded,
    /// Interfaces that run this very program.
    ours: HashSet<String>,
}

impl Kernel {
    /// Makes and pins the maps, or opens those of an earlier start, and loads the program. It is not
    /// attached yet where it was not before, and where it was the old one runs on.
    pub fn start(
        pins: &Pins,
        sizes: Sizes,
        ports: SourcePorts,
        frame_log: Option<FrameLog>,
    ) -> Result<Self, Error> {
        if OBJECT.is_empty() {
            return Err(Error::NoObject);
        }
        if !mounted() {
            return Err(Error::NoBpfFs);
        }
        let found = maps::meta(pins)?;
        if found.is_none() {
            clear_unfinished(pins)?;
        }
        let wanted = wanted(pins, sizes, found.as_ref())?;
        let meta = Meta {
            snat_low: ports.low,
            snat_span: ports.span,
            ..match found {
                Some(meta) => meta,
                None => first(&wanted)?,
            }
        };
        let loaded = program::load(pins, &wanted, &meta, frame_log)?;
        maps::set_meta(pins, &meta)?;
        Ok(Self {
            maps: Maps::open(pins)?,
            resumed: found.is_some(),
            pins: pins.clone(),
            loaded,
            ours: HashSet::new(),
        })
    }

    /// Puts the program on an interface, or in the place of its predecessor there.
    pub fn attach(&mut self, interface: &str, ifindex: u32) -> Result<Attached, Error> {
        let attached = links::attach(&mut self.loaded.program, &self.pins, interface, ifindex)?;
        self.ours.insert(interface.to_owned());
        Ok(attached)
    }

    /// Whether this start has attached to the interface, or taken it over.
    pub fn is_ours(&self, interface: &str) -> bool {
        self.ours.contains(interface)
    }

    /// Takes it off an interface.
    pub fn detach(&self, interface: &str) -> Result<(), Error> {
        links::detach(&self.pins, interface)
    }

    /// Lets go of the programs before ours, once no interface runs one of them.
    pub fn retire_others(&self) -> Result<(), Error> {
        if self.linked()?.iter().all(|interface| self.is_ours(interface)) {
            self.pins
                .retain_stages(&self.loaded.stages)
                .map_err(|error| Error::File { path: self.pins.directory().into(), error })?;
        }
        Ok(())
    }

    /// The interfaces that have a link, of whichever start.
    pub fn linked(&self) -> Result<Vec<String>, Error> {
        self.pins
            .interfaces()
            .map_err(|error| Error::File { path: self.pins.directory().into(), error })
    }
}

/// Maps of a start that did not get as far as `META` hold nothing yet.
fn clear_unfinished(pins: &Pins) -> Result<(), Error> {
    let failed = |error| Error::File { path: pins.directory().into(), error };
    if !pins.interfaces().map_err(failed)?.is_empty() {
        return Err(Error::Damaged(pins.directory().into()));
    }
    if pins.exist() {
        pins.remove().map_err(failed)?;
    }
    pins.make().map_err(failed)
}

/// Entries of every map of the object. What is pinned already must agree, in every size.
fn wanted(pins: &Pins, sizes: Sizes, found: Option<&Meta>) -> Result<HashMap<String, u32>, Error> {
    let object = aya_obj::Object::parse(OBJECT)?;
    let mut wanted = HashMap::new();
    for (name, map) in &object.maps {
        if map.section_kind() != aya_obj::EbpfSectionKind::Maps
            && map.section_kind() != aya_obj::EbpfSectionKind::BtfMaps
            || map.map_type() == BPF_MAP_TYPE_PROG_ARRAY as u32
            || name == frame_log::MAP
        {
            continue;
        }
        let info = found.is_some().then(|| MapInfo::from_pin(pins.map(name)).ok()).flatten();
        let pinned = info.as_ref().map(MapInfo::max_entries);
        let entries = match name.as_str() {
            "FLOWS4" | "ACCOUNTS4" => slots(sizes.flows4.or(pinned).unwrap_or(FLOWS4_DEFAULT))?,
            "FLOWS6" => slots(sizes.flows6.or(pinned).unwrap_or(FLOWS6_DEFAULT))?,
            "STICKY" => sizes.sticky.or(pinned).unwrap_or(STICKY_DEFAULT),
            _ => map.max_entries(),
        };
        if let Some(info) = info {
            let mut rows = vec![
                ("entries", info.max_entries(), entries),
                ("keys of bytes", info.key_size(), map.key_size()),
            ];
            // aya makes the value of a device map as long as the kernel at hand allows.
            if map.map_type() != BPF_MAP_TYPE_DEVMAP_HASH as u32 {
                rows.push(("values of bytes", info.value_size(), map.value_size()));
            }
            for (what, pinned, wanted) in rows {
                if pinned != wanted {
                    let name = name.clone();
                    return Err(Error::Differs { name, what, pinned, wanted });
                }
            }
        }
        wanted.insert(name.clone(), entries);
    }
    Ok(wanted)
}

fn slots(flows: u32) -> Result<u32, Error> {
    let fits = flows.is_power_of_two() && (FLOWS_MIN..=FLOWS_MAX).contains(&flows);
    if fits { Ok(flows) } else { Err(Error::Slots { flows }) }
}

/// What a first start is made with.
fn first(wanted: &HashMap<String, u32>) -> Result<Meta, Error> {
    let path = PathBuf::from("/dev/urandom");
    let mut seeds = [[0; 8]; 2];
    File::open(&path)
        .and_then(|mut random| random.read_exact(seeds.as_flattened_mut()))
        .map_err(|error| Error::File { path, error })?;
    let [seed0, seed1] = seeds.map(u64::from_ne_bytes);
    Ok(Meta {
        version: VERSION,
        flows4: wanted.get("FLOWS4").copied().unwrap_or_default(),
        flows6: wanted.get("FLOWS6").copied().unwrap_or_default(),
        seed0,
        seed1,
        ..Meta::default()
    })
}
