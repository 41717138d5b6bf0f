//! The XDP program: the maps, and the shell that takes a frame from the hook through the path.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is a BPF program: build it with `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
mod log;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod sockets;
#[cfg(target_arch = "bpf")]
mod xdp;

/// Where a capture sees frames: nowhere in this program. See `capture/main.rs`.
#[cfg(target_arch = "bpf")]
mod tap {
    use aya_ebpf::programs::XdpContext;
    use xdp_lb_ebpf::Reason;

    #[inline(always)]
    pub fn before(_: &XdpContext) {}

    /// Returns the action.
    #[inline(always)]
    pub fn after(_: &XdpContext, action: u32, _: Option<Reason>, _: u32) -> u32 {
        action
    }
}

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
