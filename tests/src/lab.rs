//! A lab of network namespaces: a client, a router, an amphora and its members, on IPv4 and IPv6.
//!
//! [`Lab::describe`] draws it. The amphora is on the net of its members (one-arm); the switch they
//! share gives each interface a peer that can be prepared for native XDP ([`Offloads::Fixed`]).

mod netns;
mod pass;
mod picture;
mod plan;
mod ready;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::unistd::Uid;

pub use netns::{Netns, Process};
use plan::{Address, BRIDGE, End, MEMBERS_MAX, MTU, Node, Plan, SWITCH, VIP, VIP_NET, Wire};

/// Every name of a lab is this, the pid of its process, `n`, its number, `-` and the host's name.
const PREFIX: &str = "xl";

/// Of the first wire's interfaces; `lo` has 1, and the kernel gives the bridge the next free one.
const FIRST_INDEX: u32 = 10;

/// For a host: answer and believe nothing that is not in the plan, and be ready at once.
const HOST_SYSCTLS: [(&str, &str); 8] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    // Link-local addresses too are there without a second of duplicate address detection.
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];
const FORWARD_SYSCTLS: [(&str, &str); 4] = [
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
];
const SWITCH_SYSCTLS: [(&str, &str); 2] =
    [("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// Where a client's socket that may go anywhere is bound.
    pub fn any(self) -> SocketAddr {
        addr(self, Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, 0)
    }
}

/// What the kernel may leave to a device that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Whole checksums, frames no longer than the MTU, and a program that passes everything
    /// opposite the amphora's interfaces: native XDP loses the mark of a partial checksum, and
    /// sends only into a veth whose peer polls.
    Fixed,
    /// As veth pairs are made: generic XDP and tc can work with it.
    AsMade,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabOptions {
    /// On the switch, 1 to 99: `m1`, `m2`...
    pub members: u8,
    /// One more member, behind `eth2` of the amphora.
    pub second_member: bool,
    /// One more member, behind the router.
    pub routed_member: bool,
    /// A second client, in the net of the VIPs.
    pub neighbour: bool,
    /// What the router lets pass towards the client, in bytes of IP; 1280 to 1500.
    pub client_link_mtu: u32,
    /// What the router lets pass towards the routed member.
    pub routed_link_mtu: u32,
    pub offloads: Offloads,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            members: 3,
            second_member: false,
            routed_member: false,
            neighbour: false,
            client_link_mtu: MTU,
            routed_link_mtu: MTU,
            offloads: Offloads::Fixed,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("a lab of network namespaces needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")]
    NotRoot,
    #[error("a lab has 1 to {MEMBERS_MAX} members on its switch, {0} are wanted")]
    Members(u8),
    #[error("{tool} does not start: {source}")]
    Tool { tool: String, source: io::Error },
    #[error("`{command}` failed: {said}")]
    Failed { command: String, said: String },
    #[error("net/{key} cannot be set: {source}")]
    Sysctl { key: String, source: io::Error },
    #[error("no XDP program can be attached opposite the amphora: {0}")]
    Pass(io::Error),
    #[error("{netns} is not ready after {waited_ms} ms: {missing}")]
    NotReady { netns: String, missing: String, waited_ms: u128 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A namespace and the address it is known by.
#[derive(Debug)]
pub struct Host {
    pub name: String,
    pub netns: Netns,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Host {
    pub fn addr(&self, family: Family, port: u16) -> SocketAddr {
        addr(family, self.v4, self.v6, port)
    }
}

/// Namespaces with wires between them, all of which go when it is dropped.
#[derive(Debug)]
pub struct Lab {
    pub client: Host,
    pub router: Host,
    /// `eth1` has the VIPs; `eth2` leads to [`Lab::second_member`].
    pub amphora: Host,
    pub neighbour: Option<Host>,
    /// `m1`... on the switch. Their servers are up to the test: [`Server`](crate::servers::Server).
    pub members: Vec<Host>,
    pub second_member: Option<Host>,
    pub routed_member: Option<Host>,
    /// Has a bridge and a port named for each host on it.
    pub switch: Netns,
    options: LabOptions,
    /// The programs opposite the amphora's interfaces; closing them detaches.
    passes: Mutex<Vec<OwnedFd>>,
    names: Names,
}

impl Lab {
    /// Builds a lab, and removes those of processes that were killed.
    pub fn up(options: LabOptions) -> Result<Self, LabError> {
        if !Uid::effective().is_root() {
            return Err(LabError::NotRoot);
        }
        if !(1..=MEMBERS_MAX).contains(&options.members) {
            return Err(LabError::Members(options.members));
        }
        Self::sweep()?;
        let plan = plan::plan(&options);
        let names = Names::next();
        make_namespaces(&plan, &names)?;
        let switch = Netns::open(names.of(SWITCH))?;
        set(&switch, &SWITCH_SYSCTLS)?;
        let host = |node: &Node| make_host(node, &names);
        let lab = Self {
            client: host(&plan.client)?,
            router: host(&plan.router)?,
            amphora: host(&plan.amphora)?,
            neighbour: plan.neighbour.as_ref().map(host).transpose()?,
            members: plan.members.iter().map(host).collect::<Result<_, _>>()?,
            second_member: plan.second_member.as_ref().map(host).transpose()?,
            routed_member: plan.routed_member.as_ref().map(host).transpose()?,
            switch,
            options,
            passes: Mutex::default(),
            names,
        };
        make_wires(&plan, &lab.names)?;
        plug_in_switch(&lab.switch, &plan, &lab.options)?;
        for (host, node) in lab.hosts().zip(plan.nodes()) {
            plug_in_host(&host.netns, node, &plan, &lab.options)?;
        }
        lab.pass_opposite(plan.ends_of(&lab.amphora.name))?;
        if let Some(neighbour) = &lab.neighbour {
            // It may be a second amphora.
            lab.pass_opposite(plan.ends_of(&neighbour.name))?;
        }
        for netns in lab.hosts().map(|host| &host.netns).chain([&lab.switch]) {
            ready::wait(netns)?;
        }
        Ok(lab)
    }

    /// Removes the labs of processes that are no more.
    pub fn sweep() -> Result<(), LabError> {
        let mut names = netns::names(PREFIX);
        names.retain(|name| is_abandoned(name));
        netns::remove(&names)
    }

    /// Every host, in the order of the plan's nodes; the members are the last.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        let others = [&self.client, &self.router, &self.amphora].into_iter().chain(&self.neighbour);
        others.chain(self.all_members())
    }

    /// The members on the switch, then those elsewhere.
    pub fn all_members(&self) -> impl Iterator<Item = &Host> {
        self.members.iter().chain(&self.second_member).chain(&self.routed_member)
    }

    /// The address on `eth1` of the amphora that is for listeners.
    pub fn vip(&self, family: Family, port: u16) -> SocketAddr {
        addr(family, VIP_NET.v4(VIP), VIP_NET.v6(VIP), port)
    }

    /// What all its namespaces' names begin with.
    pub fn prefix(&self) -> &str {
        &self.names.prefix
    }

    /// The lab as a drawing, with every address.
    pub fn describe(&self) -> String {
        picture::draw(&plan::plan(&self.options), &self.options, self.prefix())
    }

    /// Pulls the wire out of `eth1` of the amphora: the interface is no more, nor are its routes.
    pub fn unplug_amphora(&self) -> Result<(), LabError> {
        self.amphora.netns.ip(&["link delete eth1".to_owned()])
    }

    /// Puts it in again, as if it were the same: its MAC, its addresses, its routes.
    pub fn plug_in_amphora(&self, mac: &str) -> Result<(), LabError> {
        let plan = plan::plan(&self.options);
        let node = &plan.amphora;
        let wires = plan
            .wires
            .iter()
            .filter(|[end, _]| (&end.host[..], &end.dev[..]) == (&node.name, "eth1"));
        let only = Plan { wires: wires.cloned().collect(), ..plan.clone() };
        make_wires(&only, &self.names)?;
        self.amphora.netns.ip(&[format!("link set eth1 address {mac}")])?;
        set_offloads(&self.switch, SWITCH, &only, &self.options)?;
        set_offloads(&self.amphora.netns, &node.name, &only, &self.options)?;
        let port = format!("link set {} up master {BRIDGE}", node.name);
        self.switch.ip(&[port])?;
        let addresses = node.addresses.iter().filter(|address| address.dev == "eth1");
        let lines = addresses.flat_map(Address::lines).chain(["link set eth1 up".to_owned()]);
        self.amphora.netns.ip(&lines.chain(node.routes.clone()).collect::<Vec<_>>())?;
        self.pass_opposite(only.ends_of(&node.name))?;
        [&self.amphora.netns, &self.switch].into_iter().try_for_each(ready::wait)
    }

    /// Lets the amphora send by `XDP_TX` where its ends lead.
    fn pass_opposite<'a>(
        &self,
        ends: impl Iterator<Item = (&'a End, &'a End)>,
    ) -> Result<(), LabError> {
        if self.options.offloads == Offloads::AsMade {
            return Ok(());
        }
        for (_, end) in ends {
            let host = self.hosts().find(|host| host.name == end.host);
            let netns = host.map_or(&self.switch, |host| &host.netns);
            let pass = netns.enter(|| pass::attach(&end.dev)).map_err(LabError::Pass)?;
            self.passes.lock().unwrap_or_else(PoisonError::into_inner).push(pass);
        }
        Ok(())
    }
}

/// Attaches a program to an interface that is not ours, which passes everything, until it is dropped.
pub fn occupy(host: &Host, dev: &str) -> io::Result<OwnedFd> {
    host.netns.enter(|| pass::attach(dev))
}

/// Pins that program in a BPF file system.
pub fn pin_pass(path: &Path) -> io::Result<()> {
    pass::pin(path)
}

/// Removes a namespace that something else than a lab has made, and kills what runs in it.
pub fn remove_namespace(name: &str) -> Result<(), LabError> {
    netns::remove(&[name.to_owned()])
}

fn addr(family: Family, v4: Ipv4Addr, v6: Ipv6Addr, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (IpAddr::V4(v4), port).into(),
        Family::V6 => (IpAddr::V6(v6), port).into(),
    }
}

