//! Programs beside us. Those that become daemons outlive us, and are found again by their pid
//! files.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use agent_api::amphora::Failed;
use nix::sys::memfd::{MFdFlags, memfd_create};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpgid, kill_process_group, pidfd_open, pidfd_send_signal,
};

use crate::namespace::inside;

/// A program's own words are for people: this much of them.
const SAID_BYTES_MAX: usize = 4096;
/// Nothing of our environment is theirs, least of all systemd's socket.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A daemon says that it has started, and writes its pid file a moment later.
const APPEARING: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);
/// From an old program of a process to its new one.
const EXECUTING: Duration = Duration::from_millis(500);
/// From SIGKILL to the end.
const DYING: Duration = Duration::from_secs(2);

/// What became of a program that was to do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{program} does not start: {error}")]
    Start { program: String, error: io::Error },
    #[error("{program} has not come to an end in {} s", .patience.as_secs())]
    Slow { program: String, patience: Duration },
    #[error("{program}: {status}: {}", last(.said))]
    Failed { program: String, status: ExitStatus, said: String },
    #[error("process {pid} cannot be sent a signal: {error}")]
    Signal { pid: i32, error: io::Error },
    #[error("process {pid} does not end, whatever it is sent")]
    Immortal { pid: i32 },
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// Runs a program to its end, or until it has become a daemon; what it said on both its outputs.
///
/// It reads `input`, and has no other environment than a `PATH`. In a namespace it sees that one's
/// network, and the mounts of ours. An exit status other than 0 is an error.
pub fn run(
    namespace: Option<&File>,
    command: &mut Command,
    input: &[u8],
    patience: Duration,
) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error| Error::Start { program: program.clone(), error };
    // Not a pipe: a daemon may keep its end of one open, and then there is no end to wait for.
    let mut said = memory(b"").map_err(failed)?;
    let mut prepare = || {
        command.stdin(memory(input)?).stdout(said.try_clone()?).stderr(said.try_clone()?);
        command.current_dir("/").env_clear().env("PATH", PATH);
        match namespace {
            Some(namespace) => inside(namespace, || command.spawn()).flatten(),
            None => command.spawn(),
        }
    };
    let mut child = prepare().map_err(failed)?;
    let pidfd = Pid::from_raw(child.id() as i32).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let ended = match pidfd {
        Some(Ok(pidfd)) => ends(&pidfd, patience),
        Some(Err(_)) | None => false,
    };
    if !ended {
        // It fails only where it has ended meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    if !ended {
        return Err(Error::Slow { program, patience });
    }
    let mut text = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut text)).map_err(failed)?;
    let said = String::from_utf8_lossy(&text).into_owned();
    if status.success() { Ok(said) } else { Err(Error::Failed { program, status, said }) }
}

/// A file that is nowhere, to be read from its start.
fn memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"words", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// The last of what was said, in whole lines.
fn last(said: &str) -> &str {
    let said = said.trim_end();
    let Some(start) = said.len().checked_sub(SAID_BYTES_MAX) else {
        return said;
    };
    match said.as_bytes()[start..].iter().position(|byte| *byte == b'\n') {
        // Behind a line feed a character begins.
        Some(line) => &said[start + line + 1..],
        None => "",
    }
}

/// By what a daemon is known: its command line, which stays what it was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its file name counts, not where it lies.
    pub program: PathBuf,
    /// Arguments that stand in this order, one after the other.
    pub arguments: Vec<PathBuf>,
}

impl Identity {
    /// Of a program that was told to write its number to `pid_file` by `-p`.
    pub fn of(program: &Path, pid_file: &Path) -> Self {
        let arguments = vec!["-p".into(), pid_file.to_owned()];
        Self { program: program.to_owned(), arguments }
    }

    /// Of arguments that end with a NUL each, as in `/proc/<pid>/cmdline`.
    fn is(&self, command_line: &[u8]) -> bool {
        let words: Vec<&OsStr> =
            command_line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
        let program = words.first().and_then(|word| Path::new(word).file_name());
        let arguments: Vec<&OsStr> = self.arguments.iter().map(|it| it.as_os_str()).collect();
        program.is_some()
            && program == self.program.file_name()
            && words.windows(arguments.len()).any(|window| window == arguments)
    }
}

