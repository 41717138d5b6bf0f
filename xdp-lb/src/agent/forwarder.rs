//! The packet path of an amphora, on a thread of its own in the namespace.
//!
//! Attaching, sysctls and the device map go by the network namespace of the thread that asks, so the
//! thread stays inside, and is told by messages.

use std::io;
use std::time::Duration;

use agent_api::Name;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::balancer::{self, Balancer, Interfaces, Serving, ticks};
use crate::health::Standings;
use crate::kernel::{FrameLog, Pins, Sizes, SourcePorts};
use crate::lock;
use crate::namespace::Namespace;
use crate::net::Watch;
use crate::observe::stats::Stats;
use crate::observe::status::Count;
use crate::plug::VIP_INTERFACE;
use crate::record::{Record, Standing};

/// After a failure it is tried again this much later, or when it is told what to serve.
const RETRY: Duration = Duration::from_secs(5);

/// For an answer of the thread. To load the program takes a third of a second, and tens of it on a machine
/// that is that busy.
const ALIVE: Duration = Duration::from_secs(20);

/// Commands that wait; each comes from a task that waits for its answer.
const COMMANDS: usize = 16;

/// Source ports towards members. The rest, the dynamic ports of RFC 6335, are HAProxy's: 16,384
/// connections to each member. The same on every amphora, so that the two of a pair choose alike.
const SOURCE_PORTS: SourcePorts = SourcePorts { low: 1024, span: 49_152 - 1024 };

/// Where tenants' logs go: rsyslog of an amphora listens there, and HAProxy is told no other.
const LOG_SOCKET: &str = "/run/rsyslog/octavia/log";

/// The thread's other end. It stops when this is dropped, and leaves everything in place.
#[derive(Debug)]
pub struct Forwarder {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
}

/// Whether the packet path is where the VIPs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is known against it: it has not been told what to serve, or has no interface yet.
    Waits,
    Attached,
    /// It cannot be, and why.
    Fails(String),
}

#[derive(Debug)]
enum Command {
    Serve(Box<Serving>, oneshot::Sender<Result<(), String>>),
    Look(oneshot::Sender<()>),
    Ping(oneshot::Sender<()>),
    Observe(oneshot::Sender<Option<Observed>>),
}

/// What went through, and how the members stand that are probed.
#[derive(Debug)]
pub struct Observed {
    pub stats: Stats,
    pub standings: Standings,
    /// Frames that were not forwarded.
    pub frames: Vec<Count>,
}

impl Forwarder {
    /// Nothing changes before the first [`serve`](Self::serve): what an earlier start has left goes on.
    pub fn start(
        name: Name,
        namespace: Namespace,
        frame_log: Option<FrameLog>,
    ) -> io::Result<Self> {
        let (commands, received) = mpsc::channel(COMMANDS);
        let (told, state) = watch::channel(State::Waits);
        let thread = Thread { name, frame_log, commands: received, state: told };
        let run = move || namespace.enter(|| thread.run());
        std::thread::Builder::new().name("forwarder".to_owned()).spawn(run)?;
        Ok(Self { commands, state })
    }

    /// Serves this from now on; where that cannot be, what was served before.
    pub async fn serve(&self, serving: Serving) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Serve(Box::new(serving), answer)).await;
        answered.await.unwrap_or_else(|_| Err("the packet path's thread has ended".to_owned()))
    }

    /// Returns when it has seen the network as it is now, and is attached if it can be.
    pub async fn look(&self) {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Look(answer)).await;
        // A thread that has ended has told why.
        let _ = answered.await;
    }

    /// None while it does not run.
    pub async fn observe(&self) -> Option<Observed> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Observe(answer)).await;
        answered.await.ok().flatten()
    }

    /// Whether its thread goes on: an answer within a while. It answers whatever it is at, but for the
    /// time it takes to load the program.
    pub async fn is_alive(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.tell(Command::Ping(answer)).await;
            answered.await.is_ok()
        };
        timeout(ALIVE, asked).await.unwrap_or(false)
    }

    /// Why it cannot be where the VIPs are, if so. Known once it was told what to serve.
    pub fn broken(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Fails(why) => Some(why.clone()),
            State::Waits | State::Attached => None,
        }
    }

    /// Whether the thread has come to an end, which it does for no reason but a panic.
    pub fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    async fn tell(&self, command: Command) {
        // To a thread that has ended, nothing can be told: its answer is missing too.
        let _ = self.commands.send(command).await;
    }
}

struct Thread {
    name: Name,
    frame_log: Option<FrameLog>,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<State>,
}

/// What is to be served, and who waits to hear how that went.
struct Told {
    serving: Serving,
    answer: Option<oneshot::Sender<Result<(), String>>>,
}

impl Told {
    fn answer(&mut self, how: Result<(), String>) {
        if let Some(answer) = self.answer.take() {
            tell(answer, how);
        }
    }
}

/// Who has gone away asks again.
fn tell<T>(answer: oneshot::Sender<T>, what: T) {
    let _ = answer.send(what);
}

