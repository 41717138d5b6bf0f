//! All the rings of a document: how long each may be, and where it stands.

use agent_api::Algorithm;
use xdp_lb_ebpf::abi::ListenerKey;
use xdp_lb_ebpf::limits::{BACKENDS_MAX, LISTENERS_MAX, RING_MAX};

use super::{ByBytes, Error, Tables};
use crate::ids::Ids;
use crate::ring::{self, Candidate, MAGLEV_LENGTHS, SMOOTH_MAX};

/// Ring entries that a document may take: the other half is for the one that replaces it.
const RINGS_MAX: usize = RING_MAX as usize / 2;

// With the least lengths every document fits: a Maglev ring is at most 4.2 times as long as it has
// members, or 61.
const _: () = assert!((LISTENERS_MAX * 2) as usize * 61 + BACKENDS_MAX as usize * 5 <= RINGS_MAX);

/// A ring to be filled, and the keys whose listener shall point to it.
pub struct Ring {
    pub keys: Vec<ListenerKey>,
    pub algorithm: Algorithm,
    /// Members that would share the flows if all were up, and their ids.
    pub members: Vec<Candidate>,
    pub ids: Vec<u32>,
    /// Weights of those who share the flows in good times, and of the backups who do in bad ones.
    pub weights: [Vec<u16>; 2],
}

/// Fills the rings and points the listeners to them.
///
/// Where they would take more than half of the map, all are held to a length at which they fit, which
/// is the same on both amphorae whoever is up; and to less where there is no gap for one.
pub fn place(rings: &[Ring], ids: &Ids<'_>, tables: &mut Tables) -> Result<(), Error> {
    let wanted = |longest: usize| rings.iter().map(|ring| ring.room(longest)).sum();
    let [least, ..] = MAGLEV_LENGTHS;
    let mut placed = Err(Error::Full { map: "RING", wanted: wanted(least), max: RING_MAX });
    for longest in MAGLEV_LENGTHS.into_iter().rev() {
        if placed.is_err() && wanted(longest) <= RINGS_MAX {
            placed = regions(rings, ids.clone(), longest);
        }
    }
    for (ring, (start, entries)) in rings.iter().zip(placed?) {
        if entries.is_empty() {
            continue;
        }
        for key in &ring.keys {
            if let Some(listener) = tables.listeners.get_mut(&ByBytes(*key)) {
                (listener.ring_start, listener.ring_len) = (start, entries.len() as u32);
            }
        }
        tables.rings.insert(start, entries);
    }
    Ok(())
}

impl Ring {
    /// Entries, where Maglev may have `longest`.
    fn length(&self, longest: usize) -> usize {
        let up = self.members.iter().filter(|member| member.up).count();
        match self.algorithm {
            _ if up == 0 => 0,
            Algorithm::RoundRobin => {
                ring::smooth_length(&self.up_weights(), longest.min(SMOOTH_MAX))
            }
            Algorithm::LeastConnections => up,
            Algorithm::SourceIp | Algorithm::SourceIpPort => {
                let weights: Vec<u16> = self.members.iter().map(|member| member.weight).collect();
                ring::maglev_length(&weights, longest)
            }
        }
    }

    /// Entries that it may come to, whoever is up.
    fn room(&self, longest: usize) -> usize {
        let room = |weights: &Vec<u16>| match self.algorithm {
            Algorithm::RoundRobin => ring::smooth_length(weights, longest.min(SMOOTH_MAX)),
            Algorithm::LeastConnections => weights.len(),
            Algorithm::SourceIp | Algorithm::SourceIpPort => ring::maglev_length(weights, longest),
        };
        self.weights.iter().map(room).max().unwrap_or(0)
    }

    /// Backend ids.
    fn entries(&self, longest: usize) -> Vec<u32> {
        let indexes = 0..self.members.len();
        let order = match (self.algorithm, self.length(longest)) {
            (_, 0) => Vec::new(),
            (Algorithm::RoundRobin, _) => ring::smooth(&self.up_weights(), longest.min(SMOOTH_MAX)),
            (Algorithm::LeastConnections, _) => {
                indexes.filter(|index| self.members[*index].up).collect()
            }
            (Algorithm::SourceIp | Algorithm::SourceIpPort, length) => {
                ring::maglev(&self.members, length)
            }
        };
        order.into_iter().map(|index| self.ids[index]).collect()
    }

    fn up_weights(&self) -> Vec<u16> {
        self.members.iter().map(|member| if member.up { member.weight } else { 0 }).collect()
    }
}

/// Where each ring starts, and its entries.
fn regions(
    rings: &[Ring],
    mut ids: Ids<'_>,
    longest: usize,
) -> Result<Vec<(u32, Vec<u32>)>, Error> {
    let mut region = |entries: Vec<u32>| Ok((ids.ring(&entries)?, entries));
    rings.iter().map(|ring| region(ring.entries(longest))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use agent_api::limits::MEMBERS_MAX;

    use super::*;

    /// As many members as a document may have, all in one pool: each has its entries.
    #[test]
    fn the_largest_pool() {
        let hash = |at: usize| ring::stable_hash(&at.to_be_bytes());
        for algorithm in [Algorithm::SourceIp, Algorithm::LeastConnections] {
            let members =
                (0..MEMBERS_MAX).map(|at| Candidate { hash: hash(at), weight: 1, up: true });
            let ids = (0..MEMBERS_MAX as u32).collect();
            let (members, weights) = (members.collect(), Default::default());
            let ring = Ring { keys: Vec::new(), algorithm, members, ids, weights };
            let longest = MAGLEV_LENGTHS[MAGLEV_LENGTHS.len() - 1];
            let entries = ring.entries(longest);
            assert_eq!(entries.len(), ring.length(longest), "{algorithm:?}");
            let found: BTreeSet<u32> = entries.into_iter().collect();
            assert_eq!(found.len(), MEMBERS_MAX, "{algorithm:?}");
        }
    }
}
