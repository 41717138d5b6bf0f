//! The lab with everything started: servers on the members, `xdp-lb run` on the amphora.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agent_api::Name;
use anyhow::{Context, Result, bail, ensure};
use xdp_lb::kernel::Pins;
use xdp_lb::observe::Found;
use xdp_lb::record::State;
use xdp_lb_tests::balancer::beside;
use xdp_lb_tests::lab::{Lab, LabOptions, Process};
use xdp_lb_tests::servers::Server;
use xdp_lb_tests::signals::check;

use crate::document::{HTTP, UDP, WEIGHTS, document};

const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// Of a log that ends in an error.
const LOG_LINES: usize = 12;

/// All of it goes when this is dropped: the program, its pins, the namespaces, the directory.
pub struct Stand {
    pub name: Name,
    /// Holds `lb.toml` and `xdp-lb.log`.
    pub directory: PathBuf,
    daemon: Option<Process>,
    _servers: Vec<Server>,
    // After what runs in it.
    pub lab: Lab,
}

impl Stand {
    /// Ready to serve. `directory` must not be there yet.
    pub fn up(name: &str, directory: PathBuf) -> Result<Self> {
        let name = Name::try_from(name.to_owned())?;
        let lab = Lab::up(LabOptions { members: WEIGHTS.len() as u8, ..Default::default() })?;
        // Of one that was killed; the error of one that still runs says by which process.
        forget(&name)?;
        let mut servers = Vec::new();
        for member in &lab.members {
            servers.push(Server::http(member, HTTP)?);
            servers.push(Server::udp(member, UDP)?);
        }
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let mut stand = Self { name, directory, daemon: None, _servers: servers, lab };
        stand.write(None)?;
        stand.start()?;
        stand.settled(None)?;
        Ok(stand)
    }

    pub fn file(&self) -> PathBuf {
        self.directory.join("lb.toml")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("xdp-lb.log")
    }

    /// Writes the document, with the member `out` disabled.
    pub fn write(&self, out: Option<&str>) -> Result<()> {
        Ok(fs::write(self.file(), document(self.name.as_str(), &self.lab, out))?)
    }

    /// Starts `xdp-lb run` on the amphora.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(beside()?);
        command.arg("run").arg(self.file()).args(["--interface", "eth1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Ctrl-C is ours to answer.
        command.process_group(0);
        self.daemon = Some(self.lab.amphora.netns.spawn(&mut command)?);
        Ok(())
    }

    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Waits until all members but `out` take connections, and `out` takes none.
    pub fn settled(&mut self, out: Option<&str>) -> Result<()> {
        let began = Instant::now();
        let families = 2;
        let wanted = WEIGHTS.len() * families * families;
        loop {
            let found = Found::open(&self.name);
            let is =
                |member: &str| out.is_some_and(|out| member.split('-').any(|part| part == out));
            if let Ok(Found { record, daemon: Some(_), .. }) = found
                && record.backends.len() == wanted
                && record.backends.iter().all(|at| (at.state == State::Up) != is(&at.member))
            {
                return Ok(());
            }
            if let Some(daemon) = &mut self.daemon
                && let Some(status) = daemon.child.try_wait()?
            {
                bail!("xdp-lb run ended ({status}):\n{}", tail(&self.log()));
            }
            ensure!(began.elapsed() < PATIENCE, "xdp-lb is not ready:\n{}", tail(&self.log()));
            check()?;
            thread::sleep(POLL);
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.daemon = None;
        if let Err(error) = forget(&self.name) {
            eprintln!("xtask: {error:#}");
        }
        let _gone_already = fs::remove_dir_all(&self.directory);
    }
}

/// Takes the load balancer `name` off its interface and removes what it pinned.
pub fn forget(name: &Name) -> Result<()> {
    if !Pins::of(name).exist() {
        return Ok(());
    }
    let detach = Command::new(beside()?).args(["detach", "--name", name.as_str()]).output()?;
    let said = String::from_utf8_lossy(&detach.stderr);
    ensure!(detach.status.success(), "{}", said.trim());
    Ok(())
}

pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
