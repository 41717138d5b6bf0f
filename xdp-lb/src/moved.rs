//! What went through, in totals.

use std::ops::Add;

use serde::{Deserialize, Serialize};
use xdp_lb_ebpf::abi::{BackendCounters, Traffic};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Flows opened.
    pub opened: u64,
    /// From clients.
    pub packets_in: u64,
    /// From the IP header on.
    pub bytes_in: u64,
    /// To clients.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Behind the TCP, UDP or SCTP header.
    pub payload_in: u64,
    pub payload_out: u64,
}

impl From<BackendCounters> for Moved {
    fn from(counters: BackendCounters) -> Self {
        let Traffic { packets: packets_in, bytes: bytes_in, payload: payload_in } =
            counters.received;
        let Traffic { packets: packets_out, bytes: bytes_out, payload: payload_out } =
            counters.sent;
        let opened = counters.opened;
        Self { opened, packets_in, bytes_in, packets_out, bytes_out, payload_in, payload_out }
    }
}

impl Add for Moved {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            opened: self.opened + other.opened,
            packets_in: self.packets_in + other.packets_in,
            bytes_in: self.bytes_in + other.bytes_in,
            packets_out: self.packets_out + other.packets_out,
            bytes_out: self.bytes_out + other.bytes_out,
            payload_in: self.payload_in + other.payload_in,
            payload_out: self.payload_out + other.payload_out,
        }
    }
}
