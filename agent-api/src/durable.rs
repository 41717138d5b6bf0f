//! Files that a crash leaves whole: at any moment a path has its old content or its new one.
//!
//! What is to be done is a list of steps, and one function takes them. So a test can stop after each.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::iter;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::limits::FILE_BYTES_MAX;

/// What could not be done, and to what.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {doing}: {error}", .path.display())]
pub struct Error {
    pub path: PathBuf,
    /// A verb.
    pub doing: &'static str,
    pub error: io::Error,
}

/// A piece of a change. Each may be taken again after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Unless it is there. Parents that are missing are 0755. All of them are synced.
    MakeDirectory { path: PathBuf, mode: u32 },
    /// A new file that is complete, synced and has its mode from the start. One that a crash left at the
    /// path is removed.
    Write { path: PathBuf, mode: u32, content: Vec<u8> },
    /// A second name for a file, in place of what is there.
    Link { from: PathBuf, to: PathBuf },
    /// On to what is there. A link there is replaced, not followed.
    Rename { from: PathBuf, to: PathBuf },
    /// A file, if it is there. Of a link, the link.
    Remove { path: PathBuf },
    /// A directory and all that is in it, if it is there. Links in it are not followed.
    RemoveTree { path: PathBuf },
    /// Until then, a crash may undo what was renamed in the directory or removed from it, in any order.
    Sync { directory: PathBuf },
}

/// The content of a file. Missing parents are made, 0755.
///
/// At most 16 MiB, what [`read`] takes.
pub fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), Error> {
    let directory = parent(path).map(|path| Step::MakeDirectory { path, mode: 0o755 });
    run(&directory.into_iter().chain(writing(path, mode, content)).collect::<Vec<_>>())
}

/// The content of a regular file of at most 16 MiB; None where there is nothing. A link is an error.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match content(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error { path: path.to_owned(), doing: "read", error }),
    }
}

/// What is in a directory, but for names that are not UTF-8; nothing where there is no directory.
pub fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = |error| Error { path: directory.to_owned(), doing: "list", error };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// The path with one more extension.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// The steps of a file's content: written aside, renamed. Its directory must be there.
pub(crate) fn writing(path: &Path, mode: u32, content: &[u8]) -> Vec<Step> {
    let aside = beside(path, "new");
    let write = Step::Write { path: aside.clone(), mode, content: content.to_owned() };
    iter::once(write).chain(renaming(&aside, path)).collect()
}

/// The steps by which what is at one path is at another too.
pub(crate) fn keeping(path: &Path, kept: &Path) -> Vec<Step> {
    let link = Step::Link { from: path.to_owned(), to: kept.to_owned() };
    iter::once(link).chain(syncing(kept)).collect()
}

pub(crate) fn renaming(from: &Path, to: &Path) -> Vec<Step> {
    let rename = Step::Rename { from: from.to_owned(), to: to.to_owned() };
    iter::once(rename).chain(syncing(to)).collect()
}

pub(crate) fn removing(path: &Path) -> Vec<Step> {
    iter::once(Step::Remove { path: path.to_owned() }).chain(syncing(path)).collect()
}

pub(crate) fn removing_tree(path: &Path) -> Vec<Step> {
    iter::once(Step::RemoveTree { path: path.to_owned() }).chain(syncing(path)).collect()
}

/// Takes the steps in their order, up to the first that fails.
pub(crate) fn run(steps: &[Step]) -> Result<(), Error> {
    steps.iter().try_for_each(|step| {
        let (path, doing, done) = match step {
            Step::MakeDirectory { path, mode } => (path, "make", make_directory(path, *mode)),
            Step::Write { path, mode, content } => (path, "write", create(path, *mode, content)),
            Step::Link { from, to } => (to, "link", link(from, to)),
            Step::Rename { from, to } => (to, "rename to", fs::rename(from, to)),
            Step::Remove { path } => (path, "remove", or_missing(fs::remove_file(path))),
            Step::RemoveTree { path } => (path, "remove", or_missing(fs::remove_dir_all(path))),
            Step::Sync { directory } => (directory, "sync", or_missing(sync(directory))),
        };
        done.map_err(|error| Error { path: path.clone(), doing, error })
    })
}

fn syncing(path: &Path) -> Option<Step> {
    parent(path).map(|directory| Step::Sync { directory })
}

/// None for the root and for what stands in the current directory by name alone, which is there.
fn parent(path: &Path) -> Option<PathBuf> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_owned)
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent(path);
    if let Some(parent) = &parent {
        make_directory(parent, 0o755)?;
    }
    DirBuilder::new().mode(mode).create(path)?;
    // The umask may have taken bits away.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    parent.map_or(Ok(()), |parent| sync(&parent))
}

fn create(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large());
    }
    or_missing(fs::remove_file(path))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask may have taken bits away.
    let written = file
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.write_all(content))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // Where the disk is full, half a file is in the way of the next attempt. It has no better news.
        let _ = fs::remove_file(path);
    }
    written
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    or_missing(fs::remove_file(to))?;
    fs::hard_link(from, to)
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let named = fs::symlink_metadata(path)?;
    if !named.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = File::open(path)?;
    let opened = file.metadata()?;
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(io::Error::other("it was replaced meanwhile"));
    }
    let mut content = Vec::new();
    // One byte more than allowed tells a full file from one that is too large.
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX { Err(too_large()) } else { Ok(content) }
}

