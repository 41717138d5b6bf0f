//! A file, followed through edits and replacements.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};

/// Follows the directory a file is in: editors, and `mv`, put a new file in its place.
#[derive(Debug)]
pub struct Follow {
    events: EventStream<[u8; 4096]>,
    file: OsString,
}

impl Follow {
    /// Must be called from a tokio runtime.
    pub fn new(path: &Path) -> io::Result<Self> {
        let file = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let inotify = Inotify::init()?;
        // Not each write: one that is not closed is half a file.
        let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO;
        inotify.watches().add(directory, mask)?;
        let events = inotify.into_event_stream([0; 4096])?;
        Ok(Self { events, file })
    }

    /// Returns when the file has been written or replaced.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let event = self.events.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
            if event.name.as_ref() == Some(&self.file) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[tokio::test]
    async fn edits_and_replacements() {
        let directory = std::env::temp_dir().join(format!("xdp-lb-follow-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("lb.toml");
        let other = directory.join("other");
        fs::write(&path, "one").unwrap();
        let mut follow = Follow::new(&path).unwrap();
        type Act<'a> = &'a dyn Fn() -> io::Result<()>;
        let rows: [(&str, Act, bool); 4] = [
            ("another file", &|| fs::write(&other, "two"), false),
            ("written", &|| fs::write(&path, "two"), true),
            ("replaced", &|| fs::rename(&other, &path), true),
            ("removed", &|| fs::remove_file(&path), false),
        ];
        for (row, act, want) in rows {
            act().unwrap();
            let seen = tokio::time::timeout(Duration::from_millis(200), follow.changed()).await;
            assert_eq!(seen.is_ok(), want, "{row}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
