//! The XDP hook: a frame in, the path, a verdict out. One program for each stage of the path.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xdp_lb_ebpf::family::{V4, V6};
use xdp_lb_ebpf::path::{self, Miss, Stage};
use xdp_lb_ebpf::reason::Fate;
use xdp_lb_ebpf::{Packet, Reason, Tables, answer, icmp};

use crate::log::{self, Told};
use crate::maps::{Maps, PORTS, STAGES};
use crate::sockets::OwnSockets;

#[xdp]
pub fn xdp_lb(ctx: XdpContext) -> u32 {
    tap_before!(&ctx);
    end(&ctx, path::known(&mut packet(&ctx), ingress(&ctx), &Maps))
}

#[xdp]
pub fn xdp_lb_select4(ctx: XdpContext) -> u32 {
    end(&ctx, path::choose::<V4, _>(&packet(&ctx), ingress(&ctx), &Maps, &OwnSockets(&ctx)))
}

#[xdp]
pub fn xdp_lb_select6(ctx: XdpContext) -> u32 {
    end(&ctx, path::choose::<V6, _>(&packet(&ctx), ingress(&ctx), &Maps, &OwnSockets(&ctx)))
}

#[xdp]
pub fn xdp_lb_open4(ctx: XdpContext) -> u32 {
    opened::<V4>(&ctx, path::open::<V4, _>(&packet(&ctx), ingress(&ctx), &Maps))
}

#[xdp]
pub fn xdp_lb_open6(ctx: XdpContext) -> u32 {
    opened::<V6>(&ctx, path::open::<V6, _>(&packet(&ctx), ingress(&ctx), &Maps))
}

#[xdp]
pub fn xdp_lb_icmp4(ctx: XdpContext) -> u32 {
    end(&ctx, icmp::error::<V4, _>(&mut packet(&ctx), &Maps).map_err(Miss::Over))
}

#[xdp]
pub fn xdp_lb_icmp6(ctx: XdpContext) -> u32 {
    end(&ctx, icmp::error::<V6, _>(&mut packet(&ctx), &Maps).map_err(Miss::Over))
}

#[xdp]
pub fn xdp_lb_follow(ctx: XdpContext) -> u32 {
    end(&ctx, path::followed(&mut packet(&ctx), ingress(&ctx), &Maps))
}

/// The end of the stage that opens flows.
#[inline(always)]
fn opened<F: Told>(ctx: &XdpContext, end: Result<u32, Miss>) -> u32 {
    if end == Err(Miss::Goes(Stage::Follow)) {
        log::opened::<F>(ctx);
    }
    self::end(ctx, end)
}

/// The reason for the answer is counted already.
#[xdp]
pub fn xdp_lb_answer(ctx: XdpContext) -> u32 {
    tap_after!(
        &ctx,
        reply(&ctx).map_or(XDP_DROP, |()| XDP_TX),
        Some(Reason::NoMember),
        ingress(&ctx)
    )
}

/// Of its own, for the stack that it takes.
#[xdp]
pub fn xdp_lb_tell(ctx: XdpContext) -> u32 {
    let index = Maps.chosen().state as usize;
    let Some(reason) = Reason::ALL.get(index).copied() else { return XDP_DROP };
    log::over(&ctx, reason, index);
    over(&ctx, reason)
}

#[inline(always)]
fn ingress(ctx: &XdpContext) -> u32 {
    ctx.ingress_ifindex() as u32
}

#[inline(always)]
fn end(ctx: &XdpContext, end: Result<u32, Miss>) -> u32 {
    let reason = match end {
        Ok(egress) if egress == ingress(ctx) => return tap_after!(ctx, XDP_TX, None, egress),
        Ok(egress) => match PORTS.redirect(egress, 0) {
            Ok(action) => return tap_after!(ctx, action, None, egress),
            Err(_) => Reason::EgressGone,
        },
        Err(Miss::Goes(stage)) => return go(ctx, stage),
        Err(Miss::Over(reason)) => reason,
    };
    Maps.count_reason(reason);
    if log::tells() {
        Maps.choose(|place| place.state = reason as u32);
        return go(ctx, Stage::Tell);
    }
    over(ctx, reason)
}

#[inline(always)]
fn over(ctx: &XdpContext, reason: Reason) -> u32 {
    match reason.fate() {
        Fate::Pass => tap_after!(ctx, XDP_PASS, Some(reason), 0),
        Fate::Drop => tap_after!(ctx, XDP_DROP, Some(reason), 0),
        Fate::Answer => go(ctx, Stage::Answer),
    }
}

#[inline(always)]
fn go(ctx: &XdpContext, stage: Stage) -> u32 {
    // SAFETY: nothing of this program is used after the call, which returns only if it failed.
    unsafe { STAGES.tail_call(ctx, stage as u32) };
    Maps.count_reason(Reason::StageMissing);
    tap_after!(ctx, XDP_DROP, Some(Reason::StageMissing), 0)
}

#[inline(always)]
pub fn packet(ctx: &XdpContext) -> Packet<'_> {
    // SAFETY: the bounds are the context's own, and each packet is gone before the frame is resized.
    unsafe { Packet::from_bounds(ctx.data(), ctx.data_end()) }
}

/// Makes the frame its own answer; none where it cannot be one.
#[inline(always)]
fn reply(ctx: &XdpContext) -> Option<()> {
    let old = packet(ctx);
    let (shape, length) = (answer::shape(&old)?, old.len());
    let tail = shape.length as i32 - (length + shape.grow) as i32;
    // SAFETY: the context is the kernel's own; pointers into the frame are fetched anew below.
    unsafe {
        if bpf_xdp_adjust_tail(ctx.ctx, tail) != 0 {
            return None;
        }
        if shape.grow != 0 && bpf_xdp_adjust_head(ctx.ctx, -(shape.grow as i32)) != 0 {
            return None;
        }
    }
    answer::write(&mut packet(ctx), shape)
}
