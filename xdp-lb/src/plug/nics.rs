//! Interfaces found by their MAC address, moved into the namespace, and configured there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use agent_api::amphora::{Failed, PlugError, Plugged, Traffic};
use agent_api::config::Topology;
use agent_api::document::Plugs;
use agent_api::plug::{Mac, NetworkPlug, VipPlug};
use futures_util::StreamExt;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::diff::{Change, Held, Standing, additions, changes};
use super::layout::{Layout, Port};
use super::names::{self, Names, VIP_INTERFACE};
use super::wire::{Link, Wire, ipv6_address_events};
use super::{announce, dhcp};
use crate::namespace::{Namespace, set_sysctl};

/// How long the kernel may ask whether somebody else has an IPv6 address; it takes a second or two, but
/// does not begin without a carrier. As the stock agent.
const DUPLICATE_DETECTION: Duration = Duration::from_secs(30);

/// The interfaces of an amphora: those inside its namespace, and those outside of it, where Nova puts
/// them.
#[derive(Debug)]
pub struct Nics {
    namespace: Namespace,
    inside: Wire,
    outside: Wire,
    places: Places,
}

/// Files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Which MAC address had which name, for after a reboot.
    pub names: PathBuf,
    /// What is written to has the kernel look for hardware that it was not told of.
    pub pci_rescan: PathBuf,
}

/// What became of an interface.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("netlink: {0}")]
    Look(io::Error),
    #[error("{interface}: {doing}: {error}")]
    Change { interface: String, doing: String, error: io::Error },
    #[error("{mac} cannot become {name}: {by} has that name")]
    Taken { mac: Mac, name: String, by: Mac },
    #[error("{mac} was moved into the namespace and is not there")]
    Lost { mac: Mac },
    #[error("{interface}: somebody else has {address} (duplicate address detection)")]
    Duplicate { interface: String, address: IpAddr },
}

/// What is there and not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surplus {
    Goes,
    Stays,
}

impl Places {
    /// Of a machine whose state is below Octavia's `base_path`.
    pub fn of(base: &Path) -> Self {
        Self {
            names: base.join("plugged_interfaces"),
            pci_rescan: PathBuf::from("/sys/bus/pci/rescan"),
        }
    }
}

impl Nics {
    /// Between the namespace of this thread and the other one. Must be called from a tokio runtime.
    pub fn open(namespace: Namespace, places: Places) -> io::Result<Self> {
        let inside = Wire::inside(&namespace)?;
        Ok(Self { inside, outside: Wire::here()?, namespace, places })
    }

    /// Takes the interface of this MAC in as `eth1`.
    ///
    /// One that is in already is `Exists`. What it lacks it gets all the same: the first request may
    /// have been cut short. It keeps all it has, for it may have been given more since.
    pub async fn plug_vip(&self, plug: &VipPlug, topology: Topology) -> Result<Plugged, PlugError> {
        let layout = Layout::of_vip(plug, topology);
        if let Some(link) = self.by_mac(plug.mac).await? {
            self.configure(&link, &layout, Surplus::Stays).await?;
            return Err(PlugError::Exists);
        }
        let link = self.take_in(plug.mac, Some(VIP_INTERFACE)).await?;
        self.configure(&link, &layout, Surplus::Goes).await?;
        Ok(Plugged::New(link.name))
    }

    /// Takes an interface towards members in as the first free `eth2` or on; of one that is in already,
    /// changes what differs. Tells the neighbours of its addresses.
    pub async fn plug_network(
        &self,
        plug: &NetworkPlug,
        topology: Topology,
    ) -> Result<Plugged, PlugError> {
        let layout = Layout::of_network(plug, topology);
        let plugged = if let Some(link) = self.by_mac(plug.mac).await? {
            // Of the VIPs nothing was said: not that they are to go.
            let untold = link.name == VIP_INTERFACE && plug.vip.is_none();
            let surplus = if untold { Surplus::Stays } else { Surplus::Goes };
            self.configure(&link, &layout, surplus).await?;
            Plugged::Updated(link.name)
        } else {
            let name = plug.vip.as_ref().map(|_| VIP_INTERFACE);
            let link = self.take_in(plug.mac, name).await?;
            self.configure(&link, &layout, Surplus::Goes).await?;
            Plugged::New(link.name)
        };
        let addresses = plug.addresses.iter().flatten();
        self.announce(&addresses.map(|own| own.address).collect::<Vec<_>>()).await;
        Ok(plugged)
    }

