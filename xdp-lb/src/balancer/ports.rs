//! The interfaces the program runs on, kept attached while they come and go.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use crate::kernel::{Attached, Error, Kernel, Mode};
use crate::net::Topology;
use crate::plug::{VIP_INTERFACE, number};
use crate::record::{Interface, Record, Standing};

/// Which interfaces are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// These; the first is that of the VIPs.
    Named(Vec<String>),
    /// All `ethN` that are there, as Octavia plugs them; `eth1` is that of the VIPs.
    Plugged,
}

impl Interfaces {
    /// Name of the interface of the VIPs.
    pub fn of_vips(&self) -> &str {
        match self {
            Self::Named(names) => names.first().map_or("", |name| name),
            Self::Plugged => VIP_INTERFACE,
        }
    }

    fn wanted(&self, topology: &Topology) -> Vec<String> {
        match self {
            Self::Named(names) => names.clone(),
            Self::Plugged => {
                let names = topology.links.values().map(|link| &link.name[..]);
                let others = names.filter(|name| is_plugged(name) && *name != VIP_INTERFACE);
                [VIP_INTERFACE].into_iter().chain(others).map(str::to_owned).collect()
            }
        }
    }
}

/// Whether Octavia calls an interface so that it has plugged. `eth0` is that of the management network.
fn is_plugged(name: &str) -> bool {
    number(name).is_some_and(|number| number > 0)
}

pub struct Ports {
    which: Interfaces,
    interfaces: Vec<Interface>,
    /// What is known from before of those that come again.
    before: Vec<Interface>,
}

impl Ports {
    /// `before` tells why an interface that will be taken over is not native.
    pub fn new(which: Interfaces, before: &Record) -> Self {
        Self { which, interfaces: Vec::new(), before: before.interfaces.clone() }
    }

    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Interface indexes of those the program is on.
    pub fn attached(&self) -> BTreeSet<u32> {
        self.interfaces.iter().filter_map(ifindex).collect()
    }

    /// Whether there is something to try again.
    pub fn incomplete(&self) -> bool {
        self.interfaces
            .iter()
            .any(|interface| matches!(interface.standing, Standing::Failed { .. }))
    }

    /// Attaches to what is there and is not attached, forgets what is gone, and tells the packet
    /// path. The first time it takes over what an earlier start attached.
    pub fn settle(&mut self, kernel: &mut Kernel, topology: &Topology) -> Result<(), Error> {
        self.follow(topology);
        for linked in kernel.linked()? {
            if !self.interfaces.iter().any(|interface| interface.name == linked) {
                // Of an interface that is gone, the link is a pin and nothing else.
                info!("{linked} is ours no longer: detached");
                kernel.detach(&linked)?;
            }
        }
        for interface in &mut self.interfaces {
            settle(interface, kernel, topology);
        }
        kernel.retire_others()?;
        let attached = self.attached();
        kernel.maps.retain_ports(|ifindex| attached.contains(&ifindex))?;
        for ifindex in attached {
            let link = topology.links.get(&ifindex);
            if let Some(mac) = link.and_then(|link| link.mac) {
                // Gone since the topology was read: the next event says so.
                if let Err(error) = kernel.maps.set_port(ifindex, mac) {
                    warn!("{error}");
                }
            }
        }
        Ok(())
    }

    /// Those that are wanted now, each as it was.
    fn follow(&mut self, topology: &Topology) {
        let mut known: BTreeMap<String, Standing> = BTreeMap::new();
        for interface in self.before.drain(..).chain(self.interfaces.drain(..)) {
            known.insert(interface.name, interface.standing);
        }
        let interface = |name: String| {
            let standing = known.remove(&name).unwrap_or(Standing::Missing);
            Interface { name, standing }
        };
        self.interfaces = self.which.wanted(topology).into_iter().map(interface).collect();
    }
}

fn ifindex(interface: &Interface) -> Option<u32> {
    match interface.standing {
        Standing::Attached { ifindex, .. } => Some(ifindex),
        Standing::Missing | Standing::Failed { .. } => None,
    }
}

fn settle(interface: &mut Interface, kernel: &mut Kernel, topology: &Topology) {
    let name = &interface.name;
    let Some(found) = topology.ifindex(name) else {
        if interface.standing != Standing::Missing {
            warn!("{name} is gone");
            interface.standing = Standing::Missing;
        }
        return;
    };
    let seen = topology.links.get(&found).and_then(|link| link.xdp);
    if kernel.is_ours(name) && ifindex(interface) == Some(found) && seen.is_some() {
        return;
    }
    let standing = match kernel.attach(name, found) {
        Ok(Attached::TakenOver) => {
            let refused = match &interface.standing {
                Standing::Attached { mode: Mode::Generic, refused, .. } => refused.clone(),
                _ => None,
            };
            let mode = seen.unwrap_or(Mode::Native);
            info!("{name}: the program was replaced, {mode} mode");
            Standing::Attached { ifindex: found, mode, refused }
        }
        Ok(Attached::New { mode, refused }) => {
            info!("{name}: attached in {mode} mode");
            if let Some(refused) = &refused {
                warn!("{name} is not native: {refused}");
            }
            Standing::Attached { ifindex: found, mode, refused }
        }
        Err(error) => Standing::Failed { why: error.to_string() },
    };
    if let Standing::Failed { why } = &standing
        && standing != interface.standing
    {
        warn!("not attached: {why}");
    }
    interface.standing = standing;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugged() {
        for (name, want) in [
            ("eth1", true),
            ("eth12", true),
            ("eth0", false),
            ("eth", false),
            ("eth1.5", false),
            ("lo", false),
            ("veth1", false),
        ] {
            assert_eq!(is_plugged(name), want, "{name}");
        }
    }
}
