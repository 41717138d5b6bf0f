//! The machine behind the door: interfaces, the packet path, HAProxy and keepalived, brought to what
//! the controller wants.
//!
//! One lock is held by whatever changes something, so that a request and the supervision do not meet.

mod calls;
mod last_words;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_api::amphora::{Action, Failed, Wanted};
use agent_api::config::Topology;
use agent_api::document::Plugs;
use agent_api::plug::VipPlug;
use agent_api::rules::Rule;
use agent_api::{AgentConfig, Paths};
use tokio::sync::{Mutex, MutexGuard, OnceCell, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use self::last_words::LastWords;
use super::engines::{Engines, Means};
use super::forwarder::Forwarder;
use crate::check::Expectation;
use crate::election::election;
use crate::haproxy::{Applied, Haproxy};
use crate::keepalived::Keepalived;
use crate::kernel::FrameLog;
use crate::namespace::Namespace;
use crate::plug::{Nics, Places, VIP_INTERFACE};
use crate::vitals::Programs;
use crate::{guard, lock};
pub use seen::Seen;

/// For a call that changes something. The longest, a plug, waits 30 s for an IPv6 address at most; the
/// controller gives up after 60 (Octavia `rest_request_read_timeout`).
const CALL_TIMEOUT: Duration = Duration::from_secs(50);

/// For who has the VIPs: keepalived's first check, and three advertisements of a second and a skew below one.
const ELECTION: Duration = Duration::from_secs(5);

/// What did not go well is tried again this much later, also without a request.
const AGAIN: Duration = Duration::from_secs(10);

/// Where keepalived is, as in the stock unit.
pub const KEEPALIVED: &str = "/usr/sbin/keepalived";

/// How this machine is set up, beside the agent's configuration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Name of the network namespace of the load balancer.
    pub namespace: String,
    /// This program, which VRRP's check calls.
    pub program: PathBuf,
    /// What the packet path tells of frames.
    pub frame_log: Option<FrameLog>,
}

/// The machine; what it is made of comes into being when something is plugged or served.
pub struct Machine {
    config: watch::Receiver<Arc<AgentConfig>>,
    setup: Setup,
    programs: Arc<Programs>,
    inside: OnceCell<Inside>,
    state: Mutex<State>,
    /// Once something was applied, well or not.
    brought: AtomicBool,
    /// One exposition at a time: it takes memory.
    exposing: Mutex<()>,
    /// What workers of HAProxy had counted before a reload, some of which are no more, and whether it was
    /// observed since.
    last_words: LastWords,
}

struct Inside {
    namespace: Namespace,
    nics: Nics,
    forwarder: Forwarder,
    keepalived: Arc<Keepalived>,
}

#[derive(Default)]
struct State {
    wanted: Wanted,
    /// As it was divided the last time that all went well.
    engines: Option<Engines>,
    /// Why the packet path could not be attached then.
    broken: Option<String>,
    /// When it is to be tried again, while it has not.
    again: Option<Instant>,
    /// What was plugged before the start and has not come back yet.
    missing: Option<Plugs>,
    vip: Option<VipPlug>,
    rules: Option<Vec<Rule>>,
    /// By load balancer; those that need not run too.
    haproxy: BTreeMap<String, Arc<Haproxy>>,
}

impl State {
    /// Who may come in where no security group says it. Before the first rules nobody.
    fn guarded(&self) -> Option<&[Rule]> {
        let sriov = self.vip.as_ref().is_some_and(|vip| vip.sriov);
        sriov.then(|| self.rules.as_deref().unwrap_or_default())
    }

    /// What has not come back yet comes back as it is wanted by then.
    fn note_vip(&mut self, plug: &VipPlug) {
        self.vip = Some(plug.clone());
        if let Some(missing) = &mut self.missing {
            missing.vip = Some(plug.clone());
        }
    }
}

impl Machine {
    pub fn new(config: watch::Receiver<Arc<AgentConfig>>, setup: Setup) -> Self {
        let programs = Programs::new(config.borrow().haproxy_cmd.clone(), KEEPALIVED.into());
        Self {
            config,
            setup,
            programs: Arc::new(programs),
            inside: OnceCell::new(),
            state: Mutex::default(),
            brought: AtomicBool::new(false),
            exposing: Mutex::default(),
            last_words: LastWords::default(),
        }
    }

    /// Whether it is not known yet who serves what, since the agent has just started.
    pub fn is_starting(&self) -> bool {
        !self.brought.load(Ordering::Relaxed)
    }

