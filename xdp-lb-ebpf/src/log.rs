//! What the program tells of frames where it was loaded with a level: at `info` of each that opens a flow,
//! at `debug` of each that is dropped or answered, at `trace` of each that goes on to the kernel.
//!
//! Without a level it costs nothing. The level stands in read-only data, so the verifier knows which way
//! a branch on it goes, and takes the other way out of the program, with the calls in it
//! (`opt_hard_wire_dead_code_branches`, `opt_remove_dead_code`; since Linux 5.2).

use core::hint::black_box;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::log;
// Hidden in the documentation, since its macros ask it themselves: but only after the call.
use aya_log_ebpf::macro_support::{Argument, IpFormatter, Level, level_enabled};
use xdp_lb_ebpf::abi::{SCTP, TCP, UDP};
use xdp_lb_ebpf::family::{Address, V4, V6};
use xdp_lb_ebpf::headers::{Ethernet, KIND_IPV4, KIND_IPV6};
use xdp_lb_ebpf::path::Routed;
use xdp_lb_ebpf::reason::{Fate, NAMES};
use xdp_lb_ebpf::{Packet, Reason, Tables, parse};

use crate::maps::Maps;
use crate::xdp::packet;

/// A family whose addresses can be told.
pub trait Told: Routed<Addr: IpFormatter + Argument> {}
impl Told for V4 {}
impl Told for V6 {}

/// Whether frames that are not forwarded are told of.
#[inline(always)]
pub fn tells() -> bool {
    level_enabled(Level::Debug)
}

/// A frame that is not forwarded. `index` is that of the reason: what has been a [`Reason`] the compiler
/// knows to be within bounds, and the verifier does not.
#[inline(always)]
pub fn over(ctx: &XdpContext, reason: Reason, index: usize) {
    let level = if reason.fate() == Fate::Pass { Level::Trace } else { Level::Debug };
    let name = name(index);
    let packet = packet(ctx);
    match packet.at::<Ethernet>(0).map(|ethernet| ethernet.kind) {
        Some(KIND_IPV4) => tell_segment::<V4>(ctx, level, name, &packet),
        Some(KIND_IPV6) => tell_segment::<V6>(ctx, level, name, &packet),
        _ => tell_frame(ctx, level, name, &packet),
    }
}

/// A frame whose flow is open now, by it or by one like it.
#[inline(always)]
pub fn opened<F: Told>(ctx: &XdpContext) {
    if level_enabled(Level::Info) {
        tell_opened::<F>(ctx.ctx);
    }
}

#[inline(always)]
fn tell_segment<F: Told>(ctx: &XdpContext, level: Level, name: &'static str, packet: &Packet<'_>) {
    let Ok(ip) = F::datagram(packet) else {
        return tell_frame(ctx, level, name, packet);
    };
    let (src, dst) = (ip.src, ip.dst);
    let Ok(segment) = parse::segment(packet, &ip) else {
        let proto = ip.proto;
        log!(ctx, level, "{} protocol {} from {:i} to {:i}", name, proto, src, dst);
        return;
    };
    let (proto, from, to) = words(ip.proto, segment.key.sport, segment.key.dport);
    log!(ctx, level, "{} {} from {:i} port {} to {:i} port {}", name, proto, src, from, dst, to);
}

#[inline(always)]
fn tell_frame(ctx: &XdpContext, level: Level, name: &'static str, packet: &Packet<'_>) {
    // Its MACs would be copied to the stack at any address, which the verifier takes for packets alone.
    let length = packet.len() as u32;
    let kind = packet.at::<Ethernet>(0).map_or(0, |ethernet| u16::from_be_bytes(ethernet.kind));
    log!(ctx, level, "{} type {:x}, {} bytes", name, kind, length);
}

#[inline(never)]
fn tell_opened<F: Told>(ctx: *mut xdp_md) {
    let ctx = context(ctx);
    let packet = packet(&ctx);
    let Ok(ip) = F::datagram(&packet) else { return };
    let Ok(segment) = parse::segment(&packet, &ip) else { return };
    let Some(backend) = Maps.backend(Maps.chosen().backend) else { return };
    let (proto, from, to) = words(ip.proto, segment.key.sport, segment.key.dport);
    let (src, dst) = (ip.src, ip.dst);
    let (member, at) = (F::Addr::narrow(backend.addr), u16::from_be_bytes(backend.port));
    log!(
        &ctx,
        Level::Info,
        "{} from {:i} port {} to {:i} port {}: member {:i} port {}",
        proto,
        src,
        from,
        dst,
        to,
        member,
        at
    );
}

/// LLVM 22 would have the caller load the bounds of the frame and pass them in place of the context
/// (its argument promotion), as 32 bits that are extended here: `w1 = w1`, after which the verifier knows
/// no pointer any more.
#[inline(always)]
fn context(ctx: *mut xdp_md) -> XdpContext {
    XdpContext::new(black_box(ctx))
}

#[inline(always)]
fn words(proto: u8, sport: [u8; 2], dport: [u8; 2]) -> (&'static str, u16, u16) {
    // All of one length: the verifier wants to know how much is copied.
    let word = match proto {
        TCP => "TCP ",
        UDP => "UDP ",
        SCTP => "SCTP",
        _ => "IP  ",
    };
    (word, u16::from_be_bytes(sport), u16::from_be_bytes(dport))
}

/// A reason's, filled up with spaces.
#[inline(always)]
fn name(index: usize) -> &'static str {
    let name = NAMES.get(index).unwrap_or(&NAMES[0]);
    // SAFETY: `NAMES` is made of identifiers, which are ASCII.
    unsafe { core::str::from_utf8_unchecked(name) }
}
