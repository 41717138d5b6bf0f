//! The configuration of one UDP or SCTP listener, as Octavia uploads it for keepalived and IPVS.
//!
//! The grammar is that of Octavia's `keepalivedlvs.cfg.j2`, releases 4 to 19; whatever else keepalived
//! would take is refused. Nothing of it is run: the checks become a [`Monitor`](crate::Monitor).

mod check;
mod virtual_server;

use crate::keepalived::Lines;
use crate::paths::Paths;
use crate::refused::Refused;
use crate::understood::Listener;
use virtual_server::{Family, VirtualServer};

/// What the file of a listener says. Files that say the same in other words are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    load_balancer: String,
    enabled: bool,
    health_monitor: Option<String>,
    listener: Listener,
}

/// Reads the file of one listener (`PUT /listeners/<amphora>/<listener>/udp_listener`).
///
/// # Errors
///
/// The first line that no template of Octavia's leaves there, or that contradicts another: all members
/// of a pool are checked alike, and the blocks of both address families say the same.
pub fn parse(text: &str, paths: &Paths) -> Result<Config, Refused> {
    let mut lines = Lines::of(text);
    let [load_balancer] = lines.need("# Configuration for Loadbalancer <id>")?;
    let load_balancer = load_balancer.uuid()?;
    let disabled = lines.when("# Listener <id> is disabled");
    let enabled = disabled.is_none();
    let [id] = match disabled {
        Some(id) => id,
        None => lines.need("# Configuration for Listener <id>")?,
    };
    let id = id.uuid()?;
    let [] = lines.need("net_namespace amphora-haproxy")?;
    let mut server = VirtualServer::default();
    if enabled {
        server.read(&mut lines, Family::V4, paths)?;
        server.read(&mut lines, Family::V6, paths)?;
        server.read_single(&mut lines, paths)?;
    }
    lines.end()?;
    let (listener, health_monitor) = server.into_listener(id);
    Ok(Config { load_balancer, enabled, health_monitor, listener })
}

impl Config {
    /// Id of the load balancer, a UUID.
    pub fn load_balancer(&self) -> &str {
        &self.load_balancer
    }

    /// Id of the listener, a UUID, whether it is enabled or not.
    pub fn listener_id(&self) -> &str {
        &self.listener.id
    }

    /// Id of the health monitor of the pool, a UUID. It may be there although nothing is probed: Octavia
    /// renders no check for HTTP with another method than GET.
    pub fn health_monitor(&self) -> Option<&str> {
        self.health_monitor.as_deref()
    }

    /// The listener, and its pool if it has one; `None` if it is disabled.
    ///
    /// It has neither VIPs nor a pool if there is no default pool or the load balancer is disabled. The
    /// file does not tell UDP from SCTP then, and the protocol is a guess: UDP.
    pub fn listener(&self) -> Option<Listener> {
        self.enabled.then(|| self.listener.clone())
    }
}