    /// VRRP is configured, and nobody speaks it.
    pub fn vrrp_is_dead(&self) -> bool {
        self.inside.get().is_some_and(|inside| inside.keepalived.missing())
    }

    /// Whether the packet path's thread goes on, if there is one.
    pub async fn is_alive(&self) -> bool {
        match self.inside.get() {
            Some(inside) => inside.forwarder.is_alive().await,
            None => true,
        }
    }

    /// What is due each second, within the time of a call: processes that died are started again, and
    /// listeners find another engine when the packet path has broken or is mended.
    pub async fn supervise(&self) {
        let Ok(mut state) = self.state.try_lock() else { return };
        let deadline = deadline();
        let mut turned = false;
        if let Some(inside) = self.inside.get() {
            let (keepalived, haproxies) = (Arc::clone(&inside.keepalived), state.haproxy.clone());
            let supervised = blocking(move || {
                keepalived.supervise();
                haproxies.values().for_each(|haproxy| haproxy.supervise());
                Ok(())
            });
            if let Err(Failed(why)) = until(deadline, supervised).await {
                warn!("supervision: {why}");
            }
            turned = state.engines.is_some() && inside.forwarder.broken() != state.broken;
        }
        if turned {
            info!("listeners are divided anew");
        }
        if turned || state.again.is_some_and(|at| at <= Instant::now()) {
            let done = until(deadline, async {
                let plugged = self.plug_missing(&mut state).await;
                plugged.and(self.bring(&mut state).await)
            });
            if let Err(Failed(why)) = done.await {
                warn!("{why}");
            }
        }
    }

    /// Whether something has ended that only a new start brings back.
    pub fn is_lost(&self) -> bool {
        self.inside.get().is_some_and(|inside| inside.forwarder.has_ended())
    }

    fn paths(&self) -> Paths {
        self.config.borrow().paths()
    }

    fn topology(&self) -> Topology {
        self.config.borrow().loadbalancer_topology
    }

    async fn inside(&self) -> Result<&Inside, Failed> {
        let make = async || {
            let config = Arc::clone(&self.config.borrow());
            let run = lock::run_directory(&config.amphora_id);
            fs::create_dir_all(&run).map_err(failed(run.display()))?;
            let namespace = Namespace::open_or_make(&self.setup.namespace);
            // It has the name in it.
            let namespace = namespace.map_err(|error| Failed(error.to_string()))?;
            let clone = || namespace.try_clone().map_err(failed("the namespace"));
            let nics = Nics::open(clone()?, Places::of(&config.base_path));
            let nics = nics.map_err(failed("netlink"))?;
            let (id, frame_log) = (config.amphora_id.clone(), self.setup.frame_log);
            let forwarder = Forwarder::start(id, clone()?, frame_log);
            let forwarder = forwarder.map_err(failed("the packet path's thread"))?;
            let keepalived = Keepalived::new(
                KEEPALIVED.into(),
                config.paths(),
                file(&namespace)?,
                config.administrative_log_facility,
            );
            let keepalived = Arc::new(keepalived);
            Ok(Inside { namespace, nics, forwarder, keepalived })
        };
        self.inside.get_or_try_init(make).await
    }

    fn haproxy(&self, load_balancer: &str, inside: &Inside) -> Result<Arc<Haproxy>, Failed> {
        let config = self.config.borrow();
        let namespace = file(&inside.namespace)?;
        let run = lock::run_directory(&config.amphora_id);
        let program = config.haproxy_cmd.clone();
        Ok(Arc::new(Haproxy::new(load_balancer, program, config.paths(), run, namespace)))
    }

    /// Divides the listeners and brings everyone to his part.
    async fn bring(&self, state: &mut State) -> Result<(), Failed> {
        let idle = state.wanted == Wanted::default() && state.vip.is_none();
        if idle && self.inside.get().is_none() {
            return Ok(());
        }
        // Until all is well; also where the time is up in the middle.
        state.again = Some(Instant::now() + AGAIN);
        let inside = self.inside().await?;
        let mut done = Ok(());
        // A second time where it turns out only now whether the packet path can be attached.
        for _ in 0..2 {
            let broken = inside.forwarder.broken();
            done = self.divide(state, inside, broken.as_deref()).await;
            state.broken = inside.forwarder.broken();
            if state.broken == broken {
                break;
            }
        }
        if done.is_ok() && state.missing.is_none() {
            state.again = None;
        }
        done
    }

