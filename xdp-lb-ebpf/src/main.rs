//! The XDP program: the maps, and the shell that takes a frame from the hook through the path.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is a BPF program: build it with `cargo xtask build-ebpf`");
}

// Where a capture sees frames (`capture/main.rs`): nowhere in this program. Macros, so that what is compiled is
// what it would be without.
#[cfg(target_arch = "bpf")]
macro_rules! tap_before {
    ($ctx:expr) => {};
}
#[cfg(target_arch = "bpf")]
macro_rules! tap_after {
    ($ctx:expr, $action:expr, $reason:expr, $egress:expr) => {
        $action
    };
}

#[cfg(target_arch = "bpf")]
mod log;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod sockets;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: a path that can panic calls what the verifier does not know, and does not load.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
