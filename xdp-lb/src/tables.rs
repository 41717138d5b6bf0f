//! What the maps hold, or shall hold, as values.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use xdp_lb_ebpf::abi::{self, Backend, ListenerKey, NetworkKey};
use zerocopy::{Immutable, IntoBytes};

mod compile;
mod rings;

pub use compile::{Hop, World, compile};

/// The contents of the maps that user space writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub listeners: BTreeMap<ByBytes<ListenerKey>, abi::Listener>,
    /// By id. Those that left the document stay, without flags, until their last flow is gone.
    pub backends: BTreeMap<u32, Backend>,
    /// The epoch of each backend id that was used and is free.
    pub vacant: BTreeMap<u32, u32>,
    /// The rings that listeners point to, by where they start.
    pub rings: BTreeMap<u32, Vec<u32>>,
    /// Prefix length in bits, of listener and address, and the key.
    pub networks: BTreeSet<(u32, ByBytes<NetworkKey>)>,
    pub names: Names,
}

/// What ids are called in the document. The maps do not hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub listeners: BTreeMap<u32, String>,
    pub backends: BTreeMap<u32, BackendName>,
}

/// Ids of the document, where a backend stands or stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendName {
    pub listener: String,
    pub pool: String,
    pub member: String,
}

/// A key in the order of its bytes, which is that of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByBytes<T>(pub T);

/// Why a document does not fit. What holds the old document and the new one at the same time counts
/// both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{map} holds {max} entries, {wanted} are wanted")]
    Full { map: &'static str, wanted: usize, max: u32 },
}

impl Tables {
    /// What the maps hold, without the names. `ring` is all of `RING`.
    pub fn from_maps(
        listeners: impl IntoIterator<Item = (ListenerKey, abi::Listener)>,
        backends: impl IntoIterator<Item = (u32, Backend)>,
        networks: impl IntoIterator<Item = (u32, NetworkKey)>,
        ring: &[u32],
    ) -> Self {
        let mut tables = Self::default();
        for (key, listener) in listeners {
            let (start, len) = (listener.ring_start as usize, listener.ring_len as usize);
            if len > 0 {
                let entries = ring.get(start..start + len).unwrap_or_default();
                tables.rings.insert(listener.ring_start, entries.to_vec());
            }
            tables.listeners.insert(ByBytes(key), listener);
        }
        for (id, backend) in backends {
            // No member has port 0.
            match (backend.port, backend.epoch) {
                ([0, 0], 0) => {}
                ([0, 0], epoch) => drop(tables.vacant.insert(id, epoch)),
                _ => drop(tables.backends.insert(id, backend)),
            }
        }
        tables.networks = networks.into_iter().map(|(len, key)| (len, ByBytes(key))).collect();
        tables
    }
}

/// An address as the maps hold it.
pub fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => abi::mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address that the maps hold.
pub fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

impl<T: Eq + IntoBytes + Immutable> Ord for ByBytes<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl<T: Eq + IntoBytes + Immutable> PartialOrd for ByBytes<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
