//! The object's programs, loaded onto the pinned maps.
//!
//! The path is cut into stages that call each other through a program array. Each load has an array
//! of its own, pinned as `STAGES_<id of its first program>`: the kernel empties an array that nobody
//! holds, and the programs before ours run on until every interface is taken over.

use std::collections::HashMap;
use std::fs;

use aya::maps::ProgramArray;
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use xdp_lb_ebpf::abi::Meta;
use xdp_lb_ebpf::path::{STAGES, Stage};

use super::{Error, FrameLog, OBJECT, Pins, frame_log, links};

const NAMES: [(Stage, &str); STAGES as usize] = [
    (Stage::Known, "xdp_lb"),
    (Stage::Select4, "xdp_lb_select4"),
    (Stage::Select6, "xdp_lb_select6"),
    (Stage::Open4, "xdp_lb_open4"),
    (Stage::Open6, "xdp_lb_open6"),
    (Stage::Icmp4, "xdp_lb_icmp4"),
    (Stage::Icmp6, "xdp_lb_icmp6"),
    (Stage::Follow, "xdp_lb_follow"),
    (Stage::Answer, "xdp_lb_answer"),
    (Stage::Tell, "xdp_lb_tell"),
];
const FIRST: &str = NAMES[Stage::Known as usize].1;

const VERDICT_LINES: usize = 12;

/// A program that is loaded and pinned, and on no interface yet.
pub struct Loaded {
    pub program: Xdp,
    /// Name of its pinned stages.
    pub stages: String,
}

/// Loads the object onto the pinned maps, and pins those that are missing, the stages and the first
/// program, which takes the place of the one before at its path.
pub fn load(
    pins: &Pins,
    entries: &HashMap<String, u32>,
    meta: &Meta,
    frame_log: Option<FrameLog>,
) -> Result<Loaded, Error> {
    let mut object = object(OBJECT, pins, entries, meta, frame_log)?;
    let stages = load_stages(&mut object, pins, Pins::stages)?;
    if frame_log.is_some() {
        frame_log::follow(&mut object).map_err(Error::FrameLog)?;
    }

    // Pinned beside the old one, then renamed over it: the path always names a program.
    let (next, path) = (pins.map("program_next"), pins.program());
    if next.exists() {
        fs::remove_file(&next).map_err(|error| Error::File { path: next.clone(), error })?;
    }
    let first = first(&mut object)?;
    first.pin(&next).map_err(|error| Error::Pin { path: next.clone(), error })?;
    fs::rename(&next, &path).map_err(|error| Error::File { path: path.clone(), error })?;
    Ok(Loaded { program: Xdp::from_pin(&path, XdpAttachType::Interface)?, stages })
}

/// Loads all stages of an object, and pins the array through which they reach each other, under the name
/// that is `called` for the id of the first: that name.
pub fn load_stages(
    object: &mut Ebpf,
    pins: &Pins,
    called: impl Fn(u32) -> String,
) -> Result<String, Error> {
    for (_, name) in NAMES {
        load_one(object, name)?;
    }
    let id = first(object)?.info()?.id();
    pin_stages(object, pins, called(id))
}

pub fn load_one<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let program = xdp(object, name)?;
    program.load().map_err(|error| Error::Refused { program: name, error })?;
    Ok(program)
}

/// The program that every frame meets first.
pub fn first(object: &mut Ebpf) -> Result<&mut Xdp, ProgramError> {
    xdp(object, FIRST)
}

/// An object on the pinned maps; those of `entries` that are missing are made and pinned.
pub fn object(
    bytes: &[u8],
    pins: &Pins,
    entries: &HashMap<String, u32>,
    meta: &Meta,
    frame_log: Option<FrameLog>,
) -> Result<Ebpf, Error> {
    let (mask4, mask6) = (meta.flows4 - 1, meta.flows6 - 1);
    let (low, span) = (u32::from(meta.snat_low), u32::from(meta.snat_span));
    let mut loader = EbpfLoader::new();
    for (name, &entries) in entries {
        loader.map_max_entries(name, entries).map_pin_path(name, pins.map(name));
    }
    if frame_log.is_none() {
        loader.map_max_entries(frame_log::MAP, frame_log::SILENT_BYTES);
    }
    let level = FrameLog::level(frame_log);
    let object = loader
        .override_global(frame_log::LEVEL, &level, true)
        .override_global("FLOWS4_MASK", &mask4, true)
        .override_global("FLOWS6_MASK", &mask6, true)
        .override_global("HASH_SEED0", &meta.seed0, true)
        .override_global("HASH_SEED1", &meta.seed1, true)
        .override_global("SNAT_LOW", &low, true)
        .override_global("SNAT_SPAN", &span, true)
        .load(bytes)?;
    Ok(object)
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, ProgramError> {
    let missing = || ProgramError::InvalidName { name: name.to_owned() };
    object.program_mut(name).ok_or_else(missing)?.try_into()
}

fn pin_stages(object: &mut Ebpf, pins: &Pins, name: String) -> Result<String, Error> {
    let failed = |error| Error::Map { name: "STAGES", error };
    let missing = Error::NotStarted(pins.map("STAGES"));
    let mut stages =
        ProgramArray::try_from(object.take_map("STAGES").ok_or(missing)?).map_err(failed)?;
    for (stage, name) in NAMES {
        let program = xdp(object, name)?.fd()?.try_clone().map_err(ProgramError::from)?;
        stages.set(stage as u32, &program, 0).map_err(failed)?;
    }
    let path = pins.map(&name);
    stages.pin(&path).map_err(|error| Error::Pin { path, error })?;
    Ok(name)
}

/// What the verifier said last; the whole of it may be a hundred megabytes.
pub fn verdict(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return links::chain(error);
    };
    let log = verifier_log.to_string();
    let mut last: Vec<&str> = log.trim_end().lines().rev().take(VERDICT_LINES).collect();
    last.reverse();
    let meant = meaning(&log).map_or_else(String::new, |meant| format!(" ({meant})"));
    format!("{io_error}{meant}; the verifier ends with\n{}", last.join("\n"))
}

/// What older kernels mean, where it does not say so itself.
fn meaning(log: &str) -> Option<&'static str> {
    // Seen on 5.10; atomic instructions other than an addition came with 5.12.
    let has_no_atomics = log.contains("BPF_STX uses reserved fields");
    has_no_atomics.then_some("the kernel is older than 5.12, whose atomic instructions are needed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings() {
        let old = "BPF_STX uses reserved fields\nprocessed 0 insns (limit 1000000)";
        for (log, want) in [(old, true), ("R1 invalid mem access 'scalar'", false)] {
            assert_eq!(
                meaning(log).is_some_and(|it| it.contains("older than 5.12")),
                want,
                "{log}"
            );
        }
    }
}
