//! The proof: tables of frames, and real traffic in namespaces.

pub mod agent;
pub mod balancer;
pub mod clients;
pub mod container;
pub mod door;
pub mod flood;
mod http;
pub mod lab;
pub mod manager;
pub mod memory;
pub mod octavia;
pub mod payload;
pub mod pki;
pub mod servers;
pub mod show;
pub mod signals;
pub mod system;
pub mod unit;
pub mod uploads;
