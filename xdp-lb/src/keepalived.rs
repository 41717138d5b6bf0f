//! keepalived, which speaks VRRP for an active-standby pair: a daemon in the namespace that
//! outlives us.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use agent_api::amphora::{Action, Failed};
use agent_api::{Paths, durable};
use rustix::process::Signal;
use tracing::{info, warn};

use crate::child::{self, Identity, Restarts, Running};

/// To read a configuration and become a daemon.
const STARTING: Duration = Duration::from_secs(5);
/// A daemon that does not like its configuration ends after it has become one, with status 0. On a
/// busy machine it has this long to find out.
const SETTLING: Duration = Duration::from_millis(300);
/// To take the VIPs off and to tell the other one.
const STOPPING: Duration = Duration::from_secs(5);

/// The one keepalived of an amphora. Its calls block, for seconds at most, one after the other.
#[derive(Debug)]
pub struct Keepalived {
    program: PathBuf,
    paths: Paths,
    namespace: File,
    facility: u8,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Shall run.
    wanted: bool,
    restarts: Restarts,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Child(#[from] child::Error),
    #[error("{}: {error}", .path.display())]
    Path { path: PathBuf, error: io::Error },
    #[error("no configuration of VRRP has been uploaded")]
    NoConfig,
    #[error("keepalived does not run with its configuration: {0}")]
    Ended(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl Keepalived {
    /// `facility` is the `local` facility of its log. One that runs already is kept running.
    pub fn new(program: PathBuf, paths: Paths, namespace: File, facility: u8) -> Self {
        let state = Mutex::new(State { wanted: false, restarts: Restarts::default() });
        let keepalived = Self { program, paths, namespace, facility, state };
        keepalived.state().wanted = keepalived.running();
        keepalived
    }

    /// Starts, stops or reloads it by the configuration that is stored. To start what runs is to
    /// reload it, to reload what does not run is to start it, and to stop it leaves its
    /// configuration.
    pub fn vrrp(&self, action: Action) -> Result<(), Failed> {
        let mut state = self.state();
        state.wanted = action != Action::Stop;
        match (action, self.found()) {
            (Action::Stop, None) => {}
            (Action::Stop, Some(running)) => {
                running.stop(STOPPING)?;
                info!("keepalived was stopped");
            }
            (Action::Start | Action::Reload, None) => self.start()?,
            (Action::Start | Action::Reload, Some(running)) => {
                running.signal(Signal::HUP)?;
                self.settled(&running)?;
                info!("keepalived was reloaded");
            }
        }
        Ok(())
    }

    /// Whether it runs, whoever started it.
    pub fn running(&self) -> bool {
        self.found().is_some()
    }

    /// Whether there is a configuration of VRRP and nobody who serves it: then the VIPs may be
    /// nowhere, and no heartbeat is to say that all is well (Octavia `health_daemon.py`).
    pub fn missing(&self) -> bool {
        self.paths.vrrp().exists() && !self.running()
    }

    /// Starts it again if it has died, other than the stock unit, which leaves it to the controller
    /// to replace the amphora. One that dies again and again comes to that too: it is [`missing`]
    /// for most of the time. To be called every second.
    ///
    /// [`missing`]: Self::missing
    pub fn supervise(&self) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if !state.wanted || !self.missing() || !state.restarts.one_more(Instant::now()) {
            return;
        }
        warn!("keepalived has died and is started again");
        if let Err(error) = self.start() {
            warn!("{error}");
        }
    }

    /// Writes the script by which it asks whether this amphora is well: a call of this program.
    /// Nothing happens to one that says so already.
    pub fn write_check(&self, program: &Path, arguments: &[&OsStr]) -> Result<(), Failed> {
        let script = script(program, arguments);
        let path = self.paths.vrrp_check();
        let mode = fs::metadata(&path).map(|it| it.permissions().mode() & 0o7777);
        if mode.is_ok_and(|mode| mode == 0o755) && fs::read(&path).is_ok_and(|old| old == script) {
            return Ok(());
        }
        durable::write(&path, 0o755, &script).map_err(|error| Failed(error.to_string()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> Result<(), Error> {
        let config = self.paths.vrrp();
        if !config.exists() {
            return Err(Error::NoConfig);
        }
        // Ours in a namespace that is no more.
        if let Some(astray) = Running::find(&self.pid_file(), &self.identity()) {
            astray.stop(STOPPING)?;
        }
        // With a number in it that is anybody's, keepalived believes to run already and says that
        // all is well.
        for path in [self.pid_file(), self.vrrp_pid_file()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Path { path, error });
                }
                Ok(()) | Err(_) => {}
            }
        }
        let mut command = Command::new(&self.program);
        // As the stock unit, but for its second pid file, which is the same for all of a machine,
        // and the parts that are not VRRP.
        command.arg(format!("--log-facility={}", self.facility)).arg("--vrrp").arg("-f");
        command.arg(&config).arg("-p").arg(self.pid_file()).arg("-r").arg(self.vrrp_pid_file());
        child::run(Some(&self.namespace), &mut command, b"", STARTING)?;
        let started = Running::await_start(&self.pid_file(), &self.identity());
        let running = started.ok_or_else(|| Error::Ended(self.complaint()))?;
        self.settled(&running)?;
        info!("keepalived is process {}", running.pid());
        Ok(())
    }

    fn settled(&self, running: &Running) -> Result<(), Error> {
        if running.ends(SETTLING) { Err(Error::Ended(self.complaint())) } else { Ok(()) }
    }

    /// What it says of its configuration, which it otherwise only logs. It calls valid ones of
    /// Octavia's invalid too, so that this does not decide anything.
    fn complaint(&self) -> String {
        let mut command = Command::new(&self.program);
        command.arg("--config-test").arg("-f").arg(self.paths.vrrp());
        match child::run(Some(&self.namespace), &mut command, b"", STARTING) {
            Ok(_) => "it ended without a reason".to_owned(),
            Err(child::Error::Failed { said, .. }) => said.trim().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn found(&self) -> Option<Running> {
        let found = Running::find(&self.pid_file(), &self.identity());
        found.filter(|running| running.is_in(&self.namespace))
    }

    fn identity(&self) -> Identity {
        Identity::of(&self.program, &self.pid_file())
    }

    /// Where the stock agent has it.
    fn pid_file(&self) -> PathBuf {
        self.paths.vrrp().with_extension("pid")
    }

    fn vrrp_pid_file(&self) -> PathBuf {
        self.paths.vrrp().with_extension("vrrp.pid")
    }
}

/// For `sh`, which is no part of it for longer than it takes to begin.
fn script(program: &Path, arguments: &[&OsStr]) -> Vec<u8> {
    let mut script = b"#!/bin/sh\nexec".to_vec();
    for word in [program.as_os_str()].iter().chain(arguments) {
        script.extend_from_slice(b" '");
        for byte in word.as_bytes() {
            match byte {
                b'\'' => script.extend_from_slice(br"'\''"),
                byte => script.push(*byte),
            }
        }
        script.push(b'\'');
    }
    script.push(b'\n');
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        let rows = [
            (
                "/usr/bin/xdp-lb",
                &["check", "--name", "a-1"][..],
                "#!/bin/sh\nexec '/usr/bin/xdp-lb' 'check' '--name' 'a-1'\n",
            ),
            ("/it's $HOME", &[], "#!/bin/sh\nexec '/it'\\''s $HOME'\n"),
        ];
        for (program, arguments, want) in rows {
            let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
            let script = script(Path::new(program), &arguments);
            assert_eq!(String::from_utf8(script).unwrap(), want);
        }
    }
}
