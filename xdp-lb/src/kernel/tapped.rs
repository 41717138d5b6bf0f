//! The program of a capture in the place of the load balancer's own: the same path on the same maps, and
//! user space sees what comes and what becomes of it.
//!
//! It is put on every interface by one step of its link, as a new start of the daemon is, and taken off so:
//! no packet is lost, and no flow. One that was killed leaves it there: packets go on by it, and the next
//! capture, or the next start of the daemon, puts the other one back.

use std::collections::HashMap;
use std::fs;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError, MapInfo, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use tracing::error;
use xdp_lb_ebpf::capture::Wanted;
use zerocopy::transmute;

use super::{Error, Pins, links, maps, pins, program};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture.bpf.o"));

/// A capture's program on the interfaces, until this is dropped.
pub struct Tapped {
    /// Of each frame a [`Head`](xdp_lb_ebpf::capture::Head), and its bytes before and after.
    pub seen: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    object: Ebpf,
    pins: Pins,
    /// Name of its pinned stages.
    stages: String,
    /// Tells frames as long as somebody holds it.
    _tap: ProgramArray<MapData>,
}

impl Tapped {
    /// Puts it on every interface that the load balancer's program is on.
    pub fn start(pins: &Pins, wanted: &Wanted) -> Result<Self, Error> {
        if OBJECT.is_empty() {
            return Err(Error::NoObject);
        }
        if !pins::mounted() {
            return Err(Error::NoBpfFs);
        }
        let not_started = || Error::NotStarted(pins.directory().into());
        let meta = maps::meta(pins)?.ok_or_else(not_started)?;
        let mut object = program::object(OBJECT, pins, &pinned(pins)?, &meta, None)?;
        let wanted: [u8; size_of::<Wanted>()] = transmute!(*wanted);
        let mut settings: Array<_, [u8; size_of::<Wanted>()]> = own(&mut object, "WANTED")?;
        settings.set(0, wanted, 0).map_err(failed("WANTED"))?;
        let (seen, lost) = (own(&mut object, "SEEN")?, own(&mut object, "LOST")?);
        let mut tap: ProgramArray<_> = own(&mut object, "TAP")?;
        let program = program::load_one(&mut object, "xdp_lb_tap")?;
        tap.set(0, program.fd()?, 0).map_err(failed("TAP"))?;
        let stages = program::load_stages(&mut object, pins, Pins::capture)?;
        // From here on what was done is undone when it is dropped.
        let mut tapped = Self { seen, lost, object, pins: pins.clone(), stages, _tap: tap };
        let program = program::first(&mut tapped.object)?;
        put(program, pins)?;
        let retained = pins.retain_capture(&tapped.stages);
        retained.map_err(|error| Error::File { path: pins.directory().into(), error })?;
        Ok(tapped)
    }

    /// Frames that found no room, since user space was too slow.
    pub fn lost(&self) -> Result<u64, Error> {
        let counts = self.lost.get(&0, 0).map_err(failed("LOST"))?;
        Ok(counts.iter().sum())
    }

    /// The program that is pinned for the load balancer: that of the daemon that started last.
    fn put_back(&self) -> Result<(), Error> {
        let mut program = Xdp::from_pin(self.pins.program(), XdpAttachType::Interface)?;
        put(&mut program, &self.pins)
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            // Its stages stay: frames meet them.
            error!(
                "the program of the capture is still there, until the daemon starts again: {error}"
            );
            return;
        }
        let path = self.pins.map(&self.stages);
        if let Err(error) = fs::remove_file(&path) {
            error!("{}: {error}", path.display());
        }
    }
}

/// All interfaces or, on an error, some.
fn put(program: &mut Xdp, pins: &Pins) -> Result<(), Error> {
    let interfaces = pins.interfaces();
    let failed = |error| Error::File { path: pins.directory().into(), error };
    interfaces.map_err(failed)?.iter().try_for_each(|name| links::replace(program, pins, name))
}

/// Entries of the maps of the object that are pinned.
fn pinned(pins: &Pins) -> Result<HashMap<String, u32>, Error> {
    let object = aya_obj::Object::parse(OBJECT)?;
    let names = object.maps.into_keys().filter(|name| pins.map(name).exists());
    let entries = names.map(|name| match MapInfo::from_pin(pins.map(&name)) {
        Ok(info) => Ok((name, info.max_entries())),
        Err(error) => Err(Error::Map { name: "of the load balancer", error }),
    });
    entries.collect()
}

fn own<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, Error> {
    let map = object.take_map(name).ok_or(MapError::InvalidName { name: name.to_owned() });
    map.and_then(T::try_from).map_err(failed(name))
}

fn failed(name: &'static str) -> impl Fn(MapError) -> Error {
    move |error| Error::Map { name, error }
}
