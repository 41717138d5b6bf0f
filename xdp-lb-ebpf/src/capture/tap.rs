//! Frames as they come, and as they leave with their verdict, for user space.
//!
//! What is told of a frame is told by a program of its own, reached by a tail call: the stages have no stack
//! to spare (a call from `xdp_lb_open6` is refused).

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_xdp_load_bytes};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use xdp_lb_ebpf::Reason;
use xdp_lb_ebpf::capture::{Head, NO_REASON, SNAP_MAX, Wanted};

const FRAME: usize = SNAP_MAX as usize + 1;

#[btf_map]
static WANTED: Array<Wanted, 1> = Array::new();
#[btf_map]
static SEEN: RingBuf<Head, { 1 << 22 }> = RingBuf::new();
/// Frames that found no room in `SEEN`.
#[btf_map]
static LOST: PerCpuArray<u64, 1> = PerCpuArray::new();
/// The frame at hand, of this CPU.
#[btf_map]
static AT_HAND: PerCpuArray<AtHand, 1> = PerCpuArray::new();

/// `xdp_lb_tap`, while somebody listens: the kernel empties the array when that one ends, however it ends.
#[btf_map]
static TAP: ProgramArray<1> = ProgramArray::new();

#[repr(C)]
struct AtHand {
    head: Head,
    /// Before and after, one behind the other.
    frames: [u8; 2 * FRAME],
}

#[inline(always)]
pub fn before(ctx: &XdpContext) {
    captured_before(ctx.ctx);
}

/// Tells of the frame, and returns the action.
#[inline(always)]
pub fn after(ctx: &XdpContext, action: u32, reason: Option<Reason>, egress: u32) -> u32 {
    if let Some(at_hand) = AT_HAND.get_ptr_mut(0) {
        // SAFETY: this CPU's own copy; XDP programs of one CPU do not interrupt each other.
        let head = unsafe { &mut (*at_hand).head };
        head.action = action;
        head.egress = egress;
        head.reason = match reason {
            Some(reason) => reason as u32,
            None => NO_REASON,
        };
        // SAFETY: nothing of this program is used after the call, which returns only if it failed.
        unsafe { TAP.tail_call(ctx, 0) };
    }
    action
}

/// The last program that a frame meets, wherever it ended.
#[xdp]
pub fn xdp_lb_tap(ctx: XdpContext) -> u32 {
    let Some(at_hand) = AT_HAND.get_ptr_mut(0) else {
        return XDP_DROP;
    };
    // SAFETY: as in `after`.
    let at_hand = unsafe { &mut *at_hand };
    let action = at_hand.head.action;
    // Of one that has no room user space is told by `LOST`.
    let _ = tell(ctx.ctx, at_hand);
    action
}

/// A global function, which the verifier walks once. It takes none without a result.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn captured_before(ctx: *mut xdp_md) -> u32 {
    keep(ctx).map_or(0, |()| 1)
}

#[inline(always)]
fn keep(ctx: *mut xdp_md) -> Option<()> {
    let wanted = WANTED.get(0)?;
    // SAFETY: as in `after`.
    let at_hand = unsafe { &mut *AT_HAND.get_ptr_mut(0)? };
    at_hand.head.before = 0;
    let (length, kept) = load(ctx, at_hand.frames.as_mut_ptr(), wanted.snap)?;
    at_hand.head = Head {
        // SAFETY: helpers without arguments, and the context is the kernel's own.
        at_ns: unsafe { bpf_ktime_get_ns() },
        // SAFETY: as above.
        cpu: unsafe { bpf_get_smp_processor_id() },
        // SAFETY: as above.
        ingress: unsafe { (*ctx).ingress_ifindex },
        before_len: length,
        before: kept,
        ..Head::default()
    };
    Some(())
}

#[inline(always)]
fn tell(ctx: *mut xdp_md, at_hand: &mut AtHand) -> Option<()> {
    let wanted = WANTED.get(0)?;
    let before = at_hand.head.before & SNAP_MAX;
    // SAFETY: `before` is less than half of it.
    let behind = unsafe { at_hand.frames.as_mut_ptr().add(before as usize) };
    let (length, after) = load(ctx, behind, wanted.snap)?;
    let wanted = wanted.everything()
        || wants(wanted, at_hand.frames.as_ptr(), before)
        || wants(wanted, behind, after);
    if before == 0 || !wanted {
        return None;
    }
    at_hand.head.after_len = length;
    at_hand.head.after = after;
    let bytes = size_of::<Head>() + before as usize + after as usize;
    // SAFETY: head and frames lie one behind the other, with room for two frames.
    let seen = unsafe { core::slice::from_raw_parts((&raw const at_hand.head).cast(), bytes) };
    if SEEN.output_untyped::<[u8]>(seen, 0).is_err() {
        // SAFETY: this CPU's own copy.
        unsafe { *LOST.get_ptr_mut(0)? += 1 };
    }
    Some(())
}

/// Copies a frame, `snap` bytes of it at most: how long it is, and how much was copied.
#[inline(always)]
fn load(ctx: *mut xdp_md, to: *mut u8, snap: u32) -> Option<(u32, u32)> {
    // SAFETY: the context is the kernel's own.
    let (start, end) = unsafe { ((*ctx).data, (*ctx).data_end) };
    let length = end.wrapping_sub(start);
    let kept = (if length < snap { length } else { snap }) & SNAP_MAX;
    if kept == 0 {
        return None;
    }
    // SAFETY: `to` has room for `SNAP_MAX` bytes.
    let loaded = unsafe { bpf_xdp_load_bytes(ctx, 0, to.cast(), kept) };
    (loaded == 0).then_some((length, kept))
}

/// Where the tuple is in a frame: IP without options or extension headers.
#[inline(always)]
fn wants(wanted: &Wanted, frame: *const u8, length: u32) -> bool {
    // SAFETY, for all that is read: the longest tuple ends 58 bytes into a frame, for which there is
    // room even where it is not as long; what is read then is of another, and does not count.
    let at = |offset: usize| unsafe { frame.add(offset) };
    // SAFETY: as above.
    let kind = unsafe { at(12).cast::<u16>().read_unaligned() }.to_be();
    let (src, dst, proto, ports) = match kind {
        0x0800 if length >= 38 => (mapped(at(26)), mapped(at(30)), at(23), at(34)),
        0x86dd if length >= 58 => (wide(at(22)), wide(at(38)), at(20), at(54)),
        _ => return false,
    };
    let client = wanted.client;
    if client != [0; 2] && client != src && client != dst {
        return false;
    }
    if wanted.vips_len == 0 {
        return true;
    }
    // SAFETY: as above.
    let (proto, [sport, dport]) = unsafe { (*proto, ports.cast::<[u16; 2]>().read_unaligned()) };
    if proto != wanted.proto {
        return false;
    }
    let port = u16::from_ne_bytes(wanted.port);
    for vip in wanted.vips {
        if vip == src && port == sport || vip == dst && port == dport {
            return true;
        }
    }
    false
}

#[inline(always)]
fn mapped(at: *const u8) -> [u64; 2] {
    // SAFETY: as in `wants`.
    let v4 = unsafe { at.cast::<u32>().read_unaligned() };
    [0, u64::from(v4) << 32 | 0xffff_0000]
}

#[inline(always)]
fn wide(at: *const u8) -> [u64; 2] {
    // SAFETY: as in `wants`.
    unsafe { at.cast::<[u64; 2]>().read_unaligned() }
}