fn too_large() -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("more than {FILE_BYTES_MAX} bytes"))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What is missing need not be removed, nor synced.
fn or_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// What is at the path before, and what writing `new` there with mode 0640 leaves.
    #[test]
    fn writes() {
        type Before = fn(&Path);
        let rows: [(&str, Before); 6] = [
            ("nothing", |_| ()),
            ("a file of another mode", |path| {
                fs::write(path, "old").unwrap();
                fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
            }),
            ("what a crash left aside", |path| fs::write(beside(path, "new"), "torn").unwrap()),
            ("a link", |path| symlink("elsewhere", path).unwrap()),
            ("a link aside", |path| symlink("elsewhere", beside(path, "new")).unwrap()),
            ("a link to nothing", |path| symlink("nowhere", path).unwrap()),
        ];
        for (row, before) in rows {
            let directory = TempDir::new().unwrap();
            let (path, elsewhere) =
                (directory.path().join("file"), directory.path().join("elsewhere"));
            fs::write(&elsewhere, "untouched").unwrap();
            before(&path);
            write(&path, 0o640, b"new").unwrap();

            assert_eq!(content(&path).unwrap(), b"new", "{row}");
            assert_eq!(mode(&path), 0o640, "{row}");
            assert_eq!(fs::read(&elsewhere).unwrap(), b"untouched", "{row}");
            assert_eq!(names(directory.path()), ["elsewhere", "file"], "{row}");
        }
    }

    /// However far it came, the old content is there or the new one.
    #[test]
    fn crashes() {
        for old in [None, Some(&b"old"[..])] {
            let steps = |path: &Path| writing(path, 0o600, b"new");
            for taken in 0..=steps(Path::new("/file")).len() {
                let directory = TempDir::new().unwrap();
                let path = directory.path().join("file");
                if let Some(old) = old {
                    fs::write(&path, old).unwrap();
                }
                run(&steps(&path)[..taken]).unwrap();
                let want = if taken < 2 { old } else { Some(&b"new"[..]) };
                assert_eq!(read(&path).unwrap().as_deref(), want, "{taken} steps from {old:?}");
            }
        }
    }

    /// What is kept does not change with what takes its place.
    #[test]
    fn keeps() {
        let directory = TempDir::new().unwrap();
        let [path, kept] = ["file", "kept"].map(|name| directory.path().join(name));
        write(&kept, 0o600, b"oldest").unwrap();
        write(&path, 0o640, b"old").unwrap();
        run(&keeping(&path, &kept)).unwrap();
        run(&keeping(&path, &kept)).unwrap();
        write(&path, 0o600, b"new").unwrap();
        run(&keeping(&path, &directory.path().join("also"))).unwrap();
        assert_eq!([content(&path).unwrap(), content(&kept).unwrap()], [&b"new"[..], &b"old"[..]]);
        assert_eq!([mode(&path), mode(&kept)], [0o600, 0o640]);
    }

    #[test]
    fn reads() {
        type Before = fn(&Path);
        let full = usize::try_from(FILE_BYTES_MAX).unwrap();
        let rows: [(&str, Before, &str); 6] = [
            ("nothing", |_| (), "None"),
            ("a file", |path| fs::write(path, "text").unwrap(), "4 bytes"),
            ("a full file", |path| sized(path, FILE_BYTES_MAX), "16777216 bytes"),
            ("a larger one", |path| sized(path, FILE_BYTES_MAX + 1), "more than 16777216 bytes"),
            ("a directory", |path| fs::create_dir(path).unwrap(), "it is not a regular file"),
            ("a link", |path| symlink("/etc/passwd", path).unwrap(), "it is not a regular file"),
        ];
        for (row, before, want) in rows {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("file");
            before(&path);
            let shown = match read(&path) {
                Ok(None) => "None".to_owned(),
                Ok(Some(content)) => format!("{} bytes", content.len()),
                Err(error) => {
                    assert_eq!((&error.path, error.doing), (&path, "read"), "{row}");
                    error.error.to_string()
                }
            };
            assert_eq!(shown, want, "{row}");
        }
        let directory = TempDir::new().unwrap();
        let error = write(&directory.path().join("file"), 0o600, &vec![0; full + 1]).unwrap_err();
        assert!(error.to_string().ends_with("file.new: cannot write: more than 16777216 bytes"));
        assert!(names(directory.path()).is_empty(), "what could not be read is not written");
    }

    #[test]
    fn directories() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a/b/c");
        let make = |mode| run(&[Step::MakeDirectory { path: path.clone(), mode }]);
        make(0o700).unwrap();
        make(0o755).unwrap();
        let modes: Vec<u32> = path.ancestors().take(3).map(mode).collect();
        assert_eq!(modes, [0o700, 0o755, 0o755], "the first to make it sets its mode");

        write(&path.join("d/file"), 0o600, b"").unwrap();
        assert_eq!(mode(&path.join("d")), 0o755);
        write(&path.join("d/file/file"), 0o600, b"").unwrap_err();
    }

    #[test]
    fn removes() {
        let directory = TempDir::new().unwrap();
        let kept = directory.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        let path = directory.path().join("gone");
        for removing in [removing, removing_tree] {
            symlink(&kept, &path).unwrap();
            run(&removing(&path)).unwrap();
            run(&removing(&path)).unwrap();
            run(&removing(&path.join("below"))).unwrap();
            assert_eq!(names(directory.path()), ["kept"]);
            assert_eq!(names(&kept), ["file"]);
        }
        run(&removing_tree(&kept)).unwrap();
        assert!(names(directory.path()).is_empty());
    }

    fn sized(path: &Path, bytes: u64) {
        File::create(path).unwrap().set_len(bytes).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }
}