    /// Brings all that was plugged to what it shall be. After a restart that changes nothing; after a
    /// reboot it takes the interfaces in again, under the names they had.
    ///
    /// One towards members that is nowhere is left out: they are unplugged without notice. One that fails
    /// keeps no other from being restored; all are told in the end, and that of the VIPs also where it
    /// is nowhere, for it may be late.
    pub async fn restore(&self, plugs: &Plugs, topology: Topology) -> Result<(), Failed> {
        let names = Names::read(&self.places.names);
        let mut ports = Port::all(plugs, topology);
        // Those without a name take what is left.
        ports.sort_by_key(|port| !port.vip && names.of(port.mac).is_none());
        let mut failures = Vec::new();
        for port in ports {
            let (mac, vip) = (port.mac, port.vip);
            match self.restore_port(port, &names).await {
                Ok(()) => {}
                Err(PlugError::NotFound) if !vip => {
                    warn!("{mac} was plugged and is not there any more")
                }
                Err(error) => failures.push(format!("{mac}: {error}")),
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(Failed(failures.join("; "))) }
    }

    async fn restore_port(&self, port: Port, names: &Names) -> Result<(), PlugError> {
        let link = match self.by_mac(port.mac).await? {
            Some(link) => link,
            None => {
                let had = if port.vip { Some(VIP_INTERFACE) } else { names.of(port.mac) };
                self.take_in(port.mac, had).await?
            }
        };
        Ok(self.configure(&link, &port.layout, Surplus::Goes).await?)
    }

    /// Name of the interface inside that has this address.
    pub async fn interface(&self, ip: IpAddr) -> Result<Option<String>, Failed> {
        let addresses = self.inside.addresses().await.map_err(Error::Look)?;
        let found = addresses.iter().find(|(_, held)| held.net.addr() == ip);
        let Some(&(index, _)) = found else { return Ok(None) };
        let links = self.inside.links().await.map_err(Error::Look)?;
        Ok(links.into_iter().find(|link| link.index == index).map(|link| link.name))
    }

    /// Of the interfaces `eth*` inside.
    pub async fn traffic(&self) -> Result<BTreeMap<String, Traffic>, Failed> {
        let links = self.inside.links().await.map_err(Error::Look)?;
        let ours = links.into_iter().filter(|link| names::number(&link.name).is_some());
        let traffic =
            |link: &Link| Traffic { network_tx: link.tx_bytes, network_rx: link.rx_bytes };
        Ok(ours.map(|link| (link.name.clone(), traffic(&link))).collect())
    }

    /// Tells the neighbours of those of the addresses that are inside. What fails is logged: they will
    /// find out by themselves.
    pub async fn announce(&self, addresses: &[IpAddr]) {
        if let Err(error) = self.try_announce(addresses).await {
            warn!("neighbours are not told of {addresses:?}: {error}");
        }
    }

    async fn try_announce(&self, addresses: &[IpAddr]) -> io::Result<()> {
        let links = self.inside.links().await?;
        let mut frames = Vec::new();
        for (index, held) in self.inside.addresses().await? {
            let ip = held.net.addr();
            let link = links.iter().find(|link| link.index == index);
            if let Some(link) = link.filter(|_| addresses.contains(&ip)) {
                frames.push((index, announce::frame(link.mac, ip)?));
            }
        }
        announce::send(&self.namespace, &frames)
    }

    async fn by_mac(&self, mac: Mac) -> Result<Option<Link>, Error> {
        self.inside.by_mac(mac).await.map_err(Error::Look)
    }

    /// Moves an interface in, under this name or the first that is free.
    async fn take_in(&self, mac: Mac, name: Option<&str>) -> Result<Link, PlugError> {
        let Some(outside) = self.outside.by_mac(mac).await.map_err(Error::Look)? else {
            self.rescan().await;
            return Err(PlugError::NotFound);
        };
        let inside = self.inside.links().await.map_err(Error::Look)?;
        let taken = || inside.iter().map(|link| &link.name[..]);
        let name = name.map_or_else(|| names::free(taken()), str::to_owned);
        if let Some(other) = inside.iter().find(|link| link.name == name) {
            return Err(Error::Taken { mac, name, by: other.mac }.into());
        }
        // Before it moves: what is in the namespace shall be known after a crash.
        if let Err(error) = Names::keep(&self.places.names, mac, &name) {
            warn!("{mac} may get another name after a reboot: {error}");
        }
        let moved = self.outside.hand_over(outside.index, self.namespace.as_fd(), &name).await;
        moved.map_err(|error| Error::Change {
            interface: outside.name.clone(),
            doing: format!("moving it to {} as {name}", self.namespace.name()),
            error,
        })?;
        info!("{mac} is {name} in {}, and was {}", self.namespace.name(), outside.name);
        Ok(self.by_mac(mac).await?.ok_or(Error::Lost { mac })?)
    }

    /// Nova has plugged interfaces in of which the kernel was not told.
    async fn rescan(&self) {
        let path = self.places.pci_rescan.clone();
        let written = tokio::task::spawn_blocking(move || match fs::write(&path, "1") {
            // No PCI here.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            written => written,
        });
        let written = written.await.map_err(io::Error::other).flatten();
        if let Err(error) = written {
            warn!("{}: {error}", self.places.pci_rescan.display());
        }
    }

    async fn configure(&self, link: &Link, layout: &Layout, surplus: Surplus) -> Result<(), Error> {
        self.listen_to_routers(&link.name, layout.slaac);
        let actual = self.inside.actual(link).await.map_err(Error::Look)?;
        let changes = match surplus {
            Surplus::Goes => changes(layout, &actual),
            Surplus::Stays => additions(layout, &actual),
        };
        let settled = changes.iter().position(|change| change.needs_addresses());
        let (addresses, routes) = changes.split_at(settled.unwrap_or(changes.len()));
        for &change in addresses {
            self.apply(link, change).await?;
        }
        // One that cannot be used keeps nothing else from working.
        let usable = self.wait_until_usable(link, layout).await;
        for &change in routes {
            self.apply(link, change).await?;
        }
        if layout.dhcp {
            dhcp::ask(&self.namespace, &link.name);
        }
        usable
    }

    async fn apply(&self, link: &Link, change: Change) -> Result<(), Error> {
        let interface = &link.name;
        debug!("{interface}: {change:?}");
        let Err(error) = self.inside.apply(link.index, change).await else { return Ok(()) };
        if is_done(change, &error) {
            debug!("{interface}: {change:?}: {error}");
            return Ok(());
        }
        match change {
            Change::SetUp | Change::AddAddress(_) | Change::AddRule(_) => {
                let (interface, doing) = (interface.clone(), format!("{change:?}"));
                Err(Error::Change { interface, doing, error })
            }
            // Host routes are the tenant's, and may make no sense. What does not go is in nobody's way.
            Change::SetMtu(_)
            | Change::AddRoute(_)
            | Change::RemoveAddress(_)
            | Change::RemoveRoute(_)
            | Change::RemoveRule(_) => {
                warn!("{interface}: {change:?}: {error}");
                Ok(())
            }
        }
    }

    /// Router advertisements are heeded only where nothing else tells of addresses. 2 is also on a
    /// machine that forwards.
    fn listen_to_routers(&self, interface: &str, slaac: bool) {
        let key = format!("ipv6/conf/{interface}/accept_ra");
        let value = if slaac { "2" } else { "0" };
        if let Err(error) = self.namespace.enter(|| set_sysctl(&key, value)).flatten() {
            warn!("net/{key} is not {value}: {error}");
        }
    }

    /// Returns when the kernel is done with asking whether somebody else has one of the addresses.
    async fn wait_until_usable(&self, link: &Link, layout: &Layout) -> Result<(), Error> {
        if self.count_tentative(link, layout).await? == 0 {
            return Ok(());
        }
        let events = ipv6_address_events(&self.namespace).map_err(Error::Look)?;
        let mut events = pin!(events);
        let wait = async {
            // Nothing was heard of what came before the socket.
            while self.count_tentative(link, layout).await? > 0 {
                let deaf = || Error::Look(io::Error::other("the socket is closed"));
                events.next().await.ok_or_else(deaf)?;
            }
            Ok(())
        };
        match timeout(DUPLICATE_DETECTION, wait).await {
            Ok(usable) => usable,
            Err(_) => {
                warn!("{}: IPv6 addresses are still tentative: no carrier?", link.name);
                Ok(())
            }
        }
    }

    /// How many of the addresses cannot be used yet; if there are none, an error if one never can.
    ///
    /// Beside IPv6 addresses, that of the link counts: without it the kernel asks for no neighbour of
    /// IPv6, and tries again only a second later (`ndisc_send_ns`, Linux 6.18).
    async fn count_tentative(&self, link: &Link, layout: &Layout) -> Result<usize, Error> {
        let addresses = self.inside.addresses().await.map_err(Error::Look)?;
        let has_v6 = layout.addresses.iter().any(|net| net.addr().is_ipv6());
        let is_of_link = |held: &Held| match held.net.addr() {
            IpAddr::V6(address) => has_v6 && address.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        let is_ours = |(index, held): &(u32, Held)| {
            let counts = layout.addresses.contains(&held.net) || is_of_link(held);
            *index == link.index && counts
        };
        let (mut tentative, mut duplicate) = (0, None);
        for (_, held) in addresses.into_iter().filter(is_ours) {
            match held.standing {
                Standing::Permanent | Standing::Dynamic => {}
                Standing::Tentative => tentative += 1,
                Standing::Duplicate => duplicate = Some(held.net.addr()),
            }
        }
        match duplicate {
            Some(address) if tentative == 0 => {
                Err(Error::Duplicate { interface: link.name.clone(), address })
            }
            Some(_) | None => Ok(tentative),
        }
    }
}

/// What is to be added is there, or what is to be removed is not.
fn is_done(change: Change, error: &io::Error) -> bool {
    let gone = [libc::EADDRNOTAVAIL, libc::ESRCH, libc::ENOENT];
    let done = if change.adds() { &[libc::EEXIST][..] } else { &gone };
    error.raw_os_error().is_some_and(|number| done.contains(&number))
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl From<Error> for PlugError {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever answers requests may do so on any thread. Compiled, not run.
    #[allow(dead_code, reason = "that it compiles is the test")]
    fn on_any_thread(nics: &Nics, vip: &VipPlug, network: &NetworkPlug, plugs: &Plugs, ip: IpAddr) {
        fn is_send(_: impl Future + Send) {}
        is_send(nics.plug_vip(vip, Topology::Single));
        is_send(nics.plug_network(network, Topology::Single));
        is_send(nics.restore(plugs, Topology::Single));
        is_send(nics.interface(ip));
        is_send(nics.traffic());
        is_send(nics.announce(&[]));
    }
}
