//! The whole amphora: `xdp-lb agent` with real HAProxy and keepalived, told what Octavia tells it.
//!
//! Names of tests have the numbers of the edges in the contract with Octavia that they show. Those of the
//! machine, and where each is shown:
//!
//! - 1 to 11, 53, 55, 71, 72: `edges`; also by Octavia's own driver in `door_driver`, and `door_replay`.
//! - 12 to 15: `door_driver`, by what operators make of certificates.
//! - 34, 37, 39 to 41, 70: `traffic`; 35, 38: `traffic`, and `netns_engines` for HAProxy alone.
//! - 36, 54, 56, 69: `edges`. 5: `edges`, and ten thousand members in `door_driver`.
//! - 42, 44, 45, 48: `netns_plug`, by all of the stock agent's own files; 7, 8, 43, 46, 47 there as well.
//! - 22 to 27: `manager`. 28, 29: `figures`. 20: `metrics`. 43, 60 to 63: `life`; 32, 46, 47, 55, 60 of a pair: `pair`.

mod edges;
mod figures;
mod flow_logs;
mod life;
mod manager;
mod metrics;
mod pair;
mod traffic;
mod unit;
mod world;
