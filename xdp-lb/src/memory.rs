//! Memory of this process.

/// Gives memory that was freed back to the system.
///
/// Loading the programs takes some megabytes for a moment, of which glibc keeps most for later; a daemon
/// in a small machine never needs that much again.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time by any thread (malloc_trim(3), MT-Safe), and moves nothing that
    // is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
