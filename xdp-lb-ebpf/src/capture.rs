//! What the program of a capture and user space share.
//!
//! A capture puts another program in the place of the one that runs, on the same maps: the same path with
//! a tap (`capture/tap.rs`). So the program itself has none, and costs the same as without captures.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes that are kept of a frame at most: more than fits in the one page that the program runs on. The
/// low bits of a length, so that the verifier sees where it ends.
pub const SNAP_MAX: u32 = 0xfff;
/// Addresses of a listener that are told apart.
pub const VIPS_MAX: usize = 8;

/// Which frames are wanted; the one value of `WANTED`. Wanted are those of which all that is set holds,
/// before or after.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Wanted {
    /// From it or to it, wide, as two words; nothing but zeros for any.
    pub client: [u64; 2],
    /// A listener's, in the same way; zeros where there are fewer.
    pub vips: [[u64; 2]; VIPS_MAX],
    /// 0 for any listener.
    pub vips_len: u32,
    pub port: [u8; 2],
    /// IANA protocol number.
    pub proto: u8,
    pub zero: u8,
    /// Bytes to keep of a frame, at most [`SNAP_MAX`].
    pub snap: u32,
    pub zeros: u32,
}

impl Wanted {
    #[inline(always)]
    pub fn everything(&self) -> bool {
        self.client == [0; 2] && self.vips_len == 0
    }
}

/// A frame and what became of it; in front of its bytes as it came, and those as it left.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Head {
    /// Nanoseconds of the monotonic clock, when it came.
    pub at_ns: u64,
    /// The interface it came in by, and that it leaves by, if it does.
    pub ingress: u32,
    pub egress: u32,
    /// `XDP_PASS`...
    pub action: u32,
    /// Index of [`Reason::ALL`](crate::Reason::ALL), or [`NO_REASON`].
    pub reason: u32,
    pub cpu: u32,
    /// Bytes that it had, and that were kept of them.
    pub before_len: u32,
    pub before: u32,
    pub after_len: u32,
    pub after: u32,
    pub zero: u32,
}

/// It was sent on.
pub const NO_REASON: u32 = u32::MAX;
