//! The XDP program for as long as a capture runs: the same path, and a tap where frames come in and where
//! their verdict is.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is a BPF program: build it with `cargo xtask build-ebpf`");
}

/// Keeps a frame as it came.
#[cfg(target_arch = "bpf")]
macro_rules! tap_before {
    ($ctx:expr) => {
        $crate::tap::before($ctx)
    };
}
/// Tells of a frame: the action, the reason if it is not sent on, and by which interface it is. Comes to the
/// action.
#[cfg(target_arch = "bpf")]
macro_rules! tap_after {
    ($ctx:expr, $action:expr, $reason:expr, $egress:expr) => {
        $crate::tap::after($ctx, $action, $reason, $egress)
    };
}

#[cfg(target_arch = "bpf")]
#[path = "../log.rs"]
mod log;
#[cfg(target_arch = "bpf")]
#[path = "../maps.rs"]
mod maps;
#[cfg(target_arch = "bpf")]
#[path = "../sockets.rs"]
mod sockets;
#[cfg(target_arch = "bpf")]
mod tap;
#[cfg(target_arch = "bpf")]
#[path = "../xdp.rs"]
mod xdp;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: what can panic does not load.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
