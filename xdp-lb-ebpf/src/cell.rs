//! Words that several CPUs write at once, and user space too, through `mmap`.
//!
//! On the host they are the atomics of `core`. The BPF target has none: a load is a volatile read,
//! a read-modify-write the intrinsic that becomes one instruction (ISA v3, kernel 5.12).
//!
//! Every read-modify-write is a full barrier. `load` and `store` of BPF are plain accesses, ordered
//! as the machine orders them: that is enough on x86-64 (loads stay in order, stores stay in order),
//! the only architecture promised so far.

macro_rules! word {
    ($name:ident, $int:ty, $atomic:ident) => {
        #[doc = concat!("A shared `", stringify!($int), "` in host order.")]
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name(imp::$atomic);

        impl $name {
            #[inline(always)]
            pub const fn new(value: $int) -> Self {
                Self(imp::$atomic::new(value))
            }
            #[inline(always)]
            pub fn load(&self) -> $int {
                self.0.load(imp::READ)
            }
            #[inline(always)]
            pub fn store(&self, value: $int) {
                self.0.store(value, imp::WRITE)
            }
            /// Replaces `old` by `new`; false, and nothing written, where another value stands.
            #[inline(always)]
            pub fn cas(&self, old: $int, new: $int) -> bool {
                self.0.compare_exchange(old, new, imp::BOTH, imp::READ).is_ok()
            }
            /// Adds, wrapping, and returns what stood before.
            #[inline(always)]
            pub fn add(&self, value: $int) -> $int {
                self.0.fetch_add(value, imp::BOTH)
            }
        }
    };
}

word!(Word32, u32, AtomicU32);
word!(Word64, u64, AtomicU64);

impl Word64 {
    /// Sets `bits`, and returns what stood before.
    #[inline(always)]
    pub fn or(&self, bits: u64) -> u64 {
        self.0.fetch_or(bits, imp::BOTH)
    }
    /// Keeps `bits` only, and returns what stood before.
    #[inline(always)]
    pub fn and(&self, bits: u64) -> u64 {
        self.0.fetch_and(bits, imp::BOTH)
    }
}

#[cfg(not(target_arch = "bpf"))]
mod imp {
    use core::sync::atomic::Ordering;
    pub use core::sync::atomic::{AtomicU32, AtomicU64};
    pub const READ: Ordering = Ordering::Acquire;
    pub const WRITE: Ordering = Ordering::Release;
    pub const BOTH: Ordering = Ordering::SeqCst;
}

#[cfg(target_arch = "bpf")]
mod imp {
    #![allow(unsafe_code)]
    use core::cell::UnsafeCell;
    use core::intrinsics::{
        AtomicOrdering::SeqCst, atomic_and, atomic_cxchg, atomic_or, atomic_xadd,
    };

    // The names of `core::sync::atomic`, whose read-modify-writes this target lacks.
    pub struct Ordering;
    pub const READ: Ordering = Ordering;
    pub const WRITE: Ordering = Ordering;
    pub const BOTH: Ordering = Ordering;

    macro_rules! atomic {
        ($name:ident, $int:ty) => {
            #[repr(transparent)]
            #[derive(Debug, Default)]
            pub struct $name(UnsafeCell<$int>);

            // SAFETY, for every access below: the pointer is that of a live, aligned cell; an access
            // of its full width is one BPF instruction, so it is never torn.
            impl $name {
                #[inline(always)]
                pub const fn new(value: $int) -> Self {
                    Self(UnsafeCell::new(value))
                }
                #[inline(always)]
                pub fn load(&self, _: Ordering) -> $int {
                    // SAFETY: as above the impl.
                    unsafe { self.0.get().read_volatile() }
                }
                #[inline(always)]
                pub fn store(&self, value: $int, _: Ordering) {
                    // SAFETY: as above the impl.
                    unsafe { self.0.get().write_volatile(value) }
                }
                #[inline(always)]
                pub fn compare_exchange(
                    &self,
                    old: $int,
                    new: $int,
                    _: Ordering,
                    _: Ordering,
                ) -> Result<$int, $int> {
                    // SAFETY: as above the impl.
                    let (was, done) = unsafe {
                        atomic_cxchg::<$int, { SeqCst }, { SeqCst }>(self.0.get(), old, new)
                    };
                    if done { Ok(was) } else { Err(was) }
                }
                #[inline(always)]
                pub fn fetch_add(&self, value: $int, _: Ordering) -> $int {
                    // SAFETY: as above the impl.
                    unsafe { atomic_xadd::<$int, $int, { SeqCst }>(self.0.get(), value) }
                }
            }
        };
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);

    impl AtomicU64 {
        #[inline(always)]
        pub fn fetch_or(&self, bits: u64, _: Ordering) -> u64 {
            // SAFETY: as above the impl.
            unsafe { atomic_or::<u64, u64, { SeqCst }>(self.0.get(), bits) }
        }
        #[inline(always)]
        pub fn fetch_and(&self, bits: u64, _: Ordering) -> u64 {
            // SAFETY: as above the impl.
            unsafe { atomic_and::<u64, u64, { SeqCst }>(self.0.get(), bits) }
        }
    }
}
