//! Array maps as memory: read and written without a system call, by both sides at once.

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use xdp_lb_ebpf::account::{Account, FlowLogs};
use xdp_lb_ebpf::cell::{Word32, Word64};
use xdp_lb_ebpf::family::{Slot4, Slot6};

/// A value that the packet path may change while it is looked at.
///
/// # Safety
///
/// Any bytes are a value of it, it is changed through its cells only, and its size is a multiple of
/// 8: the distance of values in an array map.
pub unsafe trait Shared {}

/// One word of an `Array<u32>`, which stands 8 bytes from the next.
#[repr(C, align(8))]
#[derive(Debug, Default)]
pub struct Padded32(pub Word32);

/// A [`Backend`](xdp_lb_ebpf::abi::Backend), word by word.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct BackendWords(pub [Word64; 8]);

// SAFETY: atomics only, any bits are a value of them; 64, 128, 16, 16, 8 and 64 bytes.
unsafe impl Shared for Slot4 {}
// SAFETY: as above.
unsafe impl Shared for Slot6 {}
// SAFETY: as above.
unsafe impl Shared for Account {}
// SAFETY: as above.
unsafe impl Shared for FlowLogs {}
// SAFETY: as above; nobody reads the padding.
unsafe impl Shared for Padded32 {}
// SAFETY: as above.
unsafe impl Shared for BackendWords {}

/// An array map that can be mapped.
///
/// What is mapped counts as the process's memory (`RSS`) all the time, touched or not: the kernel
/// enters every page at once (`remap_vmalloc_range`, Linux 6.18). So what is large is mapped while it
/// is looked at, and no longer: 96 MiB of flow tables take 3 ms.
#[derive(Debug)]
pub struct Mappable<T: Shared> {
    map: OwnedFd,
    count: u32,
    values: PhantomData<T>,
}

impl<T: Shared> Mappable<T> {
    /// The caller has compared value size and count with those of the map.
    pub fn new(map: BorrowedFd<'_>, count: u32) -> io::Result<Self> {
        Ok(Self { map: map.try_clone_to_owned()?, count, values: PhantomData })
    }

    /// Maps all values until what is returned is dropped.
    pub fn map(&self) -> io::Result<Mapped<T>> {
        Mapped::new(&self.map, self.count)
    }
}

/// All values of an array map that was made with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub struct Mapped<T: Shared> {
    start: NonNull<c_void>,
    count: usize,
    values: PhantomData<T>,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `T` is made of atomics.
unsafe impl<T: Shared> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    /// Maps the `count` values of a map. The caller has compared value size and count with those of
    /// the map; more than the map holds is refused by the kernel.
    pub fn new(map: impl AsFd, count: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 4096) };
        let count = count as usize;
        let bytes = NonZeroUsize::new(count * size_of::<T>())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Self { start, count, values: PhantomData })
    }
}

impl<T: Shared> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` mapped `count` values, page aligned, which stay mapped until `drop`; any
        // bytes are a `T`, and whoever changes them does so through its cells.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.count) }
    }
}

impl<T: Shared> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, whole; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.start, self.count * size_of::<T>()) };
        debug_assert!(unmapped.is_ok());
    }
}