impl Thread {
    fn run(mut self) {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return self.is(State::Fails(error.to_string())),
        };
        runtime.block_on(async {
            let mut told = self.told(None).await;
            while let Some(mut now) = told {
                match self.begin(now.serving.clone()).await {
                    Ok((balancer, watch)) => {
                        self.attached(balancer.record());
                        now.answer(balancer.record().error.clone().map_or(Ok(()), Err));
                        match self.forward(balancer, watch, &mut now.serving).await {
                            Ok(()) => return,
                            Err(why) => self.fails(why, &now.serving),
                        }
                    }
                    Err(why) => {
                        self.fails(why.clone(), &now.serving);
                        now.answer(Err(why));
                    }
                }
                told = self.told(Some(now.serving)).await;
            }
        });
    }

    /// What to serve: what is said next or, after a while, again what was said before. None where
    /// nobody is left to say anything.
    async fn told(&mut self, before: Option<Serving>) -> Option<Told> {
        let again = Instant::now() + RETRY;
        loop {
            let command = match &before {
                Some(serving) => match timeout_at(again, self.commands.recv()).await {
                    Ok(command) => command,
                    Err(_) => return Some(Told { serving: serving.clone(), answer: None }),
                },
                None => self.commands.recv().await,
            };
            match command? {
                Command::Serve(serving, answer) => {
                    return Some(Told { serving: *serving, answer: Some(answer) });
                }
                Command::Look(answer) | Command::Ping(answer) => tell(answer, ()),
                Command::Observe(answer) => tell(answer, None),
            }
        }
    }

    async fn begin(&self, serving: Serving) -> Result<(Balancer, Watch), String> {
        let mut watch = Watch::new().map_err(|error| format!("netlink: {error}"))?;
        let options = balancer::Options {
            name: self.name.clone(),
            interfaces: Interfaces::Plugged,
            sizes: Sizes::default(),
            source_ports: SOURCE_PORTS,
            reserve: true,
            frame_log: self.frame_log,
            log_socket: Some(LOG_SOCKET.into()),
        };
        let desired = serving.desired.clone();
        let mut started = Balancer::start(options.clone(), serving.clone());
        if let Err(balancer::Error::Kernel(error)) = &started
            && error.lasts()
        {
            // Left there, it would forward what nobody keeps in step any more: before HAProxy, which
            // serves instead. Made anew, it may be taken: maps of another version never are.
            let pins = Pins::of(&self.name);
            if pins.exist() {
                warn!("what an earlier start has left is removed, connections too: {error}");
                pins.remove().map_err(|it| format!("{}: {it}", pins.directory().display()))?;
                started = Balancer::start(options, serving);
            }
        }
        let mut balancer = started.map_err(|error| error.to_string())?;
        balancer.meet(&desired, &mut watch).await;
        balancer.look(&watch).await.map_err(|error| error.to_string())?;
        Ok((balancer, watch))
    }

    /// Until nobody is left to tell it anything; an error is why it stopped before.
    async fn forward(
        &mut self,
        mut balancer: Balancer,
        mut watch: Watch,
        serving: &mut Serving,
    ) -> Result<(), String> {
        let mut ticks = ticks();
        loop {
            self.attached(balancer.record());
            let done = tokio::select! {
                command = self.commands.recv() => match command {
                    None => return Ok(()),
                    Some(Command::Serve(new, answer)) => {
                        balancer.meet(&new.desired, &mut watch).await;
                        let looked = balancer.look(&watch).await;
                        let served = balancer.serve((*new).clone());
                        if served.is_ok() {
                            *serving = *new;
                        }
                        tell(answer, served.map_err(|error| error.to_string()));
                        looked
                    }
                    Some(Command::Look(answer)) => {
                        let looked = balancer.look(&watch).await;
                        self.attached(balancer.record());
                        tell(answer, ());
                        looked
                    }
                    Some(Command::Ping(answer)) => {
                        tell(answer, ());
                        Ok(())
                    }
                    Some(Command::Observe(answer)) => {
                        let standings = balancer.standings();
                        let observed = balancer.stats().and_then(|stats| {
                            Ok(Observed { stats, standings, frames: balancer.frames()? })
                        });
                        tell(answer, observed.ok());
                        Ok(())
                    }
                },
                () = balancer.turned() => {
                    balancer.turn();
                    Ok(())
                }
                changed = watch.changed() => {
                    changed.map_err(|error| format!("netlink: {error}"))?;
                    balancer.look(&watch).await
                }
                _ = ticks.tick() => balancer.tick(&watch).await,
            };
            done.map_err(|error| error.to_string())?;
        }
    }

    fn attached(&self, record: &Record) {
        let vips = record.interfaces.iter().find(|it| it.name == VIP_INTERFACE);
        self.is(match vips.map(|it| &it.standing) {
            None | Some(Standing::Missing) => State::Waits,
            Some(Standing::Attached { .. }) => State::Attached,
            Some(Standing::Failed { why }) => State::Fails(why.clone()),
        });
    }

    /// Where it does not even start, it is told here what `xdp-lb status` shows.
    fn fails(&self, why: String, serving: &Serving) {
        let path = lock::run_file(&self.name, "json");
        let mut record = Record::read(&path).unwrap_or_default();
        record.name = self.name.to_string();
        record.pid = std::process::id();
        record.error = Some(why.clone());
        record.beside = serving.beside.clone();
        record.listeners.clear();
        record.backends.clear();
        if let Err(error) = record.write(&path) {
            warn!("{}: {error}", path.display());
        }
        self.is(State::Fails(why));
    }

    fn is(&self, state: State) {
        self.state.send_if_modified(|before| {
            if *before == state {
                return false;
            }
            if let State::Fails(why) = &state {
                warn!("XDP does not forward: {why}");
            } else {
                info!("XDP: {state:?}");
            }
            *before = state;
            true
        });
    }
}
