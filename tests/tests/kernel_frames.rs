//! The tables of frames, in the kernel.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod frames;
#[path = "frames/kernel.rs"]
mod kernel;
#[path = "frames/mapped.rs"]
mod mapped;
#[path = "frames/sockets.rs"]
mod sockets;

use frames::world::FLOWS;
use kernel::Kernel;

#[test]
fn kernel_rows() {
    frames::run(frames::rows::all(), &mut Kernel::new(FLOWS));
}

#[test]
fn kernel_rows_while_frames_are_told_of() {
    frames::run(frames::rows::all(), &mut Kernel::telling(FLOWS, u8::MAX));
}

/// The verifier has taken it out.
#[test]
fn kernel_runs_nothing_of_the_log_where_nothing_is_told() {
    let [silent, telling] = [0, u8::MAX].map(|level| Kernel::telling(FLOWS, level));
    // The others only branch there, to another program.
    for name in ["xdp_lb_open4", "xdp_lb_open6", "xdp_lb_tell"] {
        let bytes = |kernel: &Kernel| {
            let info = kernel.object.program(name).unwrap().info().unwrap();
            info.size_translated().expect("root is told")
        };
        let (silent, telling) = (bytes(&silent), bytes(&telling));
        assert!(silent < telling, "{name}: {silent}, {telling}");
    }
}

/// What `bpftool map dump` needs to show fields. Device maps and program arrays have none by design.
#[test]
fn kernel_maps_have_types() {
    let kernel = Kernel::new(FLOWS);
    let untyped = ["PORTS", "STAGES", "AYA_LOGS", ".rodata", ".data", ".bss"];
    let mut seen = 0;
    for (name, map) in kernel.object.maps() {
        if untyped.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let (key, value) = kernel::type_ids(map);
        assert!(
            key != 0 && value != 0,
            "{name}: BTF ids {key} of the key and {value} of the value"
        );
        seen += 1;
    }
    assert!(seen >= 15, "{seen} maps");
}

/// How much patience of the verifier (a million instructions) is left.
#[test]
fn kernel_prints_what_the_verifier_walked() {
    let kernel = Kernel::new(FLOWS);
    for name in kernel::PROGRAMS {
        let info = kernel.object.program(name).unwrap().info().unwrap();
        println!(
            "{name:16} {:>7} instructions walked",
            info.verified_instruction_count().unwrap_or(0)
        );
    }
}