    /// Takes in what was plugged before the start and was not there then.
    async fn plug_missing(&self, state: &mut State) -> Result<(), Failed> {
        let Some(plugs) = state.missing.clone() else { return Ok(()) };
        state.again = Some(Instant::now() + AGAIN);
        // Never seen without its rules.
        self.guard_kernel(state.guarded().is_some(), state.rules.as_deref()).await?;
        self.inside().await?.nics.restore(&plugs, self.topology()).await?;
        state.missing = None;
        Ok(())
    }

    /// A listener that moves is HAProxy's and the packet path's for a moment, and the packet path comes
    /// first: it moves when it enters the maps, or leaves them. Only then HAProxy lets go of it.
    async fn divide(
        &self,
        state: &mut State,
        inside: &Inside,
        broken: Option<&str>,
    ) -> Result<(), Failed> {
        let name = self.config.borrow().amphora_id.clone();
        let on_marked_down = self.config.borrow().on_marked_down;
        let means = Means { broken, guarded: state.guarded(), on_marked_down };
        let engines = Engines::of(&state.wanted, &name, means);
        self.find_haproxies(state, inside)?;
        let moving = leaving_haproxy(state, &engines);
        self.expect(state, &engines)?;

        let beside = self.haproxies(state, inside, &engines, &moving).await;
        // Where HAProxy did not take them, the packet path keeps them as they were.
        let stranded = beside.is_err()
            && state.engines.as_ref().is_some_and(|before| {
                let mut forwarded = before.serving.desired.listeners.iter();
                forwarded.any(|listener| engines.haproxy.contains(&listener.id))
            });
        if !stranded {
            let served = inside.forwarder.serve(engines.serving.clone()).await;
            // That it is broken is known, and HAProxy serves instead of it what it can.
            if broken.is_none() {
                served.map_err(Failed)?;
            }
            // Nobody lets go of what the other cannot take after all: it is divided anew first.
            let now = inside.forwarder.broken();
            if now.as_deref() != broken {
                let back = || "the packet path has come back".to_owned();
                return Err(Failed(now.unwrap_or_else(back)));
            }
        }
        beside?;
        if !moving.is_empty() {
            self.haproxies(state, inside, &engines, &BTreeSet::new()).await?;
        }
        state.engines = Some(engines);
        Ok(())
    }

    /// Those that an earlier start has left: they may serve what is to move, or be wanted no more.
    fn find_haproxies(&self, state: &mut State, inside: &Inside) -> Result<(), Failed> {
        let run = lock::run_directory(&self.config.borrow().amphora_id);
        let left = Haproxy::started(&run).map_err(|error| Failed(error.to_string()))?;
        left.iter().try_for_each(|load_balancer| self.know(load_balancer, state, inside))
    }

    fn know(&self, load_balancer: &str, state: &mut State, inside: &Inside) -> Result<(), Failed> {
        if !state.haproxy.contains_key(load_balancer) {
            let haproxy = self.haproxy(load_balancer, inside)?;
            state.haproxy.insert(load_balancer.to_owned(), haproxy);
        }
        Ok(())
    }

    /// Brings each HAProxy to its part and `more` listeners.
    async fn haproxies(
        &self,
        state: &mut State,
        inside: &Inside,
        engines: &Engines,
        more: &BTreeSet<String>,
    ) -> Result<(), Failed> {
        let mut parts = engines.parts(&state.wanted, more);
        parts.keys().try_for_each(|load_balancer| self.know(load_balancer, state, inside))?;
        let mut done = Ok(());
        let held = self.hold_workers().await;
        for (load_balancer, haproxy) in &state.haproxy {
            let (part, process) = (parts.remove(load_balancer), Arc::clone(haproxy));
            let is_wanted = state.wanted.haproxy.contains_key(load_balancer);
            let applied = blocking(move || match part {
                // All of its listeners are XDP's: those who are connected are not to notice.
                None if is_wanted => process.retire(),
                part => process.apply(part.as_ref()),
            });
            let applied = applied.await;
            match applied {
                Ok(Applied::Unchanged) => {}
                Ok(applied) => info!("HAProxy of {load_balancer}: {applied:?}"),
                Err(error) => done = Err(error),
            }
        }
        self.last_words.let_go(held);
        let wanted = &state.wanted.haproxy;
        state.haproxy.retain(|id, haproxy| wanted.contains_key(id) || haproxy.pid().is_some());
        done
    }

