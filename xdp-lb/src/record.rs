//! What the daemon knows and the maps do not hold, written down for `status`, `stats` and `flows`:
//! names, and why a member is not used. A restart takes the names from it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use agent_api::understood::Persistence;
use agent_api::{Algorithm, Monitor};
use serde::{Deserialize, Serialize};

use crate::kernel::Mode;
use crate::moved::Moved;
use crate::tables::{BackendName, Names};
use crate::volatile;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    pub pid: u32,
    /// What is wrong with the document or the maps now; the state before it is in force.
    pub error: Option<String>,
    pub interfaces: Vec<Interface>,
    pub listeners: Vec<Listener>,
    #[serde(default)]
    pub leaving: Vec<Leaving>,
    /// Listeners that the packet path does not serve.
    #[serde(default)]
    pub beside: Vec<Beside>,
    /// Of the listeners that the packet path serves.
    #[serde(default)]
    pub pools: Vec<Pool>,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub standing: Standing,
}

/// How the program is on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// There is no such interface.
    Missing,
    Attached {
        ifindex: u32,
        mode: Mode,
        /// Why it is not native, where that is known.
        refused: Option<String>,
    },
    Failed {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// None while it is disabled.
    pub number: Option<u32>,
    pub id: String,
    pub vips: Vec<IpAddr>,
    pub port: u16,
    pub protocol: String,
    pub pool: Option<String>,
    pub connection_limit: Option<u32>,
    #[serde(default)]
    pub counted: Counted,
}

/// One that left the document while it has connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    pub number: u32,
    pub id: String,
    pub counted: Counted,
}

/// Of a listener, what its counters in the maps do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// When they began at 0, in nanoseconds since 1970; told apart by it, never reckoned with.
    pub since_ns: u64,
    /// By members whose backends are no more: their counters are given to others.
    pub departed: Moved,
}

/// A listener that something else serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    pub id: String,
    pub vips: Vec<IpAddr>,
    pub port: u16,
    /// In Octavia's words.
    pub protocol: String,
    /// The program; none where nobody does.
    pub by: Option<String>,
    /// Why not the packet path.
    pub why: String,
    /// What would make it the packet path's.
    #[serde(default)]
    pub change: Option<String>,
    #[serde(default)]
    pub pools: Vec<Pool>,
}

/// How a pool's members are chosen and watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub id: String,
    pub algorithm: Algorithm,
    pub persistence: Option<Persistence>,
    pub monitor: Option<Monitor>,
}

/// A member as one listener uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub number: u32,
    pub listener: String,
    pub pool: String,
    pub member: String,
    pub address: IpAddr,
    pub port: u16,
    pub weight: u16,
    pub state: State,
    /// Why it takes no new flows.
    pub why: Option<String>,
    /// What would make it take them.
    #[serde(default)]
    pub change: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Takes new flows.
    Up,
    /// Weight 0: its flows go on, and clients that persistence holds to it come back.
    Draining,
    /// Waits until no other member is up.
    Backup,
    Disabled,
    Down,
    /// Not in the document any more; its flows go on.
    Leaving,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Backup => "backup",
            Self::Disabled => "disabled",
            Self::Down => "down",
            Self::Leaving => "leaving",
        })
    }
}

impl Record {
    /// None where there is none, or one of another version.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// A reader finds the old one or the new one, whole.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        volatile::write(path, 0o644, &serde_json::to_vec_pretty(self)?).map_err(|it| it.error)
    }

    pub fn names(&self) -> Names {
        let listeners = self
            .listeners
            .iter()
            .filter_map(|listener| Some((listener.number?, listener.id.clone())))
            .chain(self.leaving.iter().map(|listener| (listener.number, listener.id.clone())));
        let backends = self.backends.iter().map(|backend| {
            let name = BackendName {
                listener: backend.listener.clone(),
                pool: backend.pool.clone(),
                member: backend.member.clone(),
            };
            (backend.number, name)
        });
        Names { listeners: listeners.collect(), backends: backends.collect::<BTreeMap<_, _>>() }
    }
}
