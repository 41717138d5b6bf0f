//! The proof: tables of frames, and real traffic in namespaces.

pub mod balancer;
pub mod clients;
pub mod flood;
mod http;
pub mod lab;
pub mod octavia;
pub mod payload;
pub mod servers;
