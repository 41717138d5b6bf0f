//! HAProxy of one load balancer: a daemon in its namespace that outlives us, brought to what is
//! wanted.

pub mod socket;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use agent_api::amphora::{self, Failed};
use agent_api::{Paths, durable};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::child::{self, Identity, Restarts, Running};
use crate::volatile;

/// To parse a configuration of the largest size, and to bind what it names.
const STARTING: Duration = Duration::from_secs(15);
/// It tries for two seconds to bind what another has.
const RELOADING: Duration = Duration::from_secs(20);
/// It closes its connections at once; after that it is not asked any more.
const STOPPING: Duration = Duration::from_secs(5);
const ANSWERING: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// What Octavia's image has in its base directory, since the group's name is the distribution's.
const USER_GROUP: &str = "haproxy-default-user-group.conf";
/// Beside it, of ours. Octavia asks for connections by the ten thousands, and a container may not have as
/// many files: then HAProxy serves as many as it can, instead of none (`strict-limits`, since 2.3 on).
const OWN: &str = "xdp-lb.cfg";
const LIMITS: &str = "global\n    no strict-limits\n";
/// Debian's group of `nobody`, which Octavia's configuration names.
const GROUP: &str = "    group nogroup\n";
/// What ends the name of the file that says what a process was started with.
const STARTED: &str = "started.json";
/// The controller puts what HAProxy says into its log.
const REASON_BYTES_MAX: usize = 4096;

/// The process of one load balancer. Its calls block, for seconds at most, one after the other.
///
/// In `run` lie, by the id of the load balancer: the configuration it reads, its master's socket,
/// and what the running process was started with. All are 0600. They are of no use after a reboot.
#[derive(Debug)]
pub struct Haproxy {
    load_balancer: String,
    program: PathBuf,
    paths: Paths,
    run: PathBuf,
    namespace: File,
    restarts: Mutex<Restarts>,
}

/// What became of HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was not touched.
    Unchanged,
    Started,
    /// Established connections go on with the process before, until they end.
    Reloaded,
    Stopped,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Child(#[from] child::Error),
    #[error(transparent)]
    File(#[from] durable::Error),
    #[error("{}: {error}", .path.display())]
    Path { path: PathBuf, error: io::Error },
    #[error("HAProxy refuses the configuration: {0}")]
    Refused(String),
    #[error("HAProxy does not start: {0}")]
    NotStarted(String),
    #[error("HAProxy has ended")]
    Ended,
    #[error("HAProxy does not answer at {}: {error}", .socket.display())]
    Silent { socket: PathBuf, error: io::Error },
    #[error(
        "HAProxy can read its new configuration and could not change to it: an address or a port \
         may be in use; it serves the old one"
    )]
    NotReloaded,
    #[error("HAProxy was not done with its reload after {} s", RELOADING.as_secs())]
    Reloading,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// What the running process was started with.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    peer: String,
    config: String,
    certificates: BTreeMap<String, String>,
}

impl Haproxy {
    /// Of the load balancer of this id, a UUID. `run` must be ours alone.
    pub fn new(
        load_balancer: &str,
        program: PathBuf,
        paths: Paths,
        run: PathBuf,
        namespace: File,
    ) -> Self {
        let load_balancer = load_balancer.to_owned();
        let restarts = Mutex::default();
        Self { load_balancer, program, paths, run, namespace, restarts }
    }

    /// Load balancers of which a HAProxy was started with this run directory, and not stopped.
    pub fn started(run: &Path) -> Result<Vec<String>, durable::Error> {
        let names = durable::names(run)?.into_iter();
        let suffix = format!(".{STARTED}");
        Ok(names.filter_map(|name| name.strip_suffix(&suffix).map(str::to_owned)).collect())
    }

    /// Whether HAProxy would take this configuration; what it says if not.
    ///
    /// A `group` of its own, which controllers before Octavia 4 wrote and the stock agent deletes,
    /// is not in it: the grammar of uploads has no such line.
    pub fn check(&self, haproxy: &amphora::Haproxy) -> Result<(), Failed> {
        let _turn = self.turn();
        Ok(self.try_config(haproxy)?)
    }

    /// Makes it so; with nothing wanted, it does not run.
    ///
    /// One that serves the same already is not touched. `wanted` is what HAProxy is to serve,
    /// without the listeners of XDP. After an error that leaves one running, that one serves as
    /// before.
    pub fn apply(&self, wanted: Option<&amphora::Haproxy>) -> Result<Applied, Failed> {
        let _turn = self.turn();
        Ok(self.bring(wanted)?)
    }

