//! The network as the kernel has it: links, addresses, routes, neighbours.

pub mod source_ports;
pub mod topology;
pub mod watch;

pub use topology::{NextHop, Ours, Topology, Unreachable};
pub use watch::Watch;
