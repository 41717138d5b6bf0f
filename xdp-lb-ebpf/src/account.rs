//! What flows carry, for the log of those that are over: words that user space reads through `mmap`.

use crate::cell::Word64;

/// The words of an [`Account`](crate::abi::Account).
#[repr(C)]
#[derive(Debug, Default)]
pub struct Account {
    pub payload: Word64,
    pub at_ns: Word64,
}

impl Account {
    /// Begins anew.
    #[inline(always)]
    pub fn open(&self, now_ns: u64) {
        self.payload.store(0);
        self.at_ns.store(now_ns);
    }

    /// Adds what a frame carried. Not as one step: the frames of one direction come by one queue, so one
    /// CPU at a time has them. Where a client's way changes from one queue to another, two frames at the
    /// same nanosecond may count as one; an atomic addition costs every frame for that.
    #[inline(always)]
    pub fn carry(&self, payload: u32) {
        self.payload.store(self.payload.load().wrapping_add(payload.into()));
    }
}

/// The words of [`FlowLogs`](crate::abi::FlowLogs).
#[repr(C)]
#[derive(Debug, Default)]
pub struct FlowLogs {
    pub logged: Word64,
    pub lost: Word64,
}

const _: () = assert!(size_of::<Account>() == size_of::<crate::abi::Account>());
const _: () = assert!(size_of::<FlowLogs>() == size_of::<crate::abi::FlowLogs>());