    /// Has it end when its connections have: what it serves is somebody else's from now on. One that
    /// was told so before and has not come to its end yet is ended.
    pub fn retire(&self) -> Result<Applied, Failed> {
        let _turn = self.turn();
        Ok(self.leave()?)
    }

    /// Starts it again if it has died. To be called every second; it returns at once while
    /// [`apply`] is at work.
    ///
    /// [`apply`]: Self::apply
    pub fn supervise(&self) {
        let mut restarts = match self.restarts.try_lock() {
            Ok(restarts) => restarts,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if !self.record_path().exists() || self.running().is_some() {
            return;
        }
        let Some(wanted) = self.recorded() else { return };
        if !restarts.one_more(Instant::now()) {
            return;
        }
        let load_balancer = &self.load_balancer;
        warn!("HAProxy of load balancer {load_balancer} has died and is started again");
        if let Err(error) = self.start(&wanted) {
            warn!("HAProxy of load balancer {load_balancer}: {error}");
        }
    }

    /// Process id of the master, if it runs.
    pub fn pid(&self) -> Option<i32> {
        Some(self.running()?.pid())
    }

    /// What it serves, if it runs.
    pub fn serves(&self) -> Option<amphora::Haproxy> {
        self.running().and_then(|_| self.recorded())
    }

    fn turn(&self) -> MutexGuard<'_, Restarts> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bring(&self, wanted: Option<&amphora::Haproxy>) -> Result<Applied, Error> {
        match (self.running(), wanted) {
            (None, None) => {
                self.end_leaving()?;
                self.clear()?;
                Ok(Applied::Unchanged)
            }
            (Some(running), None) => {
                self.end_leaving()?;
                self.stop(&running)?;
                Ok(Applied::Stopped)
            }
            (None, Some(wanted)) => {
                // The members' states are of a process that is no more, and may be long past.
                remove(&self.paths.haproxy_state(&self.load_balancer))?;
                self.start(wanted)?;
                Ok(Applied::Started)
            }
            (Some(running), Some(wanted)) => match self.recorded() {
                Some(old) if old == *wanted => Ok(Applied::Unchanged),
                // A reload has the arguments of the start, the peer's name among them.
                Some(old) if old.peer != wanted.peer => {
                    self.try_config(wanted)?;
                    self.save_state();
                    self.stop(&running)?;
                    self.start(wanted)?;
                    Ok(Applied::Started)
                }
                Some(_) | None => {
                    self.reload(&running, wanted)?;
                    Ok(Applied::Reloaded)
                }
            },
        }
    }

    fn start(&self, wanted: &amphora::Haproxy) -> Result<(), Error> {
        // Ours in a namespace that is no more would keep the sockets.
        if let Some(astray) = Running::find(&self.pid_file(), &self.identity()) {
            astray.stop(STOPPING)?;
        }
        let directory = self.paths.load_balancer(&self.load_balancer);
        fs::create_dir_all(&directory).map_err(|error| Error::Path { path: directory, error })?;
        let config = self.config_path();
        volatile::write(&config, 0o600, wanted.config.text().as_bytes())?;
        let mut command = self.command(&wanted.peer, &config)?;
        let master = format!("{},mode,600", self.master_socket().display());
        command.args(["-W", "-D", "-p"]).arg(self.pid_file()).args(["-S", &master]);
        // It has bound all its addresses when it becomes a daemon.
        child::run(Some(&self.namespace), &mut command, b"", STARTING)
            .map_err(|error| self.said(error, Error::NotStarted))?;
        let started = Running::await_start(&self.pid_file(), &self.identity());
        let running = started.ok_or(Error::Ended)?;
        self.until_answering(&running)?;
        self.note(wanted)?;
        info!("HAProxy of load balancer {} is process {}", self.load_balancer, running.pid());
        Ok(())
    }

    fn reload(&self, running: &Running, wanted: &amphora::Haproxy) -> Result<(), Error> {
        self.try_config(wanted)?;
        let socket = self.master_socket();
        let before = socket::master(&socket, ANSWERING)
            .map_err(|error| Error::Silent { socket: socket.clone(), error })?;
        self.save_state();
        let config = self.config_path();
        let old = durable::read(&config)?;
        volatile::write(&config, 0o600, wanted.config.text().as_bytes())?;
        running.signal(Signal::USR2)?;
        match self.reloaded(running, before) {
            Ok(()) => {
                self.note(wanted)?;
                info!("HAProxy of load balancer {} was reloaded", self.load_balancer);
                Ok(())
            }
            Err(error) => {
                // The next reload, whoever asks for it, is not to find what has failed.
                if let Some(old) = old {
                    volatile::write(&config, 0o600, &old)?;
                }
                Err(error)
            }
        }
    }

