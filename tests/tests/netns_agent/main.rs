//! The whole amphora: `xdp-lb agent` with real HAProxy and keepalived, told what Octavia tells it.
//! Names of tests have the numbers of the edges in the contract with Octavia that they show.

mod edges;
mod life;
mod pair;
mod traffic;
mod world;
