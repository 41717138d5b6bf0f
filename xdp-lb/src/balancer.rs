//! The packet path of one load balancer, run: observes the network, decides by [`compile`] and
//! [`plan`] what follows from it and from what is wanted, acts on the kernel.
//!
//! In the network namespace of the thread that made it, and on that thread. Dropped, it leaves
//! everything in place.

mod logs;
mod ports;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_api::{Desired, Name, OnMarkedDown};
use aya::maps::MapError;
use nix::time::{ClockId, clock_gettime};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout_at};
use tracing::{debug, info, warn};
use xdp_lb_ebpf::abi::{BACKEND_UP, Backend};
use xdp_lb_ebpf::tables::Flows;

use crate::health::{self, Health, Standings};
use crate::kernel::{FrameLog, Kernel, Pins, Sizes, SourcePorts};
use crate::lock;
use crate::memory;
use crate::net::{NextHop, Ours, Topology, Unreachable, Watch, source_ports};
use crate::observe::stats::{Stats, stats};
use crate::observe::status::{Count, reasons};
use crate::plan::{Change, plan};
use crate::record::{Beside, Counted, Record};
use crate::reset::reset;
use crate::sweep::{Over, PASS_S, Sweep};
use crate::tables::{self, BackendName, Hop, Tables, World, compile};
use logs::{Clocks, Logs, Written};
pub use ports::Interfaces;
use ports::Ports;

/// Neighbours that the kernel does not keep fresh by itself are asked this often, and the network
/// is looked at without an event.
const ASK_EVERY_S: u32 = 5;

/// For an answer of a neighbour: one on the link takes a millisecond. The kernel would go on asking for
/// three seconds.
const MEETING: Duration = Duration::from_millis(500);

/// Changes told one by one.
const TOLD_MAX: usize = 64;

#[derive(Clone, Debug)]
pub struct Options {
    /// Of its pins and its files.
    pub name: Name,
    pub interfaces: Interfaces,
    pub sizes: Sizes,
    pub source_ports: SourcePorts,
    /// Keep the kernel's own sockets off the source ports.
    pub reserve: bool,
    /// What the program tells of frames.
    pub frame_log: Option<FrameLog>,
    /// Where finished connections are logged of listeners that ask for it, if anywhere.
    pub log_socket: Option<PathBuf>,
}

/// What is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// By the packet path.
    pub desired: Desired,
    /// By others, for those who look.
    pub beside: Vec<Beside>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kernel(#[from] crate::kernel::Error),
    #[error(transparent)]
    Tables(#[from] tables::Error),
    #[error("reserving source ports; --no-reserve goes without: {0}")]
    Reserve(io::Error),
}

/// When [`Balancer::tick`] is due.
pub fn ticks() -> Interval {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// Seconds since boot.
fn now_s() -> u32 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec() as u32)
}

/// Nanoseconds since 1970.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(0))
}

pub struct Balancer {
    options: Options,
    serving: Serving,
    kernel: Kernel,
    ports: Ports,
    topology: Topology,
    /// What the maps hold; none where a write failed, and they must be read.
    actual: Option<Tables>,
    /// Neighbours the kernel was asked to know.
    asked: BTreeSet<NextHop>,
    ticks: u32,
    sweep: Sweep,
    /// Of connections that are over.
    logs: Option<Logs>,
    /// What the counters do not say, by listener number.
    counted: BTreeMap<u32, Counted>,
    health: Health,
    /// Members that fail their probes, and why.
    down: BTreeMap<health::Name, String>,
    record: Record,
    /// What is wrong with what was asked for last.
    refused: Option<String>,
}

