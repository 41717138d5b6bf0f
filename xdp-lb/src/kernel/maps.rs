//! The pinned maps, opened.

use std::io;
use std::os::fd::AsFd;

use aya::maps::{DevMapHash, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use xdp_lb_ebpf::abi::{
    BackendCounters, Fragment, FragmentKey, Listener, ListenerCounters, ListenerKey, Meta,
    NetworkKey, Sticky, StickyKey,
};
use xdp_lb_ebpf::account::{Account, FlowLogs};
use xdp_lb_ebpf::family::{Slot4, Slot6};
use zerocopy::FromBytes;

use super::mapped::{BackendWords, Mappable, Mapped, Padded32, Shared};
use super::{Error, Pins};

/// What the maps of one load balancer hold. aya takes plain bytes for keys and values; the ABI's
/// types are bytes, so `zerocopy` turns one into the other.
pub struct Maps {
    pub meta: Meta,
    pub(super) flows4: Mappable<Slot4>,
    pub(super) flows6: Mappable<Slot6>,
    pub(super) accounts4: Mappable<Account>,
    pub flow_logs: Mapped<FlowLogs>,
    pub listeners: HashMap<MapData, [u8; size_of::<ListenerKey>()], [u8; size_of::<Listener>()]>,
    pub backends: Mapped<BackendWords>,
    pub(super) ring: Mappable<Padded32>,
    pub cursors: Mapped<Padded32>,
    pub listener_load: Mapped<Padded32>,
    pub backend_load: Mapped<Padded32>,
    pub networks: LpmTrie<MapData, [u8; size_of::<NetworkKey>()], u32>,
    pub sticky: HashMap<MapData, [u8; size_of::<StickyKey>()], [u8; size_of::<Sticky>()]>,
    pub(super) fragments:
        HashMap<MapData, [u8; size_of::<FragmentKey>()], [u8; size_of::<Fragment>()]>,
    pub(super) fragment_id: Mapped<Padded32>,
    pub backend_counters: PerCpuArray<MapData, [u8; size_of::<BackendCounters>()]>,
    pub listener_counters: PerCpuArray<MapData, [u8; size_of::<ListenerCounters>()]>,
    pub reasons: PerCpuArray<MapData, u64>,
    pub clock: Mapped<Padded32>,
    pub ports: DevMapHash<MapData>,
    pub port_macs: HashMap<MapData, u32, [u8; 8]>,
}

impl Maps {
    /// Opens the maps of a load balancer that has been started.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let opening = Opening(pins);
        Ok(Self {
            meta: meta(pins)?.ok_or_else(|| Error::NotStarted(pins.directory().into()))?,
            flows4: opening.mappable("FLOWS4")?,
            flows6: opening.mappable("FLOWS6")?,
            accounts4: opening.mappable("ACCOUNTS4")?,
            flow_logs: opening.mapped("FLOW_LOGS")?,
            listeners: opening.map("LISTENERS")?,
            backends: opening.mapped("BACKENDS")?,
            ring: opening.mappable("RING")?,
            cursors: opening.mapped("CURSORS")?,
            listener_load: opening.mapped("LISTENER_LOAD")?,
            backend_load: opening.mapped("BACKEND_LOAD")?,
            networks: opening.map("NETWORKS")?,
            sticky: opening.map("STICKY")?,
            fragments: opening.map("FRAGMENTS")?,
            fragment_id: opening.mapped("FRAGMENT_ID")?,
            backend_counters: opening.map("BACKEND_COUNTERS")?,
            listener_counters: opening.map("LISTENER_COUNTERS")?,
            reasons: opening.map("REASONS")?,
            clock: opening.mapped("CLOCK")?,
            ports: opening.map("PORTS")?,
            port_macs: opening.map("PORT_MACS")?,
        })
    }
}

