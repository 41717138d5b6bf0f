//! What the door may ask of the machine behind it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::desired::Desired;
use crate::document::Plugs;
use crate::haproxy;
use crate::plug::{NetworkPlug, VipPlug};
use crate::rules::Rule;
use crate::understood::{Listener, Understood};

/// The machine: its interfaces, what forwards, HAProxy and keepalived.
///
/// Each call may come again although it was carried out: the controller repeats a request whose answer
/// it did not get. One that changes something comes alone; those that ask may come at any time. All are
/// to answer within seconds.
pub trait Amphora: Send + Sync + 'static {
    /// Versions of what serves.
    fn versions(&self) -> impl Future<Output = Result<Versions, Failed>> + Send;

    /// How the machine fares.
    fn vitals(&self) -> impl Future<Output = Result<Vitals, Failed>> + Send;

    /// Metrics of these listeners and of the machine, in Prometheus' text format.
    fn metrics(
        &self,
        listeners: &[Listener],
    ) -> impl Future<Output = Result<String, Failed>> + Send;

    /// Name of the interface in the namespace of the load balancer that has this address.
    fn interface(&self, ip: IpAddr) -> impl Future<Output = Result<Option<String>, Failed>> + Send;

    /// Brings back what was plugged before a restart, or a reboot.
    fn restore(&self, plugs: &Plugs) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Takes the interface of this MAC into the namespace as `eth1`, with its addresses.
    fn plug_vip(&self, plug: &VipPlug) -> impl Future<Output = Result<Plugged, PlugError>> + Send;

    /// Takes an interface towards members into the namespace, or brings its addresses to these.
    fn plug_network(
        &self,
        plug: &NetworkPlug,
    ) -> impl Future<Output = Result<Plugged, PlugError>> + Send;

    /// Lets nothing reach the VIPs on the interface but what the rules name.
    fn guard(
        &self,
        interface: &str,
        rules: &[Rule],
    ) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Whether HAProxy would take this configuration; what it says if not.
    fn check(&self, haproxy: &Haproxy) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Makes it so. What is wanted already is left alone, so that an unchanged reload changes nothing.
    /// Then tells the neighbours of these VIPs.
    fn apply(
        &self,
        wanted: &Wanted,
        announce: &[IpAddr],
    ) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Starts, stops or reloads VRRP by the configuration that is stored.
    fn vrrp(&self, action: Action) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// What could not be done, and why; the controller logs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// Why an interface was not plugged; each is an answer of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    /// Not there yet: the controller asks again.
    #[error("no interface has that MAC address")]
    NotFound,
    /// It is plugged already; for the interface of the VIPs alone.
    #[error("it is plugged already")]
    Exists,
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// The name of an interface, and whether it was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plugged {
    New(String),
    Updated(String),
}

/// What `PUT /loadbalancer/<id>/<action>` and `PUT /vrrp/<action>` ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start,
    Stop,
    Reload,
}

/// All that shall be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All listeners, and what XDP is to take of them. None where nothing is served.
    pub served: Option<(Understood, Desired)>,
    /// The configurations of load balancers, each whole: what HAProxy is to serve of it is
    /// [`Haproxy::only`] the listeners that XDP does not take.
    pub haproxy: BTreeMap<String, Haproxy>,
}

/// A configuration for HAProxy. Two are equal if they mean the same, whatever their texts, and name files
/// of the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Haproxy {
    /// This amphora's name among the peers of its load balancer (`haproxy -L`).
    pub peer: String,
    pub config: haproxy::Config,
    /// SHA-256 in hex of each file in the load balancer's folder of certificates, by name. HAProxy reads
    /// them when it reads its configuration: one that was replaced needs a reload.
    pub certificates: BTreeMap<String, String>,
}

impl Haproxy {
    /// With no other listeners than these; none where none is left, and it need not run.
    pub fn only(&self, serves: impl Fn(&str) -> bool) -> Option<Self> {
        let Self { peer, config, certificates } = self;
        let (peer, certificates) = (peer.clone(), certificates.clone());
        Some(Self { peer, config: config.only(serves)?, certificates })
    }
}

/// For `GET /info`. Versions are Debian's; that of HAProxy is what the controller renders for.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    pub hostname: String,
    /// Begins with two numbers and dots, without an epoch.
    pub haproxy_version: String,
    pub keepalived_version: String,
    /// Octavia wants the key; IPVS is not used.
    pub ipvsadm_version: String,
}

/// For `GET /details`, in the units of the kernel's files.
#[derive(Clone, Debug, Serialize)]
pub struct Vitals {
    /// Of the interfaces `eth*` in the namespace.
    pub networks: BTreeMap<String, Traffic>,
    pub cpu_count: u32,
    pub cpu: Cpu,
    pub memory: Memory,
    pub disk: Disk,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [String; 3],
}

/// Bytes since the interface came.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    pub network_tx: u64,
    pub network_rx: u64,
}

/// Clock ticks since boot (`/proc/stat`). The stock agent sends three of them as text.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    pub total: u64,
    pub user: String,
    pub system: String,
    pub soft_irq: String,
}

/// KiB (`/proc/meminfo`). Free, buffers and cached must be numbers: the controller reckons with them.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub buffers: u64,
    pub cached: u64,
    pub swap_used: u64,
    pub shared: u64,
    pub slab: u64,
}

/// Bytes of the root file system.
#[derive(Clone, Debug, Serialize)]
pub struct Disk {
    pub used: u64,
    pub available: u64,
}
