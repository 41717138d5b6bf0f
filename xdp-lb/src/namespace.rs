//! The network namespace of the load balancer, by the name that `ip netns` knows.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use rtnetlink::LinkUnspec;
use tracing::warn;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";
/// `lo` is the first interface of every namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// What a namespace is to have otherwise than the kernel makes it.
///
/// The stock amphora turns forwarding on here, for IPVS; ours forwards in XDP, and the kernel stays a
/// host. Buffers of TCP tune themselves.
const SYSCTLS: [Sysctl; 4] = [
    Sysctl {
        key: "ipv4/ip_nonlocal_bind",
        value: "1",
        why: "HAProxy binds the VIPs also while the other amphora has them",
    },
    Sysctl {
        key: "ipv6/ip_nonlocal_bind",
        value: "1",
        why: "HAProxy binds the VIPs also while the other amphora has them",
    },
    Sysctl {
        key: "ipv4/conf/all/promote_secondaries",
        value: "1",
        why: "an address that is removed does not take others of its subnet with it",
    },
    Sysctl {
        key: "ipv4/ping_group_range",
        value: "0 2147483647",
        why: "members are pinged without the right to raw sockets",
    },
];

/// One of `net.`, which each namespace has for itself.
struct Sysctl {
    key: &'static str,
    value: &'static str,
    /// What is lost without it.
    why: &'static str,
}

/// A network namespace with a name, open: it stays for as long as this does, or its name.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// The namespace of this name, made if there is none, with `lo` up and its sysctls set.
    ///
    /// The name is as `ip netns add` leaves it, and seen in all mount namespaces that `/run` is shared
    /// with. A file of that name behind which there is no namespace, as a crash may leave it, becomes
    /// one. A sysctl that cannot be set is a warning. Needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`.
    pub fn open_or_make(name: &str) -> io::Result<Self> {
        let named = |error| say(error, format!("network namespace {name}"));
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(named(io::Error::new(ErrorKind::InvalidInput, "is no name")));
        }
        let path = Path::new(NAMES).join(name);
        let file = match open(&path).map_err(named)? {
            Some(file) => file,
            None => make(&path).map_err(named)?,
        };
        let namespace = Self { name: name.to_owned(), file };
        namespace.enter(prepare).flatten().map_err(named)?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another handle to the same namespace.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { name: self.name.clone(), file: self.file.try_clone()? })
    }

    /// Runs `work` on a thread of its own inside. Sockets made there stay there, and so do the threads
    /// and the processes it starts. The mounts are those of this process.
    ///
    /// Fails when the thread cannot be made or moved, or panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        inside(&self.file, work).map_err(|error| say(error, format!("in {}", self.name)))
    }
}

/// Runs `work` on a thread of its own in a namespace that is open, as [`Namespace::enter`] does.
pub fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// For moving interfaces.
impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Moves this thread, and the threads it will start, into a network namespace.
///
/// The mounts stay those of the first namespace, `/sys/fs/bpf` among them: unlike `ip netns exec`.
/// `/proc/sys/net` follows the thread.
pub fn move_into(namespace: &str) -> io::Result<()> {
    let file = find(namespace)?;
    let named = |errno: Errno| say(errno.into(), format!("network namespace {namespace}"));
    setns(file, CloneFlags::CLONE_NEWNET).map_err(named)
}

/// The namespace of this name or path, which must be there.
pub fn find(namespace: &str) -> io::Result<File> {
    let path = path_of(namespace);
    File::open(&path).map_err(|error| say(error, format!("network namespace {}", path.display())))
}

/// A name is that of `ip netns`.
fn path_of(namespace: &str) -> PathBuf {
    if namespace.contains('/') {
        PathBuf::from(namespace)
    } else {
        Path::new(NAMES).join(namespace)
    }
}

/// A namespace by its path; None where there is no file, or none of a namespace.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok((fstatfs(&file)?.filesystem_type() == NSFS_MAGIC).then_some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// As `ip netns add` does it (iproute2 `netns_add`).
fn make(path: &Path) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(NAMES)?;
    // `ip netns` takes the same lock, so that nobody mounts the directory on itself twice.
    let directory = File::open(NAMES)?;
    let _lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    share(NAMES)?;
    if let Some(file) = open(path)? {
        return Ok(file);
    }
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o000).open(path)?;
    let bound = on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Some("/proc/thread-self/ns/net");
        Ok(mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    });
    if let Err(error) = bound {
        // It was of no use before either.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    open(path)?.ok_or_else(|| io::Error::other("does not stay under its name"))
}

/// Names made here shall be seen in other mount namespaces, and names removed there vanish here.
fn share(directory: &str) -> io::Result<()> {
    let none = None::<&str>;
    let shared = || mount(none, directory, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    match shared() {
        // No mount point yet.
        Err(Errno::EINVAL) => {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(directory), directory, none, bind, none)?;
            Ok(shared()?)
        }
        shared => Ok(shared?),
    }
}

/// From inside: `lo` up, the sysctls set.
fn prepare() -> io::Result<()> {
    for Sysctl { key, value, why } in SYSCTLS {
        if let Err(error) = set_sysctl(key, value) {
            warn!("net/{key} is not {value:?} ({error}): {why}");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
        let set = handle.link().set(up).execute().await;
        set.map_err(|error| say(io::Error::other(error), "setting lo up"))
    })
}

/// Sets one of the `net.` sysctls in the namespace of this thread, if it is not so already:
/// `ipv4/ip_forward`.
pub fn set_sysctl(key: &str, value: &str) -> io::Result<()> {
    // What /proc/sys/net shows depends on the thread that looks.
    let path = PathBuf::from("/proc/sys/net").join(key);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if words(&fs::read_to_string(&path)?) == words(value) {
        return Ok(());
    }
    fs::write(path, value)
}

/// A thread of its own, so that ours stays in its namespace.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| Err(io::Error::other(said(&*panic))))
    })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a thread panicked: {}", text.as_deref().unwrap_or("no reason given"))
}

fn say(error: io::Error, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let panicked = on_a_thread(|| -> io::Result<()> { panic!("no {}", "luck") });
        assert_eq!(panicked.unwrap_err().to_string(), "a thread panicked: no luck");
        assert_eq!(on_a_thread(|| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn names() {
        for name in ["", ".", "..", "../x", "a/b"] {
            let error = Namespace::open_or_make(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    fn paths() {
        for (namespace, want) in [
            ("amphora-haproxy", "/run/netns/amphora-haproxy"),
            ("/proc/1/ns/net", "/proc/1/ns/net"),
        ] {
            assert_eq!(path_of(namespace), Path::new(want));
        }
    }
}