/// A daemon that lived when it was found. Its number is not given to another while this is held.
#[derive(Debug)]
pub struct Running {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Running {
    /// The process that a pid file names, if it is what it is thought to be: the file may be of
    /// before a reboot, and its number another's by now.
    pub fn find(pid_file: &Path, identity: &Identity) -> Option<Self> {
        let text = fs::read_to_string(pid_file).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        // First held, then looked at.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let command_line = command_line(pid, &pidfd)?;
        identity.is(&command_line).then_some(Self { pid, pidfd })
    }

    /// Of a daemon that has just been started: its pid file is on its way.
    pub fn await_start(pid_file: &Path, identity: &Identity) -> Option<Self> {
        let deadline = Instant::now() + APPEARING;
        loop {
            match Self::find(pid_file, identity) {
                None if Instant::now() < deadline => thread::sleep(POLL),
                found => return found,
            }
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether this is its network namespace.
    pub fn is_in(&self, namespace: &File) -> bool {
        let own = fs::metadata(of_process(self.pid, "ns/net"));
        let identity = |it: fs::Metadata| (it.dev(), it.ino());
        own.is_ok_and(|own| namespace.metadata().is_ok_and(|it| identity(it) == identity(own)))
    }

    /// To one that has ended, nothing is sent.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::Signal { pid: self.pid(), error: errno.into() }),
        }
    }

    /// Whether it comes to its end within this time.
    pub fn ends(&self, patience: Duration) -> bool {
        ends(&self.pidfd, patience)
    }

