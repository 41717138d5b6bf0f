//! The driver program (`xdp-lb-ebpf/src/bench/driver.rs`), loaded once for each thing to measure.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use xdp_lb_ebpf::bench::{BLOCK, FRAME, Flow, STAMPS, Work};
use zerocopy::transmute;

use crate::frames::{Frame, Kind};

/// Of `cargo xtask build-ebpf`.
const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/bench-driver.bpf.o");
/// Frames of a run may not lap the stamps.
pub const FRAMES_MAX: u32 = BLOCK * (STAMPS as u32 - 2);
pub const FRAMES_MIN: u32 = BLOCK * 3;

type Words = [u8; size_of::<Work>()];

/// One that writes frames of a kind, and what it calls for each.
pub struct Driver {
    object: Ebpf,
    program: &'static str,
}

impl Driver {
    /// `kind` is none where all frames are the same; `target` none for an empty program.
    pub fn load(
        kind: Option<Kind>,
        work: &Work,
        listed: &[Flow],
        target: Option<&ProgramFd>,
    ) -> Result<Self> {
        let program = match kind {
            Some(Kind::Tcp4) => "drive_tcp4",
            Some(Kind::Tcp6) => "drive_tcp6",
            Some(Kind::Udp4) => "drive_udp4",
            Some(Kind::Udp6) => "drive_udp6",
            None => "drive_same",
        };
        ensure!(Path::new(OBJECT).exists(), "{OBJECT} is missing: run `cargo xtask build-ebpf`");
        let object = EbpfLoader::new()
            .map_max_entries("LISTED", listed.len().max(1) as u32)
            .load_file(OBJECT)?;
        let mut driver = Self { object, program };
        for name in [program, "empty"] {
            driver.xdp(name)?.load().with_context(|| format!("loading {name}"))?;
        }
        let empty = driver.xdp("empty")?.fd()?.try_clone()?;
        let targets = driver.object.map_mut("TARGET").context("no map TARGET")?;
        ProgramArray::try_from(targets)?.set(0, target.unwrap_or(&empty), 0)?;
        let places = driver.object.map_mut("LISTED").context("no map LISTED")?;
        let mut places = Array::<_, [u8; size_of::<Flow>()]>::try_from(places)?;
        for (index, flow) in (0..).zip(listed) {
            let flow: [u8; size_of::<Flow>()] = transmute!(*flow);
            places.set(index, flow, 0)?;
        }
        let listed = u32::from(!listed.is_empty());
        driver.set_work(&Work { listed, ..*work })?;
        Ok(driver)
    }

    /// The verdict on one frame.
    pub fn verdict(&mut self) -> Result<u32> {
        self.run(1)
    }

    /// Nanoseconds per frame: the median of the blocks of a run.
    pub fn sample(&mut self, frames: u32) -> Result<f64> {
        let first = self.work()?.written.div_ceil(BLOCK);
        self.run(frames)?;
        let work = self.work()?;
        let last = (work.written - 1) / BLOCK;
        let stamp = |block: u32| work.stamps[block as usize % STAMPS];
        let took = |block| (stamp(block + 1) - stamp(block)) as f64 / f64::from(BLOCK);
        let blocks: Vec<f64> = (first..last).map(took).collect();
        ensure!(!blocks.is_empty(), "{frames} frames have no whole block");
        Ok(crate::report::quantile(&blocks, 0.5))
    }

    fn run(&mut self, repeat: u32) -> Result<u32> {
        let name = self.program;
        run(self.xdp(name)?, &[0; FRAME], repeat, None)
    }

    fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program =
            self.object.program_mut(name).with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    fn work(&self) -> Result<Work> {
        let map = self.object.map("WORK").context("no map WORK")?;
        let words: Words = Array::try_from(map)?.get(&0, 0)?;
        Ok(transmute!(words))
    }

    fn set_work(&mut self, work: &Work) -> Result<()> {
        let map = self.object.map_mut("WORK").context("no map WORK")?;
        let words: Words = transmute!(*work);
        Ok(Array::<_, Words>::try_from(map)?.set(0, words, 0)?)
    }
}

/// The verdict of a program on a frame, and the frame afterwards.
pub fn pass(program: &Xdp, frame: &Frame) -> Result<(u32, Frame)> {
    let mut out = [0; FRAME];
    let verdict = run(program, frame, 1, Some(&mut out))?;
    Ok((verdict, out))
}

fn run(program: &Xdp, frame: &Frame, repeat: u32, out: Option<&mut [u8]>) -> Result<u32> {
    let options =
        TestRunOptions { data_in: Some(frame), data_out: out, repeat, ..TestRunOptions::new() };
    Ok(program.test_run(options)?.return_value)
}
