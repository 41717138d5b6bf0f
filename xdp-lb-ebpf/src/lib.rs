//! The packet path of xdp-lb: parse, classify, select, rewrite; and the map ABI both sides compile.
//!
//! Nothing here knows a map, a helper or a kernel. The stages take plain values and whatever
//! implements [`Tables`]: the BPF maps in `main.rs`, plain memory in the tests. A packet's way reads
//! top to bottom in [`path`].
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), allow(internal_features))]
#![deny(unsafe_code)]

pub mod abi;
pub mod account;
pub mod answer;
pub mod bench;
pub mod capture;
pub mod cell;
pub mod checksum;
pub mod family;
pub mod flows;
pub mod fragment;
pub mod headers;
#[cfg(not(target_arch = "bpf"))]
pub mod hook;
pub mod icmp;
pub mod limits;
#[cfg(not(target_arch = "bpf"))]
pub mod memory;
pub mod packet;
pub mod parse;
pub mod path;
pub mod progress;
pub mod reason;
pub mod rewrite;
pub mod sctp;
pub mod select;
pub mod tables;

pub use packet::Packet;
pub use reason::Reason;
pub use tables::Tables;