    /// Asks it to end, and after this time ends it with all its children. Returns when it is gone.
    pub fn stop(&self, patience: Duration) -> Result<(), Error> {
        self.signal(Signal::TERM)?;
        if self.ends(patience) {
            return Ok(());
        }
        // A daemon leads a group that its children are in.
        if getpgid(Some(self.pid)).is_ok_and(|group| group == self.pid) {
            // It fails only where all have ended.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        self.signal(Signal::KILL)?;
        if self.ends(DYING) { Ok(()) } else { Err(Error::Immortal { pid: self.pid() }) }
    }
}

/// None of a zombie, which nobody has waited for.
fn command_line(pid: Pid, pidfd: &OwnedFd) -> Option<Vec<u8>> {
    let deadline = Instant::now() + EXECUTING;
    loop {
        let line = fs::read(of_process(pid, "cmdline")).ok()?;
        if !line.is_empty() {
            return Some(line);
        }
        // In the middle of an exec, as HAProxy's reload is one, it is empty too.
        if ends(pidfd, POLL) || Instant::now() > deadline {
            return None;
        }
    }
}

fn of_process(pid: Pid, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join(file)
}

/// Whether a process comes to its end within this time.
fn ends(pidfd: &OwnedFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], timeout.as_ref())
        {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// How often what dies again and again is started again.
#[derive(Clone, Debug, Default)]
pub struct Restarts(VecDeque<Instant>);

impl Restarts {
    const AT_MOST: usize = 5;
    const IN: Duration = Duration::from_secs(60);

    /// Whether one more is fitting now; if so it counts.
    pub fn one_more(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|at| now.saturating_duration_since(*at) >= Self::IN) {
            self.0.pop_front();
        }
        let fitting = self.0.len() < Self::AT_MOST;
        if fitting {
            self.0.push_back(now);
        }
        fitting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn what_becomes_of_a_program() {
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let rows = [
            ("its words", shell("echo a; echo b >&2; cat"), LONG, Ok("a\nb\nin".to_owned())),
            (
                "its environment",
                shell("cat >/dev/null; echo $HOME; pwd"),
                LONG,
                Ok("\n/\n".to_owned()),
            ),
            (
                "it fails",
                shell("echo why >&2; exit 3"),
                LONG,
                Err("/bin/sh: exit status: 3: why".to_owned()),
            ),
            ("a daemon keeps its outputs", shell("sleep 1 & echo up"), LONG, Ok("up\n".to_owned())),
            (
                "too slow",
                shell("exec sleep 60"),
                Duration::ZERO,
                Err("/bin/sh has not come to an end in 0 s".to_owned()),
            ),
            (
                "not there",
                Command::new("/none"),
                LONG,
                Err("/none does not start: No such file or directory (os error 2)".to_owned()),
            ),
        ];
        for (row, mut command, patience, want) in rows {
            let ran = run(None, &mut command, b"in", patience);
            assert_eq!(ran.map_err(|error| error.to_string()), want, "{row}");
        }
    }

    #[test]
    fn the_last_lines() {
        let line = format!("{}\n", "é".repeat(30));
        let many = line.repeat(100);
        assert_eq!(last(&many), many.trim_end()[(100 - 67) * line.len()..].trim_end());
        assert_eq!(last("a\nb\n"), "a\nb");
        assert_eq!(last(&"x".repeat(5000)), "");
    }

    #[test]
    fn identities() {
        let identity = Identity {
            program: "/usr/sbin/haproxy".into(),
            arguments: vec!["-p".into(), "/a/a.pid".into()],
        };
        let rows: [(&str, &[u8], bool); 6] = [
            ("it", b"/usr/sbin/haproxy\0-W\0-p\0/a/a.pid\0-L\0x\0", true),
            ("by its name alone", b"haproxy\0-p\0/a/a.pid\0", true),
            ("of another", b"haproxy\0-p\0/b/b.pid\0", false),
            ("in another order", b"haproxy\0/a/a.pid\0-p\0", false),
            ("another program", b"keepalived\0-p\0/a/a.pid\0", false),
            ("a zombie", b"", false),
        ];
        for (row, command_line, want) in rows {
            assert_eq!(identity.is(command_line), want, "{row}");
        }
    }

    #[test]
    fn found_and_ended() {
        let directory = std::env::temp_dir();
        let pid_file = directory.join(format!("xdp-lb-child-{}.pid", std::process::id()));
        let identity =
            |seconds: &str| Identity { program: "sleep".into(), arguments: vec![seconds.into()] };
        let mut child = Command::new("sleep").arg("61").spawn().unwrap();
        fs::write(&pid_file, format!("{}\n", child.id())).unwrap();
        // Right behind the spawn it may have the command line of this test still.
        let found = Running::await_start(&pid_file, &identity("61")).unwrap();
        assert_eq!(found.pid() as u32, child.id());
        assert!(found.is_in(&File::open("/proc/self/ns/net").unwrap()));
        assert!(!found.is_in(&File::open("/proc/self/ns/mnt").unwrap()));
        assert!(Running::find(&pid_file, &identity("62")).is_none(), "a number of another's");
        assert!(!found.ends(Duration::ZERO));
        found.stop(LONG).unwrap();
        assert!(Running::find(&pid_file, &identity("61")).is_none(), "a zombie");
        child.wait().unwrap();
        found.signal(Signal::TERM).unwrap();
        fs::remove_file(&pid_file).unwrap();
        assert!(Running::find(&pid_file, &identity("61")).is_none(), "no file");
    }

    #[test]
    fn one_that_will_not_end_is_killed() {
        let directory = std::env::temp_dir();
        let pid_file = directory.join(format!("xdp-lb-deaf-{}.pid", std::process::id()));
        let mut command = Command::new("sh");
        // What is ignored stays so in the program that follows.
        command.args(["-c", "trap '' TERM; echo $$ > $0; exec sleep 62"]);
        let mut child = command.arg(&pid_file).spawn().unwrap();
        let identity = Identity { program: "sleep".into(), arguments: vec!["62".into()] };
        let found = Running::await_start(&pid_file, &identity).unwrap();
        found.stop(Duration::ZERO).unwrap();
        child.wait().unwrap();
        fs::remove_file(&pid_file).unwrap();
    }

    #[test]
    fn not_more_than_five_in_a_minute() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut restarts = Restarts::default();
        let fitting = [0, 1, 2, 3, 4, 5, 59, 60, 60, 61, 63].map(|it| restarts.one_more(at(it)));
        assert_eq!(fitting, [true, true, true, true, true, false, false, true, false, true, true]);
    }
}
