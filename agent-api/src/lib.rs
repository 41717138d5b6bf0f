//! Everything Octavia can see of an amphora.

pub mod amphora;
mod classify;
pub mod config;
mod desired;
pub mod document;
pub mod door;
pub mod durable;
mod file;
mod grammar;
pub mod haproxy;
pub mod heartbeat;
mod keepalived;
pub mod limits;
pub mod lvs;
mod monitor;
pub mod names;
mod original;
pub mod oslo;
mod paths;
pub mod peer;
pub mod plug;
mod refused;
pub mod rules;
pub mod store;
pub mod understood;
mod validate;
pub mod vrrp;

pub use config::AgentConfig;
pub use desired::{
    Algorithm, BadName, Desired, Listener, LogFormat, Member, Name, Persistence, Pool, Protocol,
};
pub use file::Error;
pub use ipnet::IpNet;
pub use monitor::{HttpProbe, Monitor, OnMarkedDown, Probe};
pub use paths::Paths;
pub use refused::Refused;
pub use store::Store;
pub use understood::Understood;
pub use validate::{Fault, Invalid, Place, Step, Unfit};