impl Balancer {
    /// Loads the program, or takes over what an earlier start has left. Serves from the first
    /// [`look`](Self::look) on. The caller holds the [`lock`] of the name.
    pub fn start(options: Options, serving: Serving) -> Result<Self, Error> {
        let pins = Pins::of(&options.name);
        let kernel = Kernel::start(&pins, options.sizes, options.source_ports, options.frame_log)?;
        memory::give_back();
        kernel.maps.set_clock(now_s());
        if options.reserve {
            let reserved = source_ports::reserve(options.source_ports).map_err(Error::Reserve)?;
            info!(reserved = reserved.reserved, "source ports are kept from local sockets");
            if let Some(local) = &reserved.local {
                info!("net.ipv4.ip_local_port_range is now {local}, to leave local sockets some");
            }
            if reserved.left == 0 {
                warn!("no port is left to local sockets: they cannot connect");
            }
        }
        let record = Record::read(&lock::run_file(&options.name, "json")).unwrap_or_default();
        let mut actual = kernel.maps.tables()?;
        let mut counted = BTreeMap::new();
        if kernel.resumed {
            let listeners = record.listeners.iter();
            counted.extend(
                listeners.filter_map(|listener| Some((listener.number?, listener.counted))),
            );
            counted.extend(record.leaving.iter().map(|it| (it.number, it.counted)));
            info!(
                listeners = actual.listeners.len(),
                backends = actual.backends.len(),
                "took over what was pinned"
            );
            actual.names = record.names();
        }
        let mut health = Health::new(health::file(&options.name));
        health.set(&serving.desired);
        let mut logs = options.log_socket.clone().map(Logs::new);
        if let Some(logs) = &mut logs {
            logs.set(&serving.desired);
        }
        Ok(Self {
            down: health.down(),
            health,
            ports: Ports::new(options.interfaces.clone(), &record),
            options,
            serving,
            kernel,
            topology: Topology::default(),
            actual: Some(actual),
            asked: BTreeSet::new(),
            ticks: 0,
            sweep: Sweep::default(),
            logs,
            counted,
            record,
            refused: None,
        })
    }