    /// Tells VRRP's check what must hold from now on.
    fn expect(&self, state: &State, engines: &Engines) -> Result<(), Failed> {
        let xdp_listeners = engines.serving.desired.listeners.len();
        let parts = engines.parts(&state.wanted, &BTreeSet::new());
        let expectation = Expectation {
            xdp_listeners,
            interfaces: vec![VIP_INTERFACE.to_owned()],
            haproxy: parts.keys().map(|id| self.paths().haproxy_socket(id)).collect(),
        };
        let written = expectation.write(&self.config.borrow().amphora_id);
        written.map_err(|error| Failed(error.to_string()))
    }

    /// Has the kernel let in whom the rules name, where nobody else sees to it.
    async fn guard_kernel(&self, sriov: bool, rules: Option<&[Rule]>) -> Result<(), Failed> {
        if !sriov {
            return Ok(());
        }
        let ruleset = guard::ruleset(VIP_INTERFACE, rules);
        let namespace = file(&self.inside().await?.namespace)?;
        blocking(move || guard::load(&namespace, &ruleset)).await
    }

    /// Serves again, now that the interfaces are others. That the load balancer is not served is no
    /// failure of a plug.
    async fn plugged(&self, state: &mut State) -> Result<(), Failed> {
        if let Err(Failed(why)) = self.bring(state).await {
            warn!("{why}");
        }
        self.inside().await?.forwarder.look().await;
        Ok(())
    }

    /// Until somebody has the VIPs. That it is not decided in time is no failure: it will be.
    async fn await_election(&self, vip: IpAddr) -> Result<(), Failed> {
        let namespace = file(&self.inside().await?.namespace)?;
        let decide = move || election(&namespace, vip, ELECTION).map_err(failed("VRRP's election"));
        match blocking(decide).await {
            Ok(decided) => info!("VRRP's election: {decided:?}"),
            Err(Failed(why)) => warn!("{why}"),
        }
        Ok(())
    }

    /// A stop holds until the next boot, as that of a unit that is enabled.
    fn note_vrrp(&self, action: Action) -> Result<(), Failed> {
        let stopped = self.vrrp_stopped();
        let noted = match action {
            Action::Stop => fs::write(&stopped, b""),
            Action::Start | Action::Reload if !stopped.exists() => Ok(()),
            Action::Start | Action::Reload => fs::remove_file(&stopped),
        };
        noted.map_err(|error| Failed(format!("{}: {error}", stopped.display())))
    }

    /// The file that says so.
    fn vrrp_stopped(&self) -> PathBuf {
        lock::run_directory(&self.config.borrow().amphora_id).join("vrrp-stopped")
    }

    /// All that is wanted from now on.
    async fn serve(&self, wanted: &Wanted) -> Result<(), Failed> {
        let deadline = deadline();
        let mut state = self.turn(deadline).await?;
        let before = std::mem::replace(&mut state.wanted, wanted.clone());
        let brought = until(deadline, self.bring(&mut state)).await;
        // The door goes on wanting what it wanted before, if it ever was; and so it comes to be again.
        if brought.is_err() && state.engines.is_some() {
            state.wanted = before;
        }
        brought
    }

    async fn turn(&self, deadline: Instant) -> Result<MutexGuard<'_, State>, Failed> {
        until(deadline, async { Ok(self.state.lock().await) }).await
    }
}

/// The namespace, for those who start programs in it.
fn file(namespace: &Namespace) -> Result<File, Failed> {
    let handle = namespace.as_fd().try_clone_to_owned();
    handle.map(Into::into).map_err(failed("the namespace"))
}

fn failed(what: impl Display) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed(format!("{what}: {error}"))
}

/// Listeners of the packet path that HAProxy serves now.
fn leaving_haproxy(state: &State, engines: &Engines) -> BTreeSet<String> {
    let serves = state.haproxy.values().filter_map(|haproxy| haproxy.serves());
    let serves = serves.flat_map(|serves| serves.config.listeners());
    let forwarded = &engines.serving.desired.listeners;
    let ids = serves.map(|listener| listener.id);
    ids.filter(|id| forwarded.iter().any(|listener| listener.id == *id)).collect()
}

/// What waits for processes and files, away from the tasks that must not wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Failed(error.to_string())))
}

/// The controller asks again when it hears nothing, and must not find the first request at work still.
fn deadline() -> Instant {
    Instant::now() + CALL_TIMEOUT
}

async fn until<T, E: From<Failed>>(
    deadline: Instant,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let late = |_| Failed(format!("it took more than {CALL_TIMEOUT:?}"));
    timeout_at(deadline, work).await.map_err(late)?
}