/// The names of one lab; dropping them removes the namespaces.
#[derive(Debug)]
struct Names {
    prefix: String,
}

impl Names {
    fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { prefix: format!("{PREFIX}{}n{number}-", std::process::id()) }
    }

    fn of(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if let Err(error) = netns::remove(&netns::names(&self.prefix)) {
            eprintln!("{} is not all gone: {error}", self.prefix);
        }
    }
}

/// Whether `name` begins as the names of a lab do whose process is no more.
pub fn is_abandoned(name: &str) -> bool {
    pid(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// The process that a namespace of this name belongs to, if it is of a lab.
fn pid(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('-')?.0.split_once('n')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn make_namespaces(plan: &Plan, names: &Names) -> Result<(), LabError> {
    let hosts = plan.nodes().map(|node| node.name.as_str()).chain([SWITCH]);
    let lines: Vec<_> = hosts.map(|host| format!("netns add {}", names.of(host))).collect();
    netns::ip(&[], &lines)
}

/// A host without wires: an interface takes over the sysctls when it is made, not later.
fn make_host(node: &Node, names: &Names) -> Result<Host, LabError> {
    let netns = Netns::open(names.of(&node.name))?;
    set(&netns, &HOST_SYSCTLS)?;
    if node.forwards {
        set(&netns, &FORWARD_SYSCTLS)?;
    }
    Ok(Host { name: node.name.clone(), netns, v4: node.v4, v6: node.v6 })
}

/// Each interface has a number of its own: the kernel takes a veth whose peer has the same one, in
/// another namespace, for a device without a peer, and lets its carrier wait for up to a second
/// (`linkwatch_urgent_event` in `net/core/link_watch.c`).
fn make_wires(plan: &Plan, names: &Names) -> Result<(), LabError> {
    let line = |([end, peer], index): (&Wire, u32)| {
        let (own, other) = (names.of(&end.host), names.of(&peer.host));
        let (dev, peer_dev, peer_index) = (&end.dev, &peer.dev, index + 1);
        format!(
            "link add {dev} index {index} netns {own} type veth \
             peer name {peer_dev} index {peer_index} netns {other}"
        )
    };
    let numbered = plan.wires.iter().zip((FIRST_INDEX..).step_by(2));
    netns::ip(&[], &numbered.map(line).collect::<Vec<_>>())
}

fn plug_in_switch(switch: &Netns, plan: &Plan, options: &LabOptions) -> Result<(), LabError> {
    // There when the kernel can filter bridged frames, which only costs time here.
    let _ = switch.sysctl("bridge/bridge-nf-call-iptables", "0");
    let _ = switch.sysctl("bridge/bridge-nf-call-ip6tables", "0");
    set_offloads(switch, SWITCH, plan, options)?;
    let bridge = format!("link add {BRIDGE} up type bridge stp_state 0 mcast_snooping 0");
    let ports = plan.ends_of(SWITCH).map(|(end, _)| &end.dev);
    let ports = ports.map(|port| format!("link set {port} up master {BRIDGE}"));
    let loopback = "link set lo up".to_owned();
    switch.ip(&[loopback, bridge].into_iter().chain(ports).collect::<Vec<_>>())
}

fn plug_in_host(
    netns: &Netns,
    node: &Node,
    plan: &Plan,
    options: &LabOptions,
) -> Result<(), LabError> {
    set_offloads(netns, &node.name, plan, options)?;
    let devs = plan.ends_of(&node.name).map(|(end, _)| &end.dev[..]).chain(["lo"]);
    let up = devs.map(|dev| format!("link set {dev} up"));
    let addresses = node.addresses.iter().flat_map(|address| address.lines());
    netns.ip(&addresses.chain(up).chain(node.routes.clone()).collect::<Vec<_>>())
}

fn set(netns: &Netns, sysctls: &[(&str, &str)]) -> Result<(), LabError> {
    sysctls.iter().try_for_each(|(key, value)| netns.sysctl(key, value))
}

fn set_offloads(
    netns: &Netns,
    host: &str,
    plan: &Plan,
    options: &LabOptions,
) -> Result<(), LabError> {
    if options.offloads == Offloads::AsMade {
        return Ok(());
    }
    for (end, _) in plan.ends_of(host) {
        netns.run("ethtool", &["-K", &end.dev, "tx", "off", "tso", "off", "gso", "off"])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_process() {
        let rows = [
            ("xl12n0-client", Some(12)),
            ("xl7n31-m1", Some(7)),
            ("xl7-m1", None),
            ("xlan-x", None),
            ("amphora-haproxy", None),
        ];
        for (name, want) in rows {
            assert_eq!(pid(name), want, "{name}");
        }
    }
}
