//! Files that need not survive a boot: a reader finds the old one or the new one, whole.
//!
//! Not synced to the disk, so that no stall of one holds up those who write: heartbeats above all. What
//! must survive is written by [`agent_api::durable`].

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use agent_api::durable::Error;

/// The content of a file; a directory that is missing is made. Of two writers at once the last counts.
pub fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), Error> {
    let failed = |error| Error { path: path.to_owned(), doing: "write", error };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let aside = aside(path);
    let written = remove(&aside).and_then(|()| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&aside)?;
        file.write_all(content)?;
        fs::rename(&aside, path)
    });
    written.map_err(failed)
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn old_or_new_and_nothing_beside() {
        let directory =
            std::env::temp_dir().join(format!("xdp-lb-volatile-{}", std::process::id()));
        let path = directory.join("made").join("file");
        for (row, left, content) in [
            ("the first", None, "one"),
            ("another", None, "two"),
            ("after a crash", Some("t"), "3"),
        ] {
            if let Some(left) = left {
                fs::write(aside(&path), left).unwrap();
            }
            write(&path, 0o600, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content, "{row}");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600, "{row}");
            assert!(!aside(&path).exists(), "{row}");
        }
        for _ in 0..2 {
            remove(&path).unwrap();
        }
        assert!(write(&directory, 0o600, b"").is_err(), "a directory is there");
        fs::remove_dir_all(&directory).unwrap();
    }
}
