//! What is to be probed, and how: from the document.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_api::{Desired, Monitor, Protocol};
use serde::{Deserialize, Serialize};

use super::Name;
use super::member::{Member, Thresholds};
use super::probe::Patience;

/// For a connection to be there: Octavia's `timeout connect` of a pool, where no operator has changed it.
const CONNECT: Duration = Duration::from_secs(5);

/// A member that is to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: Name,
    pub manner: Manner,
    pub monitor: Arc<Monitor>,
    /// Where it serves.
    pub serves_at: SocketAddr,
    /// Where it is probed.
    pub at: SocketAddr,
}

/// By whose rules a member turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manner {
    /// The pools of TCP listeners: a member begins as up, but its first failure is decisive.
    Haproxy,
    /// The pools of UDP and SCTP listeners: a member begins as up, and its first failure is one like any
    /// other. A failure is followed by `retry` more before it is decisive, and one success brings the
    /// member back (keepalived `check_misc.c`, `check_tcp.c`). Between them is `delay_before_retry`,
    /// which Octavia renders as the delay.
    Keepalived,
}

/// The enabled members of enabled pools that have a monitor and an enabled listener, pool by pool.
/// However many listeners a pool has, its members are there once.
pub fn targets(desired: &Desired) -> Vec<Target> {
    let mut manners: BTreeMap<&str, Manner> = BTreeMap::new();
    for listener in desired.listeners.iter().filter(|listener| listener.enabled) {
        let Some(pool) = &listener.pool else { continue };
        let manner = manners.entry(pool).or_insert(Manner::Haproxy);
        match listener.protocol {
            Protocol::Udp | Protocol::Sctp => *manner = Manner::Keepalived,
            Protocol::Tcp => {}
        }
    }
    let mut targets = Vec::new();
    for pool in desired.pools.iter().filter(|pool| pool.enabled) {
        let (Some(monitor), Some(manner)) = (&pool.monitor, manners.get(&pool.id[..])) else {
            continue;
        };
        let monitor = Arc::new(monitor.clone());
        let members = pool.members.iter().filter(|member| member.enabled);
        targets.extend(members.map(|member| Target {
            name: (pool.id.clone(), member.id.clone()),
            manner: *manner,
            monitor: Arc::clone(&monitor),
            serves_at: (member.address, member.port).into(),
            at: member.probed_at.unwrap_or((member.address, member.port).into()),
        }));
    }
    targets
}

impl Target {
    /// Whether what is known of the one is true of the other: the same place, asked the same.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.name, self.manner, self.at) == (&other.name, other.manner, other.at)
            && self.monitor.probe == other.monitor.probe
    }

    /// Before the first probe.
    pub fn begins(&self) -> Member {
        match self.manner {
            Manner::Haproxy => Member::new(self.thresholds()),
            Manner::Keepalived => Member::Up { failed: 0 },
        }
    }

    /// From one probe's beginning to the next one's.
    pub fn delay(&self) -> Duration {
        seconds(self.monitor.delay_s)
    }

    /// HAProxy gives the connection `timeout connect` or the delay, whichever is less, and the answer
    /// `timeout check` from then on (`tcpcheck.c`). keepalived has one time for each of them.
    pub fn patience(&self) -> Patience {
        let read = seconds(self.monitor.timeout_s);
        let connect = match self.manner {
            Manner::Haproxy => CONNECT.min(self.delay()),
            Manner::Keepalived => read,
        };
        Patience { connect, read }
    }

    pub fn thresholds(&self) -> Thresholds {
        self.manner.thresholds(&self.monitor)
    }
}

impl Manner {
    pub fn thresholds(self, monitor: &Monitor) -> Thresholds {
        let Monitor { rise, fall, .. } = *monitor;
        match self {
            Self::Haproxy => Thresholds { rise, fall },
            Self::Keepalived => Thresholds { rise: 1, fall: fall.saturating_add(1) },
        }
    }
}

/// One at least: without a pause a member would be probed all the time.
fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.max(1).into())
}