    /// Has the kernel know the next hops of members that are to be served, and waits a moment until it
    /// does. Or the first clients of a listener that is new here would be told that it has no member.
    pub async fn meet(&mut self, desired: &Desired, watch: &mut Watch) {
        let members = || desired.pools.iter().flat_map(|pool| &pool.members);
        let end = tokio::time::Instant::now() + MEETING;
        let mut asked = BTreeSet::new();
        while let Ok(topology) = watch.topology().await {
            let hops = members().filter_map(|member| topology.next_hop(member.address).ok());
            let unmet: BTreeSet<NextHop> = hops.filter(|next| topology.is_unmet(*next)).collect();
            for next in unmet.difference(&asked) {
                if let Err(error) = watch.resolve(*next).await {
                    debug!(addr = %next.addr, ifindex = next.ifindex, "asking: {error}");
                }
            }
            asked.extend(&unmet);
            if unmet.is_empty() || timeout_at(end, watch.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Serves this from now on; where that cannot be, what was served before.
    pub fn serve(&mut self, serving: Serving) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.serving, serving);
        let done = self.reconcile();
        match &done {
            Ok(()) => {
                self.refused = None;
                if let Some(logs) = &mut self.logs {
                    logs.set(&self.serving.desired);
                }
                // Not before: who is down and is not in a document that is refused would be up after it.
                self.health.set(&self.serving.desired);
            }
            Err(error) => {
                self.refused = Some(error.to_string());
                self.serving = before;
            }
        }
        self.report();
        done
    }

    /// Has those who look be told why something that was asked for is not in force.
    pub fn refuse(&mut self, why: String) {
        self.refused = Some(why);
        self.report();
    }

    /// For those who look.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What was not forwarded, by the reason.
    pub fn frames(&self) -> Result<Vec<Count>, MapError> {
        reasons(&self.kernel.maps)
    }

    /// What went through.
    pub fn stats(&self) -> Result<Stats, MapError> {
        stats(&self.kernel.maps, &self.record)
    }

    /// How the members stand that are probed.
    pub fn standings(&self) -> Standings {
        self.health.standings()
    }

    /// Returns when members have turned, to be followed by [`turn`](Self::turn). May be given up.
    pub async fn turned(&mut self) {
        self.health.changed().await;
    }

    /// Brings what members' probes have found into the maps, and ends the flows of those who went down,
    /// where that is asked for.
    pub fn turn(&mut self) {
        let turned = self.health.turned();
        if turned.is_empty() {
            return;
        }
        // First, so that no flow is opened to them meanwhile.
        if !self.try_reconcile() {
            return;
        }
        let resets = turned.into_iter().filter(|it| it.on_marked_down == OnMarkedDown::Reset);
        let members: BTreeSet<_> = resets.map(|turned| turned.name).collect();
        let down = |name: &BackendName| {
            let name = (name.pool.clone(), name.member.clone());
            members.contains(&name) && self.down.contains_key(&name)
        };
        let named = self.actual.iter().flat_map(|tables| &tables.names.backends);
        let backends: BTreeSet<u32> = named
            .filter(|(id, name)| self.load(**id) > 0 && down(name))
            .map(|(id, _)| *id)
            .collect();
        if !backends.is_empty() {
            self.reset(&backends);
        }
    }

    fn reset(&mut self, backends: &BTreeSet<u32>) {
        let mapped = match self.kernel.maps.map_flows() {
            Ok(mapped) => mapped,
            Err(error) => return warn!("{error}; flows of members that are down go on"),
        };
        let ended = reset(&self.kernel.maps.table(&mapped), backends);
        info!("{ended} flows of members that are down are reset");
    }

    /// Looks at the network, and does what follows.
    pub async fn look(&mut self, watch: &Watch) -> Result<(), Error> {
        let topology = match watch.topology().await {
            Ok(topology) => topology,
            Err(error) => {
                // An interrupted dump, say. The next event or tick looks again.
                warn!("netlink: {error}");
                return Ok(());
            }
        };
        if topology != self.topology || self.ports.incomplete() {
            self.topology = topology;
            self.ports.settle(&mut self.kernel, &self.topology)?;
            self.try_reconcile();
        }
        self.ask(watch).await;
        Ok(())
    }

    /// What is due each second.
    pub async fn tick(&mut self, watch: &Watch) -> Result<(), Error> {
        self.kernel.maps.set_clock(now_s());
        self.ticks = self.ticks.wrapping_add(1);
        self.sweep();
        self.health.supervise();
        if self.leavers_are_idle() || self.actual.is_none() {
            self.try_reconcile();
        }
        if self.ticks.is_multiple_of(ASK_EVERY_S) {
            let asked = self.asked.iter().copied();
            self.asked = asked.filter(|next| !self.topology.wants_asking(*next)).collect();
            self.look(watch).await?;
        }
        Ok(())
    }

    /// A slice each second while there are flows; where there are none, all of it at once and seldom. The
    /// tables count as our memory while they are mapped: so that is no longer than a slice takes.
    fn sweep(&mut self) {
        let idle = self.sweep.found_nothing();
        if idle && !self.ticks.is_multiple_of(PASS_S) {
            return;
        }
        let started = Instant::now();
        let mapped = match self.kernel.maps.map_flows() {
            Ok(mapped) => mapped,
            Err(error) => return warn!("{error}; flows that have expired stay"),
        };
        let listeners = self.actual.iter().flat_map(|tables| tables.listeners.values());
        let idle_s: BTreeMap<u32, u32> =
            listeners.map(|listener| (listener.id, listener.idle_s)).collect();
        let table = self.kernel.maps.table(&mapped);
        let (clocks, names) = (Clocks::now(), self.actual.as_ref().map(|it| &it.names.backends));
        let count = |Written { listener, taken }| {
            if let Some(counted) = table.flow_logs(listener) {
                if taken { &counted.logged } else { &counted.lost }.add(1);
            }
        };
        self.logs.iter().flat_map(Logs::written).for_each(count);
        let mut over = |over: Over| {
            let name = names.and_then(|names| names.get(&over.backend));
            // Of a member that nobody knows any more, or where no log is, a line is nobody's.
            let (Some(logs), Some(name)) = (&mut self.logs, name) else { return };
            let Some(listener) = table.listener_of(over.backend) else { return };
            if !logs.write(&over, listener, name, clocks) {
                count(Written { listener, taken: false });
            }
        };
        for _ in 0..if idle { PASS_S } else { 1 } {
            self.sweep.slice(&table, &|listener| idle_s.get(&listener).copied(), &mut over);
        }
        debug!(took = ?started.elapsed(), "swept");
    }

    /// Whether it could be done.
    fn try_reconcile(&mut self) -> bool {
        let done = self.reconcile();
        if let Err(error) = &done {
            warn!("{error}; the maps stay as they are");
            self.refused = Some(error.to_string());
        }
        self.report();
        done.is_ok()
    }

    /// Makes the maps what document and network ask for.
    fn reconcile(&mut self) -> Result<(), Error> {
        self.down = self.health.down();
        let actual = match self.actual.take() {
            Some(actual) => actual,
            None => Tables { names: self.record.names(), ..self.kernel.maps.tables()? },
        };
        let wanted = match self.compile(&actual) {
            Ok(wanted) => wanted,
            Err(error) => {
                self.actual = Some(actual);
                return Err(error.into());
            }
        };
        let taken: BTreeSet<u32> = actual.listeners.values().map(|listener| listener.id).collect();
        let named = &actual.names.listeners;
        for id in wanted
            .names
            .listeners
            .keys()
            .filter(|id| !taken.contains(id) && !named.contains_key(id))
        {
            self.kernel.maps.reset_listener(*id)?;
            let since_ns = now_ns();
            self.counted.insert(*id, Counted { since_ns, ..Counted::default() });
        }
        let changes = plan(&wanted, &actual);
        let many = changes.len() > TOLD_MAX;
        for change in &changes {
            if many {
                debug!("{change}");
            } else {
                info!("{change}");
            }
            self.keep_counters(change, &actual)?;
            self.kernel.maps.apply(change)?;
        }
        if many {
            info!("{} entries of the maps changed", changes.len());
        }
        self.actual = Some(wanted);
        Ok(())
    }

    /// Remembers what a backend counted that is about to be freed.
    fn keep_counters(&mut self, change: &Change, actual: &Tables) -> Result<(), Error> {
        let Change::SetBackend { id, backend: Backend { port: [0, 0], .. } } = change else {
            return Ok(());
        };
        if let Some(left) = actual.backends.get(id) {
            let departed = &mut self.counted.entry(left.listener).or_default().departed;
            *departed = *departed + self.kernel.maps.moved(*id)?;
        }
        Ok(())
    }

    fn compile(&self, actual: &Tables) -> Result<Tables, tables::Error> {
        let vips = self.vips();
        let attached = self.ports.attached();
        let ours = self.ours(&attached, &vips);
        let down = self.down.keys().cloned().collect();
        let world = World {
            down: &down,
            hop: &|member| self.topology.hop(member, ours).ok(),
            busy: &|id| self.busy(id),
        };
        compile(&self.serving.desired, &world, actual)
    }

    /// Why a member has no [`Hop`].
    fn hop(&self, member: IpAddr) -> Result<Hop, Unreachable> {
        self.topology.hop(member, self.ours(&self.ports.attached(), &self.vips()))
    }

    fn ours<'a>(&self, attached: &'a BTreeSet<u32>, vips: &'a [IpAddr]) -> Ours<'a> {
        let vip_interface = self.topology.ifindex(self.options.interfaces.of_vips());
        Ours { attached, vip_interface, vips }
    }

    fn vips(&self) -> Vec<IpAddr> {
        self.serving
            .desired
            .listeners
            .iter()
            .flat_map(|listener| listener.vips.iter().copied())
            .collect()
    }

    /// Whether a flow still names a backend.
    fn busy(&self, id: u32) -> bool {
        self.load(id) > 0 || self.sweep.may_name(id)
    }

    /// Connections of a backend.
    fn load(&self, id: u32) -> u32 {
        self.kernel.maps.backend_load.get(id as usize).map_or(0, |load| load.0.load())
    }

    /// Whether a backend that left the document could be freed.
    fn leavers_are_idle(&self) -> bool {
        let Some(actual) = &self.actual else {
            return false;
        };
        let in_document = |id: &u32| {
            actual.names.backends.get(id).is_some_and(|name| {
                let pool = self.serving.desired.pools.iter().find(|pool| pool.id == name.pool);
                let listener = self
                    .serving
                    .desired
                    .listeners
                    .iter()
                    .find(|listener| listener.id == name.listener);
                listener.is_some_and(|listener| {
                    listener.enabled && listener.pool.as_ref() == Some(&name.pool)
                }) && pool
                    .is_some_and(|pool| pool.members.iter().any(|member| member.id == name.member))
            })
        };
        let mut leavers =
            actual.backends.iter().filter(|(_, backend)| backend.flags & BACKEND_UP == 0);
        leavers.any(|(id, _)| !self.busy(*id) && !in_document(id))
    }

    /// Has the kernel know the next hops of all members, and forget about those of nobody.
    async fn ask(&mut self, watch: &Watch) {
        let members = self.serving.desired.pools.iter().flat_map(|pool| &pool.members);
        let attached = self.ports.attached();
        let needed: BTreeSet<NextHop> = members
            .filter_map(|member| self.topology.next_hop(member.address).ok())
            .filter(|next| attached.contains(&next.ifindex) && !self.topology.is_fixed(*next))
            .collect();
        for next in needed.difference(&self.asked) {
            if let Err(error) = watch.resolve(*next).await {
                debug!(addr = %next.addr, ifindex = next.ifindex, "asking: {error}");
            }
        }
        let left = self.asked.difference(&needed);
        for next in left.filter(|next| !self.topology.is_fixed(**next)) {
            if let Err(error) = watch.release(*next).await {
                debug!(addr = %next.addr, ifindex = next.ifindex, "releasing: {error}");
            }
        }
        self.asked = needed;
    }

    fn report(&mut self) {
        let record = self.describe();
        if record == self.record {
            return;
        }
        let path = lock::run_file(&self.options.name, "json");
        if let Err(error) = record.write(&path) {
            warn!("{}: {error}", path.display());
        }
        self.record = record;
    }
}
