//! The interfaces the program runs on, kept attached while they come and go.

use std::collections::BTreeSet;

use tracing::{info, warn};

use crate::kernel::{Attached, Error, Kernel, Mode};
use crate::net::Topology;
use crate::record::{Interface, Record, Standing};

pub struct Ports(Vec<Interface>);

impl Ports {
    /// `before` tells why an interface that will be taken over is not native.
    pub fn new(names: &[String], before: &Record) -> Self {
        let standing = |name: &String| {
            let known = before.interfaces.iter().find(|interface| interface.name == *name);
            known.map_or(Standing::Missing, |interface| interface.standing.clone())
        };
        let interface = |name: &String| Interface { name: name.clone(), standing: standing(name) };
        Self(names.iter().map(interface).collect())
    }

    pub fn interfaces(&self) -> &[Interface] {
        &self.0
    }

    /// Interface indexes of those the program is on.
    pub fn attached(&self) -> BTreeSet<u32> {
        self.0.iter().filter_map(ifindex).collect()
    }

    /// Whether there is something to try again.
    pub fn incomplete(&self) -> bool {
        self.0.iter().any(|interface| matches!(interface.standing, Standing::Failed { .. }))
    }

    /// Attaches to what is there and is not attached, forgets what is gone, and tells the packet
    /// path. The first time it takes over what an earlier start attached.
    pub fn settle(&mut self, kernel: &mut Kernel, topology: &Topology) -> Result<(), Error> {
        for linked in kernel.linked()? {
            if !self.0.iter().any(|interface| interface.name == linked) {
                info!("{linked} is ours no longer: detached");
                kernel.detach(&linked)?;
            }
        }
        for interface in &mut self.0 {
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
