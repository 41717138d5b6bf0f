//! The bytes of one frame, and the only way to them.
#![allow(unsafe_code)]

use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A frame from its Ethernet header to its end. Consumed when the frame is resized, so that a stale
/// pointer does not compile.
pub struct Packet<'a> {
    start: usize,
    end: usize,
    frame: PhantomData<&'a mut [u8]>,
}

impl<'a> Packet<'a> {
    #[cfg(not(target_arch = "bpf"))]
    pub fn new(frame: &'a mut [u8]) -> Self {
        let start = frame.as_mut_ptr().expose_provenance();
        Self { start, end: start + frame.len(), frame: PhantomData }
    }

    /// # Safety
    ///
    /// `start..end` are the `data` and `data_end` of a context whose frame is not resized and not
    /// reached in any other way while this lives.
    pub unsafe fn from_bounds(start: usize, end: usize) -> Self {
        Self { start, end, frame: PhantomData }
    }

    /// Bytes in the frame.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a frame without a byte does not reach us")]
    pub fn len(&self) -> u32 {
        (self.end - self.start) as u32
    }

    /// The `T` that lies `offset` bytes in; none where the frame ends before it does.
    ///
    /// Addresses are compared, not lengths: the verifier learns `start + n <= end` from it and from
    /// nothing else.
    #[inline(always)]
    pub fn at<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &self,
        offset: usize,
    ) -> Option<&T> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bytes at..at + size_of::<T>() are inside the frame, which `self` borrows; `T`
        // takes any bytes (FromBytes) at any address (Unaligned).
        Some(unsafe { &*core::ptr::with_exposed_provenance::<T>(at) })
    }

    /// The same, to be written.
    #[inline(always)]
    pub fn at_mut<T: FromBytes + IntoBytes + KnownLayout + Unaligned>(
        &mut self,
        offset: usize,
    ) -> Option<&mut T> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: as in `at`; `&mut self` is the only way to these bytes.
        Some(unsafe { &mut *core::ptr::with_exposed_provenance_mut::<T>(at) })
    }
}
