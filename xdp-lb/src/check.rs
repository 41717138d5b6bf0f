//! Whether this amphora is well, as VRRP asks every few seconds: a process of its own, which needs
//! no agent. What it finds ill makes the other amphora the master.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use agent_api::{Name, durable};
use aya::maps::{HashMap, Map, MapData};
use serde::{Deserialize, Serialize};
use xdp_lb_ebpf::abi::{Listener, ListenerKey};

use crate::haproxy::socket;
use crate::kernel::Pins;
use crate::lock::run_file;
use crate::net::Watch;
use crate::volatile;

/// The stock script waits for 5 seconds, which is as long as keepalived waits for the script.
const ANSWERING: Duration = Duration::from_secs(2);

/// What must hold for the amphora to be well. The agent writes it whenever it changes; where there
/// is none, as before the first listener, nothing is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// How many listeners the XDP program serves.
    pub xdp_listeners: usize,
    /// The interfaces in the namespace that it must be attached to. None of them counts while it
    /// has no listener.
    pub interfaces: Vec<String>,
    /// HAProxy's sockets for statistics, one for each process that must run.
    pub haproxy: Vec<PathBuf>,
}

/// Why the amphora is not fit to be master.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    #[error("what is to be expected cannot be read: {0}")]
    Unreadable(String),
    /// Also before the first start since a boot.
    #[error("nothing has been served yet")]
    Unexpected,
    /// Without a listener the VIPs are to be nowhere (Octavia `haproxy_check_script.sh`).
    #[error("there is no listener")]
    NothingServed,
    #[error("the interfaces cannot be listed: {0}")]
    Network(String),
    #[error("no XDP program is attached to {interface}")]
    Detached { interface: String },
    #[error("{}: {error}", .path.display())]
    Map { path: PathBuf, error: String },
    #[error("the XDP program has no listener, {expected} are expected")]
    Unlistened { expected: usize },
    #[error("HAProxy does not answer at {}: {error}", .socket.display())]
    Silent { socket: PathBuf, error: io::Error },
}

impl Expectation {
    pub fn read(name: &Name) -> Result<Self, Unwell> {
        let unreadable = |error: &dyn std::error::Error| Unwell::Unreadable(error.to_string());
        let read = durable::read(&path(name)).map_err(|error| unreadable(&error))?;
        let text = read.ok_or(Unwell::Unexpected)?;
        serde_json::from_slice(&text).map_err(|error| unreadable(&error))
    }

    /// For [`check`] of the same name.
    pub fn write(&self, name: &Name) -> Result<(), durable::Error> {
        let path = path(name);
        let text = serde_json::to_vec(self).map_err(|error| durable::Error {
            path: path.clone(),
            doing: "write",
            error: error.into(),
        })?;
        volatile::write(&path, 0o600, &text)
    }
}

/// Where what is expected is written, by the name under which maps are pinned.
pub fn path(name: &Name) -> PathBuf {
    run_file(name, "expected")
}

/// To be asked in the namespace of the load balancer.
pub fn check(name: &Name) -> Result<(), Unwell> {
    let expected = Expectation::read(name)?;
    if expected.xdp_listeners == 0 && expected.haproxy.is_empty() {
        return Err(Unwell::NothingServed);
    }
    if expected.xdp_listeners > 0 {
        attached(&expected.interfaces)?;
        listening(&Pins::of(name), expected.xdp_listeners)?;
    }
    expected.haproxy.iter().try_for_each(|socket| {
        socket::answers(socket, ANSWERING)
            .map_err(|error| Unwell::Silent { socket: socket.clone(), error })
    })
}

fn attached(interfaces: &[String]) -> Result<(), Unwell> {
    let failed = |error: &dyn std::error::Error| Unwell::Network(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    let topology = runtime.block_on(async {
        let watch = Watch::new().map_err(|error| failed(&error))?;
        watch.topology().await.map_err(|error| failed(&error))
    })?;
    let carries = |name: &String| {
        topology.links.values().any(|link| link.name == *name && link.xdp.is_some())
    };
    match interfaces.iter().find(|name| !carries(name)) {
        Some(interface) => Err(Unwell::Detached { interface: interface.clone() }),
        None => Ok(()),
    }
}

/// That there are maps, and a listener in them. Which ones is the agent's to know.
fn listening(pins: &Pins, expected: usize) -> Result<(), Unwell> {
    type Listeners = HashMap<MapData, [u8; size_of::<ListenerKey>()], [u8; size_of::<Listener>()]>;
    let path = pins.map("LISTENERS");
    let opened = MapData::from_pin(&path).and_then(Map::from_map_data);
    let listeners = opened.and_then(Listeners::try_from);
    let first = listeners.map(|listeners| listeners.keys().next().transpose());
    match first.and_then(|first| first) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Unwell::Unlistened { expected }),
        Err(error) => Err(Unwell::Map { path, error: crate::kernel::links::chain(&error) }),
    }
}
