//! Files that a crash leaves whole: the old content or the new one, at any moment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What could not be done to which file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}: {error}", .path.display())]
pub struct Error {
    pub path: PathBuf,
    pub what: &'static str,
    pub error: io::Error,
}

/// Written aside, synced, renamed, and the directory synced. The file has its mode from the start.
///
/// A link at the path is replaced, not followed. Missing directories are made.
pub fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), Error> {
    let aside = beside(path, "new");
    make_parent(path)?;
    write_aside(&aside, mode, content)?;
    rename(&aside, path)
}

/// The same, and what was there before is kept under `last`.
pub fn replace(path: &Path, last: &Path, mode: u32, content: &[u8]) -> Result<(), Error> {
    let aside = beside(path, "new");
    make_parent(path)?;
    write_aside(&aside, mode, content)?;
    // A second name for what is there, so that there is no moment without it.
    remove(last)?;
    match fs::hard_link(path, last) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error { path: last.to_owned(), what: "link", error });
        }
        _ => {}
    }
    rename(&aside, path)
}

/// None where there is no file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error { path: path.to_owned(), what: "read", error }),
    }
}

/// Gone, or never there.
pub fn remove(path: &Path) -> Result<(), Error> {
    gone(path, fs::remove_file(path))
}

/// A directory and all in it: gone, or never there.
pub fn remove_all(path: &Path) -> Result<(), Error> {
    gone(path, fs::remove_dir_all(path))
}

/// `path` with one more extension.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<(), Error> {
    match removed {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error { path: path.to_owned(), what: "remove", error }),
    }
}

fn make_parent(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
    made.map_err(|error| Error { path: parent.to_owned(), what: "make", error })
}

fn write_aside(aside: &Path, mode: u32, content: &[u8]) -> Result<(), Error> {
    // What a crash left there is another's, perhaps with another mode.
    remove(aside)?;
    let failed = |error| Error { path: aside.to_owned(), what: "write", error };
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(aside).map_err(failed)?;
    // The umask may have taken bits away.
    file.set_permissions(PermissionsExt::from_mode(mode)).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    let renamed = fs::rename(from, to);
    renamed.map_err(|error| Error { path: to.to_owned(), what: "rename to", error })?;
    sync_parent(to)
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Error { path: parent.to_owned(), what: "sync", error })
}
