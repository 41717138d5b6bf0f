//! A network namespace by its name, and what is done inside it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::process::{Child, Command, Output, Stdio};
use std::{fs, thread};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::LabError;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// A named network namespace, open. The rest of the process stays as it is: the mounts (so
/// `/sys/fs/bpf` is there, which `ip netns exec` hides), the users, the pids.
#[derive(Debug)]
pub struct Netns {
    pub name: String,
    file: File,
}

impl Netns {
    /// One that is there.
    pub fn open(name: String) -> io::Result<Self> {
        let file = File::open(format!("{NAMES}/{name}"))?;
        Ok(Self { name, file })
    }

    /// That of a process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        Ok(Self { file: File::open(&path)?, name: path })
    }

    /// A new one that nobody else can name: it goes with the last handle, and what runs inside.
    pub fn unnamed(name: &str) -> io::Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        let made = thread::scope(|scope| scope.spawn(make).join());
        let file = made.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// By which other processes find it, for as long as this handle is there.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Another handle to the same namespace.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { name: self.name.clone(), file: self.file.try_clone()? })
    }

    /// Ids of the processes inside that run a program of this name.
    pub fn processes(&self, program: &str) -> Vec<i32> {
        let own = inode(&format!("{NAMES}/{}", self.name));
        let runs = |pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == program && inode(&format!("/proc/{pid}/ns/net")) == own
        };
        pids().filter(runs).collect()
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets made there stay there, and
    /// so do the threads and the processes it starts.
    ///
    /// # Panics
    ///
    /// When `work` does, or when the process has lost the right to enter.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|error| panic!("entering {}: {error}", self.name));
            work()
        };
        thread::scope(|scope| {
            scope.spawn(inside).join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a program inside. It is killed when the [`Process`] is dropped.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Process> {
        // A child is in the namespace of the thread that forks it.
        self.enter(|| command.spawn()).map(|child| Process { child })
    }

    /// Runs a program inside to its end, with its output caught.
    pub fn output(&self, command: &mut Command) -> io::Result<Output> {
        self.enter(|| command.stdin(Stdio::null()).output())
    }

    /// Runs a program inside that must succeed; what it wrote.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let ran = self.output(Command::new(program).args(arguments));
        let what = || format!("{program} {}", arguments.join(" "));
        succeeded(ran.map_err(|source| tool(program, source))?, what)
    }

    /// Runs lines of `ip` inside, all in one process.
    pub fn ip(&self, lines: &[String]) -> Result<(), LabError> {
        self.enter(|| ip(&[], lines))
    }

    /// Sets one of the `net.` sysctls, each of which a namespace has for itself: `ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        // What /proc/sys/net shows depends on the thread that looks.
        self.enter(|| fs::write(format!("/proc/sys/net/{key}"), value))
            .map_err(|source| LabError::Sysctl { key: key.to_owned(), source })
    }
}

/// A program in a namespace, killed and waited for when dropped.
#[derive(Debug)]
pub struct Process {
    pub child: Child,
}

impl Process {
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names that begin with `prefix`.
pub(super) fn names(prefix: &str) -> Vec<String> {
    // Without the directory there has never been a name.
    let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Removes the namespaces called `names`, and kills what still runs in them: a process would keep
/// its namespace, and the XDP programs in it, after the name has gone.
pub fn remove(names: &[String]) -> Result<(), LabError> {
    if names.is_empty() {
        return Ok(());
    }
    let inodes: Vec<u64> =
        names.iter().filter_map(|name| inode(&format!("{NAMES}/{name}"))).collect();
    for pid in pids() {
        let inside = inode(&format!("/proc/{pid}/ns/net")).is_some_and(|own| inodes.contains(&own));
        if inside && pid != std::process::id() as i32 {
            // It may just have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let lines: Vec<_> = names.iter().map(|name| format!("netns delete {name}")).collect();
    let deleted = ip(&["-force"], &lines);
    // Two processes may sweep the same leftover; what counts is that it has gone.
    if names.iter().any(|name| inode(&format!("{NAMES}/{name}")).is_some()) {
        deleted
    } else {
        Ok(())
    }
}

/// Of all processes.
fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn inode(path: &str) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Runs `ip` once for all of `lines`.
pub(super) fn ip(options: &[&str], lines: &[String]) -> Result<(), LabError> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| tool("ip", source))?;
    if let Some(mut stdin) = child.stdin.take() {
        // An `ip` that stops at a bad line closes its input; its own words say more.
        let _ = stdin.write_all(lines.join("\n").as_bytes());
    }
    succeeded(child.wait_with_output()?, || format!("ip:\n{}\n", lines.join("\n"))).map(drop)
}

fn succeeded(output: Output, command: impl Fn() -> String) -> Result<String, LabError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(LabError::Failed { command: command(), said: text(&output.stderr) })
}

fn tool(tool: &str, source: io::Error) -> LabError {
    LabError::Tool { tool: tool.to_owned(), source }
}
