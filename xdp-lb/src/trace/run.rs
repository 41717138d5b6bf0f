//! The frame through the kernel's own program, on the live maps (`BPF_PROG_TEST_RUN`); and what it left
//! there, taken away again.

use std::path::Path;

use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use xdp_lb_ebpf::abi::StickyKey;
use xdp_lb_ebpf::family::{Family, V4, V6};
use xdp_lb_ebpf::flows::{self, State};
use zerocopy::transmute;

use super::look::{Flow, look};
use super::rehearse::Rehearsed;
use crate::kernel::{Maps, Table};

/// Longest frame that comes out: one page, as the kernel runs a program on.
const FRAME_MAX: usize = 4096;

/// What the kernel made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// `XDP_PASS`...
    pub action: u32,
    pub frame: Vec<u8>,
}

/// What a run may have left in the maps.
#[derive(Clone, Debug)]
pub struct Left {
    flow: Flow,
    stuck: Option<StickyKey>,
}

pub struct Runner {
    program: Xdp,
}

impl Runner {
    pub fn open(program: &Path) -> Result<Self, ProgramError> {
        Ok(Self { program: Xdp::from_pin(program, XdpAttachType::Interface)? })
    }

    /// Runs the program once on a frame that comes in by `ingress`, an interface of this thread's network
    /// namespace. The frame goes nowhere, whatever the verdict.
    pub fn run(&self, ingress: u32, frame: &[u8]) -> Result<Ran, ProgramError> {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, ingress, 0, 0].map(u32::to_ne_bytes);
        let mut out = vec![0; FRAME_MAX];
        let ran = self.program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(context.as_flattened()),
            ..TestRunOptions::default()
        })?;
        out.truncate(ran.data_size_out as usize);
        Ok(Ran { action: ran.return_value, frame: out })
    }
}

impl Left {
    /// What a run of `sent` left, if it opened a flow as the rehearsal had it.
    pub fn of(live: &Table<'_>, sent: &[u8], rehearsed: &Rehearsed) -> Option<Self> {
        rehearsed.opened?;
        let flow = look(&mut sent.to_vec()).ok()?.flow(live)?;
        Some(Self { flow, stuck: rehearsed.stuck })
    }

    /// The slots of both directions.
    pub fn places(&self) -> [(u8, u32); 2] {
        [(self.flow.version, self.flow.index), (self.flow.version, self.flow.peer)]
    }

    /// Removes the flow by the packet path's own steps. False where it is gone, or another's, already.
    pub fn remove(&self, live: &Table<'_>) -> bool {
        match self.flow.version {
            V4::VERSION => remove::<V4>(live, &self.flow),
            _ => remove::<V6>(live, &self.flow),
        }
    }

    /// Forgets that the client is held to the member.
    pub fn release(&self, maps: &mut Maps) {
        if let Some(key) = self.stuck {
            // Gone already is as good.
            let _ = maps.sticky.remove(&transmute!(key));
        }
    }
}

fn remove<F: Family>(live: &Table<'_>, flow: &Flow) -> bool {
    let Some(met) = flows::at::<F, _>(live, flow.index) else {
        return false;
    };
    let same = State(flow.state.0).same_flow(met.state);
    // Found before the flow is gone: so it is this flow's other half.
    let other = flows::peer::<F, _>(live, flow.index, flow.peer);
    let removed = same && flows::remove(live, &met);
    if removed && let Some(other) = other {
        flows::remove(live, &other);
    }
    removed
}
