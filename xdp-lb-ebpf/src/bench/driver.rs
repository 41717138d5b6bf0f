//! The driver of the bench: writes a frame, and calls the program to be measured.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is a BPF program: build it with `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
mod driver {
    use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
    use aya_ebpf::btf_maps::{Array, ProgramArray};
    use aya_ebpf::helpers::bpf_ktime_get_ns;
    use aya_ebpf::macros::{btf_map, xdp};
    use aya_ebpf::programs::XdpContext;
    use xdp_lb_ebpf::bench::{BLOCK, FRAME, Flow, LISTED_MAX, PORT_BITS, PORT_LOW, STAMPS, Work};
    use xdp_lb_ebpf::checksum::fold;

    #[btf_map]
    static WORK: Array<Work, 1> = Array::new();
    #[btf_map]
    static LISTED: Array<Flow, { LISTED_MAX as usize }> = Array::new();
    /// The program to be measured.
    #[btf_map]
    static TARGET: ProgramArray<1> = ProgramArray::new();

    /// Where in the frame the parts are that differ.
    struct Shape {
        source: usize,
        /// None in IPv6.
        ip_check: Option<usize>,
        ports: usize,
        check: usize,
        /// UDP has no checksum of zero.
        udp: bool,
    }

    const V4: Shape = Shape { source: 26, ip_check: Some(24), ports: 34, check: 50, udp: false };
    const V6: Shape = Shape { source: 34, ip_check: None, ports: 54, check: 70, udp: false };

    #[xdp]
    pub fn drive_tcp4(ctx: XdpContext) -> u32 {
        drive(&ctx, Some(V4))
    }

    #[xdp]
    pub fn drive_tcp6(ctx: XdpContext) -> u32 {
        drive(&ctx, Some(V6))
    }

    #[xdp]
    pub fn drive_udp4(ctx: XdpContext) -> u32 {
        drive(&ctx, Some(Shape { check: 40, udp: true, ..V4 }))
    }

    #[xdp]
    pub fn drive_udp6(ctx: XdpContext) -> u32 {
        drive(&ctx, Some(Shape { check: 60, udp: true, ..V6 }))
    }

    /// Always the same frame.
    #[xdp]
    pub fn drive_same(ctx: XdpContext) -> u32 {
        drive(&ctx, None)
    }

    #[xdp]
    pub fn empty(_: XdpContext) -> u32 {
        XDP_TX
    }

    #[inline(always)]
    fn drive(ctx: &XdpContext, shape: Option<Shape>) -> u32 {
        if write(ctx, shape).is_some() {
            // SAFETY: nothing of this program is used after the call, which returns only if it failed.
            unsafe { TARGET.tail_call(ctx, 0) };
        }
        XDP_ABORTED
    }

    #[inline(always)]
    fn write(ctx: &XdpContext, shape: Option<Shape>) -> Option<()> {
        let start = ctx.data();
        if start + FRAME > ctx.data_end() {
            return None;
        }
        // SAFETY: the one value lives as long as the program, and user space waits meanwhile.
        let work = unsafe { &mut *WORK.get_ptr_mut(0)? };
        let number = work.written;
        work.written = number.wrapping_add(1);
        if number % BLOCK == 0 {
            let stamp = work.stamps.get_mut((number / BLOCK) as usize % STAMPS)?;
            // SAFETY: a helper without arguments.
            *stamp = unsafe { bpf_ktime_get_ns() };
        }
        for (index, word) in work.frame.iter().enumerate() {
            // SAFETY: within the bounds compared above; a frame of test_run starts 256 bytes into a
            // page. Volatile, for LLVM would make it a call of `memcpy`.
            unsafe { (start as *mut u64).add(index).write_volatile(*word) };
        }
        let Some(shape) = shape else {
            return Some(());
        };
        let flow = number.wrapping_mul(work.step) & work.mask;
        let flow = if work.listed != 0 { LISTED.get(flow).copied()? } else { numbered(work, flow) };
        let source = u32::from_ne_bytes(flow.source);
        let [sport, dport] = [flow.sport, flow.dport].map(u16::from_ne_bytes);
        let added = (source & 0xffff) + (source >> 16);
        let mut check = !fold(work.sum + added + u32::from(sport) + u32::from(dport));
        if shape.udp && check == 0 {
            check = u16::MAX;
        }
        // SAFETY: each place is within the bounds compared above.
        unsafe {
            ((start + shape.source) as *mut u32).write_unaligned(source);
            ((start + shape.ports) as *mut u16).write_unaligned(sport);
            ((start + shape.ports + 2) as *mut u16).write_unaligned(dport);
            ((start + shape.check) as *mut u16).write_unaligned(check);
            if let Some(at) = shape.ip_check {
                ((start + at) as *mut u16).write_unaligned(!fold(work.ip_sum + added));
            }
        }
        Some(())
    }

    #[inline(always)]
    fn numbered(work: &Work, flow: u32) -> Flow {
        let source = work.first_source.wrapping_add(flow >> PORT_BITS);
        let sport = PORT_LOW + (flow & ((1 << PORT_BITS) - 1));
        Flow {
            source: source.to_be_bytes(),
            sport: (sport as u16).to_be_bytes(),
            dport: (work.port as u16).to_ne_bytes(),
        }
    }
}

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
