//! Octavia's uploads: what it renders is understood, and nothing else is.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod haproxy;
mod lvs;
mod lvs_refused;
mod lvs_vectors;
mod model;
mod sidecar;
mod understood;
mod vrrp;
mod vrrp_refused;