    /// Waits until the new worker answers.
    fn reloaded(&self, running: &Running, before: socket::Master) -> Result<(), Error> {
        let deadline = Instant::now() + RELOADING;
        // While it reads its configuration, the master's socket answers nobody.
        while Instant::now() < deadline {
            if running.ends(POLL) {
                return Err(Error::Ended);
            }
            let Ok(now) = socket::master(&self.master_socket(), ANSWERING) else { continue };
            match now.worker {
                _ if now.reloads == before.reloads => {}
                None => return Err(Error::NotReloaded),
                Some(worker) => {
                    if socket::worker(&self.stats_socket(), ANSWERING).is_ok_and(|it| it == worker)
                    {
                        return Ok(());
                    }
                }
            }
        }
        Err(Error::Reloading)
    }

    fn until_answering(&self, running: &Running) -> Result<(), Error> {
        let deadline = Instant::now() + STARTING;
        loop {
            match socket::worker(&self.stats_socket(), ANSWERING) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline || running.ends(POLL) => {
                    return Err(Error::Silent { socket: self.stats_socket(), error });
                }
                Err(_) => {}
            }
        }
    }

    /// Ends it as the stock agent does, with SIGTERM: its connections are closed at once. A load
    /// balancer that was disabled or deleted carries nothing more, however long its connections
    /// would last.
    fn stop(&self, running: &Running) -> Result<(), Error> {
        running.stop(STOPPING)?;
        info!("HAProxy of load balancer {} was stopped", self.load_balancer);
        self.clear()
    }

    /// It listens no more and ends with its last connection (SIGUSR1, `soft-stop`).
    fn leave(&self) -> Result<Applied, Error> {
        let Some(running) = self.running() else {
            self.clear()?;
            return Ok(Applied::Unchanged);
        };
        self.end_leaving()?;
        let (pid, leaving) = (self.pid_file(), self.leaving_file());
        fs::rename(&pid, &leaving).map_err(|error| Error::Path { path: leaving, error })?;
        running.signal(Signal::USR1)?;
        let load_balancer = &self.load_balancer;
        info!("HAProxy of load balancer {load_balancer} ends with its last connection");
        self.clear()?;
        Ok(Applied::Stopped)
    }

    fn end_leaving(&self) -> Result<(), Error> {
        let file = self.leaving_file();
        if let Some(leaving) = Running::find(&file, &self.identity()) {
            leaving.stop(STOPPING)?;
        }
        remove(&file)
    }

    /// Removes what a process that is no more has left, the record first: it is not wanted any
    /// more.
    fn clear(&self) -> Result<(), Error> {
        let left = [
            self.record_path(),
            self.config_path(),
            self.stats_socket(),
            self.master_socket(),
            self.pid_file(),
        ];
        left.iter().try_for_each(|path| remove(path))
    }

    /// Has HAProxy read it, as a whole.
    fn try_config(&self, haproxy: &amphora::Haproxy) -> Result<(), Error> {
        let path = self.run_file("tried.cfg");
        volatile::write(&path, 0o600, haproxy.config.text().as_bytes())?;
        let checked = self.command(&haproxy.peer, &path).and_then(|mut command| {
            child::run(None, command.arg("-c"), b"", STARTING)
                .map_err(|error| self.said(error, Error::Refused))
        });
        remove(&path)?;
        checked.map(drop)
    }

    /// The arguments that are of every start. The peer's name begins with no dash.
    fn command(&self, peer: &str, config: &Path) -> Result<Command, Error> {
        let mut command = Command::new(&self.program);
        command.args(["-L", peer, "-f"]).arg(config);
        let image = self.paths.base().join(USER_GROUP);
        let mut content = LIMITS.to_owned();
        if image.exists() {
            command.arg("-f").arg(image);
        } else {
            content += GROUP;
        }
        let own = self.run.join(OWN);
        if durable::read(&own)?.as_deref() != Some(content.as_bytes()) {
            volatile::write(&own, 0o600, content.as_bytes())?;
        }
        command.arg("-f").arg(own);
        Ok(command)
    }

    /// What HAProxy said of a configuration, if it said something.
    fn said(&self, error: child::Error, of: fn(String) -> Error) -> Error {
        match error {
            child::Error::Failed { said, .. } if !said.trim().is_empty() => {
                let paths = [self.run_file("tried.cfg"), self.config_path()];
                of(reason(&said, &paths.map(|path| path.display().to_string())))
            }
            error => error.into(),
        }
    }

    /// The members that are down stay so over a reload. It can do without.
    fn save_state(&self) {
        let path = self.paths.haproxy_state(&self.load_balancer);
        let state = socket::ask(&self.stats_socket(), "show servers state", ANSWERING);
        let saved = match state {
            Ok(state) => {
                volatile::write(&path, 0o600, state.as_bytes()).map_err(|it| it.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = saved {
            warn!(
                "the states of members of load balancer {} are lost: {error}",
                self.load_balancer
            );
        }
    }

    fn note(&self, wanted: &amphora::Haproxy) -> Result<(), Error> {
        let record = Record {
            peer: wanted.peer.clone(),
            config: wanted.config.text().to_owned(),
            certificates: wanted.certificates.clone(),
        };
        let path = self.record_path();
        let text = serde_json::to_vec(&record)
            .map_err(|error| Error::Path { path: path.clone(), error: error.into() })?;
        Ok(volatile::write(&path, 0o600, &text)?)
    }

    /// None also where it cannot be understood: then it is to be reloaded, and noted again.
    fn recorded(&self) -> Option<amphora::Haproxy> {
        let bytes = durable::read(&self.record_path()).ok()??;
        let Record { peer, config, certificates } = serde_json::from_slice(&bytes).ok()?;
        let config = agent_api::haproxy::parse(&config, &self.paths).ok()?;
        Some(amphora::Haproxy { peer, config, certificates })
    }

    fn running(&self) -> Option<Running> {
        let found = Running::find(&self.pid_file(), &self.identity());
        found.filter(|running| running.is_in(&self.namespace))
    }

    fn identity(&self) -> Identity {
        Identity::of(&self.program, &self.pid_file())
    }

    /// Where Octavia's own tools look for it.
    fn pid_file(&self) -> PathBuf {
        let directory = self.paths.load_balancer(&self.load_balancer);
        directory.join(format!("{}.pid", self.load_balancer))
    }

    /// Names the process that ends with its last connection. Beside the other, to be renamed to.
    fn leaving_file(&self) -> PathBuf {
        self.pid_file().with_extension("leaving")
    }

    fn stats_socket(&self) -> PathBuf {
        self.paths.haproxy_socket(&self.load_balancer)
    }

    fn master_socket(&self) -> PathBuf {
        master_socket(&self.run, &self.load_balancer)
    }

    fn config_path(&self) -> PathBuf {
        self.run_file("cfg")
    }

    fn record_path(&self) -> PathBuf {
        self.run_file(STARTED)
    }

    fn run_file(&self, extension: &str) -> PathBuf {
        self.run.join(format!("{}.{extension}", self.load_balancer))
    }
}

/// Where the master of a load balancer is asked.
pub fn master_socket(run: &Path, load_balancer: &str) -> PathBuf {
    run.join(format!("{load_balancer}.master"))
}

fn remove(path: &Path) -> Result<(), Error> {
    volatile::remove(path).map_err(|error| Error::Path { path: path.to_owned(), error })
}

/// The alerts of what HAProxy said, without its process and our paths; all of it where there are
/// none.
fn reason(said: &str, paths: &[String]) -> String {
    let alert = |line: &str| {
        let (_, alert) = line.strip_prefix("[ALERT]")?.split_once(" : ")?;
        Some(alert.trim().to_owned())
    };
    let alerts: Vec<String> = said.lines().filter_map(alert).collect();
    let mut reason = if alerts.is_empty() { said.trim().to_owned() } else { alerts.join("\n") };
    for path in paths {
        reason = reason.replace(path, "haproxy.cfg");
    }
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let rows = [
            (
                "[NOTICE]   (7) : haproxy version is 2.6.12\n\
                 [WARNING]  (7) : config : log format ignored\n\
                 [ALERT]    (7) : config : parsing [/run/x.cfg:33] : unknown keyword 'a : b'\n\
                 [ALERT]    (7) : config : Fatal errors found in configuration.\n",
                "config : parsing [haproxy.cfg:33] : unknown keyword 'a : b'\n\
                 config : Fatal errors found in configuration.",
            ),
            (
                "haproxy: cannot open shared object file\n",
                "haproxy: cannot open shared object file",
            ),
        ];
        for (said, want) in rows {
            assert_eq!(reason(said, &["/run/x.cfg".to_owned()]), want);
        }
        let long = format!("[ALERT] (7) : {}", "é".repeat(4096));
        assert_eq!(reason(&long, &[]).len(), REASON_BYTES_MAX);
    }
}
