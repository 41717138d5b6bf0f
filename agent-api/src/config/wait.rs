//! The configuration of an amphora that is still being made.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};
use tracing::{info, warn};

use super::{AgentConfig, BadDestination, Error};

/// Waits until a file is there that parses, and returns it.
///
/// An agent may start before cloud-init has written its configuration, or while it writes. What the
/// file lacks is logged, and again when that has changed. So is what of a good file is ignored.
///
/// Must be called from a tokio runtime. An error is one of inotify: there is nothing to wait with.
pub async fn wait_for(path: &Path) -> io::Result<AgentConfig> {
    let (config, faults) = wait(path, |reason| {
        info!(path = %path.display(), %reason, "waiting for the configuration");
    })
    .await?;
    for fault in faults {
        warn!(path = %path.display(), %fault, "ignored");
    }
    Ok(config)
}

/// Why there is no configuration yet.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("there is no directory {}", .0.display())]
    NoDirectory(PathBuf),
    #[error(transparent)]
    File(Error),
}

async fn wait(
    path: &Path,
    mut tell: impl FnMut(&Reason),
) -> io::Result<(AgentConfig, Vec<BadDestination>)> {
    let mut told = None;
    loop {
        // What is watched is the file's directory or, until that is there, the one that it, or its
        // parent, will appear in. Watching comes before looking, so that nothing happens unseen.
        let directory = nearest(path);
        let inotify = Inotify::init()?;
        // CREATE for directories and links; CLOSE_WRITE because a file that is created is empty. A
        // directory that is removed ends its watch, which is an event of its own.
        let mask =
            WatchMask::CREATE | WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVE_SELF;
        match inotify.watches().add(&directory, mask) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            watched => watched?,
        };
        let mut events = inotify.into_event_stream([0; 4096])?;
        if nearest(path) != directory {
            continue;
        }

        let reason = match AgentConfig::read(path) {
            Ok(config) => return Ok(config),
            Err(_) if parent(path) != directory => Reason::NoDirectory(parent(path)),
            Err(error) => Reason::File(error),
        };
        let shown = Some(reason.to_string());
        if shown != told {
            tell(&reason);
            told = shown;
        }
        events.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    }
}

/// The directory of a file, whether it is there or not.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The directory of a file or, as long as it is not there, the nearest above it that is.
fn nearest(path: &Path) -> PathBuf {
    let mut directory = parent(path);
    while !directory.is_dir() {
        let above = parent(&directory);
        if above == directory {
            break;
        }
        directory = above;
    }
    directory
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::{Context, Poll};
    use std::time::Duration;
    use tokio::time::timeout;

    const WHOLE: &str = include_str!("../../../tests/vectors/agent_conf/active_standby.conf");

    /// A directory of the test's own.
    fn root(test: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("agent-wait-{test}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        root
    }

    /// Each reason is answered with the next step of whoever makes the amphora.
    #[tokio::test]
    async fn until_it_is_there() {
        let root = root("until");
        let directory = root.join("etc/octavia");
        let path = directory.join("amphora-agent.conf");
        let (aside, link) = (root.join("aside"), root.join("link"));
        fs::write(&aside, WHOLE).unwrap();
        std::os::unix::fs::symlink(&aside, &link).unwrap();

        let cut = |at: &str| WHOLE.split_once(at).unwrap().0.to_owned();
        let (in_a_line, after_a_line) = (cut("r_ip_port"), cut("controller_ip_port"));
        let (but_for_the_end, in_the_end) = (cut("[controller_worker]"), cut("IVE_STANDBY"));
        let no_directory = format!("there is no directory {}", directory.display());
        let (no_file, no_id) = (
            "cannot be read: No such file or directory (os error 2)",
            "[amphora_agent] amphora_id is missing",
        );
        type Step<'a> = &'a dyn Fn() -> io::Result<()>;
        #[rustfmt::skip]
        let steps: [(&str, Step); 12] = [
            (&no_directory, &|| fs::create_dir_all(&directory)),
            (no_file, &|| fs::write(&path, "")),
            (no_id, &|| fs::write(&path, &in_a_line)),
            ("line 17: neither a section, a comment nor `key = value`", &|| fs::write(&path, &after_a_line)),
            (no_id, &|| fs::write(&path, &but_for_the_end)),
            ("[controller_worker] loadbalancer_topology is missing", &|| fs::write(&path, &in_the_end)),
            ("[controller_worker] loadbalancer_topology = \"ACT\": expected SINGLE or ACTIVE_STANDBY", &|| fs::rename(&directory, root.join("old"))),
            (&no_directory, &|| fs::create_dir(&directory)),
            (no_file, &|| fs::remove_dir(&directory)),
            (&no_directory, &|| fs::create_dir(&directory)),
            (no_file, &|| fs::write(&path, "")),
            (no_id, &|| fs::rename(&link, &path)),
        ];
        let mut told = Vec::new();
        let waiting = wait(&path, |reason| {
            let (_, step) = steps[told.len()];
            told.push(reason.to_string());
            step().unwrap();
        });
        let done = timeout(Duration::from_secs(60), waiting).await;
        let (config, faults) = done.expect("an event was missed").unwrap();
        assert_eq!(told, steps.map(|(reason, _)| reason));
        assert_eq!((config, faults), AgentConfig::read(&aside).unwrap());

        let (config, _) = AgentConfig::read(&path).unwrap();
        assert_eq!(wait_for(&path).await.unwrap(), config, "there from the start");
        fs::remove_dir_all(&root).unwrap();
    }

    /// What goes on beside the file changes no reason, and none is told twice.
    #[tokio::test]
    async fn each_reason_once() {
        let root = root("once");
        let path = root.join("amphora-agent.conf");
        let told = Cell::new(0);
        let mut waiting = pin!(wait(&path, |_| told.set(told.get() + 1)));
        for beside in ["a", "b", "c"] {
            fs::write(root.join(beside), WHOLE).unwrap();
            for _ in 0..100 {
                let mut pending =
                    |context: &mut Context| waiting.as_mut().poll(context).is_pending();
                assert!(poll_fn(|context| Poll::Ready(pending(context))).await, "{beside}");
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(told.get(), 1);
        fs::write(&path, WHOLE).unwrap();
        assert_eq!(waiting.await.unwrap(), AgentConfig::read(&path).unwrap());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn directories() {
        let rows = [
            ("conf", ".", "."),
            ("./conf", ".", "."),
            ("absent/conf", "absent", "."),
            ("/conf", "/", "/"),
            ("/proc/conf", "/proc", "/proc"),
            ("/proc/version/x/conf", "/proc/version/x", "/proc"),
        ];
        for (path, directory, there) in rows {
            let path = Path::new(path);
            let want = (directory.into(), there.into());
            assert_eq!((parent(path), nearest(path)), want, "{}", path.display());
        }
    }
}
