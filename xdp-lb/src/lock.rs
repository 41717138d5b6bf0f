//! One daemon to a load balancer.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use agent_api::{Name, durable};

/// Where the daemon keeps what need not survive a boot.
const DIRECTORY: &str = "/run/xdp-lb";

const PATIENCE: Duration = Duration::from_secs(1);

/// A file of the load balancer's in the run directory.
pub fn run_file(name: &Name, extension: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{name}.{extension}"))
}

/// A directory of the load balancer's there, for more.
pub fn run_directory(name: &Name) -> PathBuf {
    Path::new(DIRECTORY).join(name.as_str())
}

/// Held while it lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("load balancer {name} is run by process {pid} already")]
    Held { name: String, pid: String },
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
}

/// Waits a moment for a predecessor that is about to end: a killed process holds on until the
/// kernel has taken its memory apart.
pub fn take(name: &Name) -> Result<Lock, Error> {
    let path = run_file(name, "lock");
    let failed = |error| Error::File { path: path.clone(), error };
    fs::create_dir_all(DIRECTORY).map_err(failed)?;
    let mut options = File::options();
    // The content is another's until the lock is ours.
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(failed)?;
    match try_for(&file, PATIENCE) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            return Err(Error::Held { name: name.to_string(), pid: pid.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed)?;
    Ok(Lock { _file: file })
}

fn try_for(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let end = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(10));
            }
            tried => return tried,
        }
    }
}

/// Process id of whoever holds a lock, if anyone does.
pub fn holder(name: &Name) -> Option<String> {
    let mut file = File::open(run_file(name, "lock")).ok()?;
    let held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    let mut pid = String::new();
    (held && file.read_to_string(&mut pid).is_ok()).then(|| pid.trim().to_owned())
}

/// Load balancers that have been started since the last boot, and not detached.
pub fn names() -> Result<Vec<Name>, Error> {
    let path = PathBuf::from(DIRECTORY);
    let files = durable::names(&path)
        .map_err(|durable::Error { path, error, .. }| Error::File { path, error })?;
    let mut names: Vec<Name> = files
        .iter()
        .filter_map(|file| Name::try_from(file.strip_suffix(".lock")?.to_owned()).ok())
        .collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(names)
}

/// Removes the files of a load balancer that is no more. By whom holds its lock.
pub fn forget(name: &Name) -> Result<(), Error> {
    for extension in ["json", "lock", "expected", "health", "capture"] {
        let path = run_file(name, extension);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::File { path, error });
            }
            _ => {}
        }
    }
    Ok(())
}