/// What the maps were made with; none where they were never finished. A version that is not ours is
/// an error: nothing else of these maps can be understood.
pub fn meta(pins: &Pins) -> Result<Option<Meta>, Error> {
    let opening = Opening(pins);
    if !pins.map("META").exists() {
        return Ok(None);
    }
    let metas = aya::maps::Array::<_, [u8; size_of::<Meta>()]>::try_from(opening.any("META")?)
        .map_err(opening.failed("META"))?;
    let bytes = metas.get(&0, 0).map_err(opening.failed("META"))?;
    let meta: Meta = zerocopy::transmute!(bytes);
    match meta.version {
        0 => Ok(None),
        xdp_lb_ebpf::abi::VERSION => Ok(Some(meta)),
        pinned => Err(Error::OtherVersion { pinned }),
    }
}

/// Says that the maps are whole, and what they were made with.
pub fn set_meta(pins: &Pins, meta: &Meta) -> Result<(), Error> {
    let opening = Opening(pins);
    let mut metas = aya::maps::Array::<_, [u8; size_of::<Meta>()]>::try_from(opening.any("META")?)
        .map_err(opening.failed("META"))?;
    let bytes: [u8; size_of::<Meta>()] = zerocopy::transmute!(*meta);
    metas.set(0, bytes, 0).map_err(opening.failed("META"))
}

/// The sum over the CPUs of a per-CPU value's fields, each of them a `u64`.
pub fn total<T: FromBytes + zerocopy::IntoBytes, const N: usize>(
    map: &PerCpuArray<MapData, [u8; N]>,
    index: u32,
) -> Result<T, MapError> {
    const { assert!(size_of::<T>() == N && N.is_multiple_of(8)) };
    let mut sum = T::new_zeroed();
    for value in map.get(&index, 0)?.iter() {
        for (sum, part) in sum.as_mut_bytes().chunks_exact_mut(8).zip(value.chunks_exact(8)) {
            let add = |a: &[u8], b: &[u8]| Some(word(a)?.wrapping_add(word(b)?));
            if let Some(both) = add(sum, part) {
                sum.copy_from_slice(&both.to_ne_bytes());
            }
        }
    }
    Ok(sum)
}

fn word(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

struct Opening<'a>(&'a Pins);

impl Opening<'_> {
    fn map<T: TryFrom<Map, Error = MapError>>(&self, name: &'static str) -> Result<T, Error> {
        self.any(name)?.try_into().map_err(self.failed(name))
    }

    fn mapped<T: Shared>(&self, name: &'static str) -> Result<Mapped<T>, Error> {
        self.mappable(name)?.map().map_err(|error| self.failed(name)(error.into()))
    }

    fn mappable<T: Shared>(&self, name: &'static str) -> Result<Mappable<T>, Error> {
        let data = self.data(name)?;
        let info = data.info().map_err(self.failed(name))?;
        // A `u32` takes 8 bytes of an array, like everything else that is shorter.
        if info.value_size().next_multiple_of(8) as usize != size_of::<T>() {
            return Err(self.failed(name)(MapError::InvalidValueSize {
                size: size_of::<T>(),
                expected: info.value_size() as usize,
            }));
        }
        let mappable = Mappable::new(data.fd().as_fd(), info.max_entries());
        mappable.map_err(|error| self.failed(name)(error.into()))
    }

    fn any(&self, name: &'static str) -> Result<Map, Error> {
        Map::from_map_data(self.data(name)?).map_err(self.failed(name))
    }

    fn data(&self, name: &'static str) -> Result<MapData, Error> {
        MapData::from_pin(self.0.map(name)).map_err(|error| match error {
            MapError::SyscallError(ref call) if call.io_error.kind() == io::ErrorKind::NotFound => {
                Error::NotStarted(self.0.directory().into())
            }
            error => self.failed(name)(error),
        })
    }

    fn failed(&self, name: &'static str) -> impl Fn(MapError) -> Error {
        move |error| Error::Map { name, error }
    }
}
