//! What the driver of the bench and user space share.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on one buffer that it never restores: from the second time
//! on, a program that rewrites would see its own output. So the driver is what is repeated. It writes
//! the next frame and tail-calls the program to be measured; what it takes itself is measured with an
//! empty program in that place, and subtracted.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of every frame: those of IPv6 and TCP headers, in whole words.
pub const FRAME: usize = 80;
/// Frames between two looks at the clock; so short that most blocks pass undisturbed.
pub const BLOCK: u32 = 1 << 13;
pub const STAMPS: usize = 64;
/// Most entries of `LISTED`.
pub const LISTED_MAX: u32 = 1 << 20;

/// First client port of frames that are not listed, and how many follow, as a power of two; then
/// comes the next address.
pub const PORT_LOW: u32 = 1024;
pub const PORT_BITS: u32 = 15;

/// What to write, and how far it got; the one value of `WORK`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct Work {
    /// The frame without what differs: the last four bytes of its source, and its ports.
    pub frame: [u64; FRAME / 8],
    /// Ones' complement sums of the frame so far: of its IPv4 header; of transport and pseudo header.
    pub ip_sum: u32,
    pub sum: u32,
    /// Host order.
    pub first_source: u32,
    /// Destination port, in network order.
    pub port: u32,
    /// Frame number n is of flow `n * step & mask`.
    pub step: u32,
    pub mask: u32,
    /// 1 where flows are those of `LISTED`, and not numbered on from `first_source`.
    pub listed: u32,
    /// Frames written.
    pub written: u32,
    /// Nanoseconds at the beginning of a block.
    pub stamps: [u64; STAMPS],
}

/// What differs from flow to flow, in network order.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Flow {
    /// The last four bytes of the source.
    pub source: [u8; 4],
    pub sport: [u8; 2],
    pub dport: [u8; 2],
}
