//! Network namespaces, by name or path.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// Moves this thread, and the threads it will start, into a network namespace.
///
/// The mounts stay those of the first namespace, `/sys/fs/bpf` among them: unlike `ip netns exec`.
/// `/proc/sys/net` follows the thread.
pub fn enter(namespace: &str) -> io::Result<()> {
    let path = path(namespace);
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("network namespace {}: {error}", path.display()))
    };
    let file = File::open(&path).map_err(named)?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| named(errno.into()))
}

/// A name is that of `ip netns`.
fn path(namespace: &str) -> PathBuf {
    if namespace.contains('/') {
        PathBuf::from(namespace)
    } else {
        Path::new("/run/netns").join(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (namespace, want) in [
            ("amphora-haproxy", "/run/netns/amphora-haproxy"),
            ("/proc/1/ns/net", "/proc/1/ns/net"),
        ] {
            assert_eq!(path(namespace), Path::new(want));
        }
    }
}
