//! HAProxy's sockets: one question, one answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// The states of ten thousand members are some 2 MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What the master process says of itself and its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Master {
    /// How often it was asked to reload since its start, whatever came of it.
    pub reloads: u32,
    /// Process id of the worker that was made by the last one; none if the last one failed.
    pub worker: Option<u32>,
}

/// The whole answer to a command, if all of it comes within this time.
pub fn ask(socket: &Path, command: &str, patience: Duration) -> io::Result<String> {
    let mut answer = Vec::new();
    read(socket, command, patience, |piece| {
        answer.extend_from_slice(piece);
        answer.len() <= ANSWER_BYTES_MAX
    })?;
    if answer.len() > ANSWER_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "the answer has no end"));
    }
    String::from_utf8(answer).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Whether anything at all comes back within this time.
pub fn answers(socket: &Path, patience: Duration) -> io::Result<()> {
    let mut any = false;
    read(socket, "show info", patience, |_| {
        any = true;
        false
    })?;
    if any { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Of the master's own socket.
pub fn master(socket: &Path, patience: Duration) -> io::Result<Master> {
    let answer = ask(socket, "show proc", patience)?;
    parse_master(&answer).ok_or_else(|| strange(&answer))
}

/// Process id of the worker that answers on the socket for statistics.
pub fn worker(socket: &Path, patience: Duration) -> io::Result<u32> {
    let answer = ask(socket, "show info", patience)?;
    let pid = answer.lines().find_map(|line| line.strip_prefix("Pid: ")?.trim().parse().ok());
    pid.ok_or_else(|| strange(&answer))
}

fn strange(answer: &str) -> io::Error {
    let first = answer.lines().next().unwrap_or_default();
    io::Error::new(ErrorKind::InvalidData, format!("a strange answer: {first:?}"))
}

/// Lines of process id, type, number of reloads; the master's has `[failed: 0]` behind it from
/// HAProxy 2.5 on. A worker's are the reloads that it has seen.
fn parse_master(answer: &str) -> Option<Master> {
    let rows = answer.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (pid, kind, reloads) = (words.next()?, words.next()?, words.next()?);
        Some((pid.parse::<u32>().ok()?, kind, reloads.parse::<u32>().ok()?))
    });
    let rows: Vec<_> = rows.collect();
    let (_, _, reloads) = rows.iter().find(|(_, kind, _)| *kind == "master")?;
    let worker = rows.iter().find(|(_, kind, reloads)| (*kind, *reloads) == ("worker", 0));
    Some(Master { reloads: *reloads, worker: worker.map(|(pid, _, _)| *pid) })
}

/// Hands over the answer in pieces, until there is no more or no more is wanted.
fn read(
    path: &Path,
    command: &str,
    patience: Duration,
    mut wants_more: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    let mut stream = open(path)?;
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    stream.set_write_timeout(left()?)?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    // The master's socket closes only when it has heard all.
    stream.shutdown(Shutdown::Write)?;
    let mut piece = [0; 16 << 10];
    loop {
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) if wants_more(&piece[..length]) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Connects at once or not at all: std's would wait for ever where nobody accepts.
fn open(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const HEAD: &str =
        "#<PID>          <type>          <reloads>       <uptime>        <version>\n";

    #[test]
    fn masters() {
        let rows = [
            (
                "after its start",
                "12 master 0 [failed: 0] 0d00h00m00s 2.6.12\n# workers\n13 worker 0 0d00h00m00s \
                 2.6.12\n",
                Some(Master { reloads: 0, worker: Some(13) }),
            ),
            (
                "after a reload, the old one leaving",
                "12 master 1 [failed: 0] 0d00h00m09s 2.6.12\n# workers\n14 worker 0 0d00h00m00s \
                 2.6.12\n# old workers\n13 worker 1 0d00h00m09s 2.6.12\n# programs\n",
                Some(Master { reloads: 1, worker: Some(14) }),
            ),
            (
                "after one that failed",
                "12 master 2 [failed: 1] 0d00h00m09s 2.6.12\n# workers\n14 worker 1 0d00h00m09s \
                 2.6.12\n",
                Some(Master { reloads: 2, worker: None }),
            ),
            (
                "HAProxy 2.4",
                "12 master 2 0d00h00m09s 2.4.22\n# workers\n14 worker 0 0d00h00m09s 2.4.22\n",
                Some(Master { reloads: 2, worker: Some(14) }),
            ),
            ("nothing", "", None),
            ("another's", "Unknown command\n", None),
        ];
        for (row, text, want) in rows {
            assert_eq!(parse_master(&format!("{HEAD}{text}")), want, "{row}");
        }
    }

    #[test]
    fn asked() {
        let path = std::env::temp_dir().join(format!("xdp-lb-socket-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let long = Duration::from_secs(30);
        let answering = |answer: &'static str, work: &dyn Fn()| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut asked = String::new();
                    stream.read_to_string(&mut asked).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                });
                work();
            });
        };
        answering("Name: HAProxy\nPid: 7\n\n", &|| assert_eq!(worker(&path, long).unwrap(), 7));
        answering("a\nb\n", &|| assert_eq!(ask(&path, "x", long).unwrap(), "a\nb\n"));
        answering("x", &|| answers(&path, long).unwrap());
        answering("", &|| {
            assert_eq!(answers(&path, long).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        });
        answering("Name: HAProxy\n", &|| {
            let error = worker(&path, long).unwrap_err();
            assert_eq!(error.to_string(), "a strange answer: \"Name: HAProxy\"");
        });
        let unheard = answers(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(unheard.kind(), ErrorKind::TimedOut, "a process that stands still");
        drop(listener);
        assert_eq!(answers(&path, long).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(answers(&path, long).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
