//! Octavia's health manager as a process, with a database of its own (`tests/octavia/health_manager.py`).

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::octavia::script;

/// Of Octavia that is run.
const RELEASE: &str = "19.0.0";
/// For what a heartbeat comes to in the database.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Dropped, it is gone with its database.
pub struct Manager {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    socket: UdpSocket,
    _folder: TempDir,
}

impl Manager {
    /// With a load balancer in its database, as the script wants it described.
    pub fn start(wanted: &Value) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut child = script(RELEASE, "health_manager.py")
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = child.stdin.take().context("a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut manager = Self { child, asks, answers, socket, _folder: folder };
        let port: u16 = manager.ask(&wanted.to_string())?.parse()?;
        manager.socket.connect((Ipv4Addr::LOCALHOST, port))?;
        Ok(manager)
    }

    /// A heartbeat as an amphora sends it.
    pub fn hears(&self, datagram: &[u8]) -> Result<()> {
        self.socket.send(datagram)?;
        Ok(())
    }

    /// What its database holds.
    pub fn held(&mut self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("")?)?)
    }

    /// Waits until the database holds what it must.
    pub fn held_when(&mut self, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let held = self.held()?;
            if good(&held) {
                return Ok(held);
            }
            ensure!(Instant::now() < end, "the database never had {what}: {held}");
            sleep(POLL);
        }
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.asks, "{line}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the health manager has ended");
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Manager {
    /// It leads a group of the processes that it made.
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, killpg};
        if let Ok(pid) = self.child.id().try_into() {
            let _ = killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
