//! Which numbers listeners, backends and rings have in the maps.
//!
//! Whatever stands in the maps keeps its number; what is new gets one that the maps do not hold. So a
//! number that a plan frees is given out again by later plans only, a ring is never edited in place,
//! and all there is to know is in the maps: nothing is lost with the daemon.

use std::collections::{BTreeSet, HashMap};

use xdp_lb_ebpf::abi::{Backend, ListenerKey};
use xdp_lb_ebpf::limits::{BACKENDS_MAX, LISTENERS_MAX, RING_MAX};

use crate::tables::{ByBytes, Error, Tables};

/// Hands out numbers for the tables that come after `actual`.
#[derive(Clone, Debug)]
pub struct Ids<'a> {
    actual: &'a Tables,
    backends: HashMap<Socket, u32>,
    /// Where the search for a free backend id goes on.
    next_backend: u32,
    rings: HashMap<&'a [u32], u32>,
    /// Start and length of what no ring takes, by start.
    gaps: Vec<(u32, u32)>,
}

/// What makes a backend the same: its listener's id, address and port.
pub type Socket = (u32, [u8; 16], [u8; 2]);

impl<'a> Ids<'a> {
    pub fn after(actual: &'a Tables) -> Self {
        let backends = &actual.backends;
        let socket =
            |(id, backend): (&u32, &Backend)| ((backend.listener, backend.addr, backend.port), *id);
        Self {
            actual,
            backends: backends.iter().map(socket).collect(),
            next_backend: 0,
            rings: actual.rings.iter().map(|(start, ring)| (&ring[..], *start)).collect(),
            gaps: gaps(actual),
        }
    }

    /// The ids of listeners, each with its name in the document and its keys.
    ///
    /// A listener is the one that had its name; where names are not known, because another process
    /// filled the maps, the one that has one of its keys. An id is free once the maps hold nothing of
    /// it, not even a backend: so no flow is left that would count for the next one.
    pub fn listeners(&self, wanted: &[(&str, Vec<ListenerKey>)]) -> Result<Vec<u32>, Error> {
        let Tables { listeners, backends, networks, names, .. } = self.actual;
        let mut taken: BTreeSet<u32> = listeners.values().map(|listener| listener.id).collect();
        taken.extend(backends.values().map(|backend| backend.listener));
        taken.extend(networks.iter().map(|(_, key)| u32::from_be_bytes(key.0.listener)));
        let free = (0..LISTENERS_MAX).filter(|id| !taken.contains(id));

        let known: HashMap<&str, u32> =
            names.listeners.iter().map(|(id, name)| (&name[..], *id)).collect();
        let mut ids: Vec<_> = wanted.iter().map(|(name, _)| known.get(name).copied()).collect();
        let mut claimed: BTreeSet<u32> = ids.iter().copied().flatten().collect();
        let nameless = |id: &u32| !names.listeners.contains_key(id);
        for (id, (_, keys)) in ids.iter_mut().zip(wanted).filter(|(id, _)| id.is_none()) {
            let mut at_keys =
                keys.iter().filter_map(|key| listeners.get(&ByBytes(*key))).map(|value| value.id);
            *id = at_keys.find(|id| nameless(id) && claimed.insert(*id));
        }
        let mut free = free.filter(|id| !claimed.contains(id)).collect::<Vec<_>>().into_iter();
        let full = Error::Full {
            map: "LISTENER_LOAD",
            wanted: taken.union(&claimed).count() + ids.iter().filter(|id| id.is_none()).count(),
            max: LISTENERS_MAX,
        };
        ids.into_iter().map(|id| id.or_else(|| free.next()).ok_or(full)).collect()
    }

    /// The id and the epoch of a backend. An id that another backend had comes with a new epoch.
    pub fn backend(&mut self, socket: Socket) -> Result<(u32, u32), Error> {
        if let Some(id) = self.backends.get(&socket) {
            return Ok((*id, self.actual.backends.get(id).map_or(0, |backend| backend.epoch)));
        }
        let mut free =
            (self.next_backend..BACKENDS_MAX).filter(|id| !self.actual.backends.contains_key(id));
        let wanted = BACKENDS_MAX as usize + 1;
        let id = free.next().ok_or(Error::Full { map: "BACKENDS", wanted, max: BACKENDS_MAX })?;
        self.next_backend = id + 1;
        Ok((id, self.actual.vacant.get(&id).map_or(1, |epoch| epoch.wrapping_add(1))))
    }

    /// Where a ring starts: where it already stands, else in the narrowest gap that takes it.
    ///
    /// Full also where there is room but not in one piece.
    pub fn ring(&mut self, entries: &[u32]) -> Result<u32, Error> {
        if let Some(start) = self.rings.get(entries) {
            return Ok(*start);
        }
        let wanted = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let gap = self.gaps.iter_mut().filter(|(_, length)| *length >= wanted);
        let Some((start, length)) = gap.min_by_key(|(_, length)| *length) else {
            return Err(Error::Full { map: "RING", wanted: entries.len(), max: RING_MAX });
        };
        let at = *start;
        *start += wanted;
        *length -= wanted;
        Ok(at)
    }
}

fn gaps(actual: &Tables) -> Vec<(u32, u32)> {
    let mut gaps = Vec::new();
    let mut free_from = 0;
    for (start, ring) in &actual.rings {
        gaps.push((free_from, start.saturating_sub(free_from)));
        free_from = free_from.max(start + ring.len() as u32);
    }
    gaps.push((free_from, RING_MAX.saturating_sub(free_from)));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdp_lb_ebpf::abi::{Listener, TCP, mapped};
    use zerocopy::FromZeros;

    #[test]
    fn listeners_keep_their_ids() {
        let names =
            |names: &[(u32, &str)]| names.iter().map(|(id, n)| (*id, n.to_string())).collect();
        let mut named = Tables::default();
        for (last, id) in [(1, 0), (2, 3)] {
            named.listeners.insert(ByBytes(key(last)), listener(id));
        }
        named.backends.insert(9, Backend { listener: 1, ..Backend::default() });
        let mut nameless = named.clone();
        nameless.names.listeners.clear();
        named.names.listeners = names(&[(0, "a"), (3, "b")]);

        type Wanted<'a> = &'a [(&'a str, &'a [u8])];
        let rows: [(&str, &Tables, Wanted, &[u32]); 7] = [
            ("by name", &named, &[("b", &[2]), ("a", &[1])], &[3, 0]),
            ("by name, on other keys", &named, &[("b", &[1]), ("a", &[2])], &[3, 0]),
            ("another one on its key", &named, &[("c", &[1])], &[2]),
            ("after a restart, by key", &nameless, &[("b", &[2]), ("a", &[1])], &[3, 0]),
            ("after a restart, on one of its keys", &nameless, &[("b", &[7, 2])], &[3]),
            ("after a restart, split in two", &nameless, &[("b", &[2, 1]), ("c", &[1])], &[3, 0]),
            ("not one whose backends have flows", &named, &[("c", &[8]), ("d", &[9])], &[2, 4]),
        ];
        for (row, actual, wanted, want) in rows {
            let wanted: Vec<_> = wanted
                .iter()
                .map(|(name, last)| (*name, last.iter().map(|l| key(*l)).collect()))
                .collect();
            assert_eq!(Ids::after(actual).listeners(&wanted).unwrap(), want, "{row}");
        }
        let many: Vec<_> = (0..=LISTENERS_MAX).map(|_| ("new", vec![])).collect();
        assert_eq!(
            Ids::after(&Tables::default()).listeners(&many),
            Err(Error::Full { map: "LISTENER_LOAD", wanted: 1025, max: 1024 }),
        );
    }

    #[test]
    fn backends_keep_their_ids() {
        let mut actual = Tables::default();
        let backend = Backend { addr: mapped([10, 0, 0, 1]), epoch: 7, ..Backend::default() };
        actual.backends.insert(1, backend);
        actual.vacant.insert(2, 4);
        let mut ids = Ids::after(&actual);
        let mut id = |listener, last| ids.backend((listener, mapped([10, 0, 0, last]), [0, 0]));
        assert_eq!(id(0, 1), Ok((1, 7)), "the same");
        assert_eq!(id(1, 1), Ok((0, 1)), "of another listener, an id never used");
        assert_eq!(id(0, 2), Ok((2, 5)), "an id that was used");
        assert_eq!(id(0, 3), Ok((3, 1)));
        for _ in 4..BACKENDS_MAX {
            assert!(id(0, 4).is_ok());
        }
        assert_eq!(id(0, 4), Err(Error::Full { map: "BACKENDS", wanted: 32769, max: 32768 }));
    }

    #[test]
    fn rings_get_regions_of_their_own() {
        let mut actual = Tables::default();
        actual.rings.insert(10, vec![1, 2]);
        actual.rings.insert(100, vec![3; 4]);
        let mut ids = Ids::after(&actual);
        assert_eq!(ids.ring(&[1, 2]), Ok(10), "unchanged");
        assert_eq!(ids.ring(&[2, 1]), Ok(0), "changed: the narrowest gap");
        assert_eq!(ids.ring(&[4; 9]), Ok(12), "not the 8 left before");
        assert_eq!(ids.ring(&[5; 80]), Ok(104));
        assert_eq!(ids.ring(&[6; 79]), Ok(21), "all that is left there");
        let most = vec![7; RING_MAX as usize - 184];
        assert_eq!(ids.clone().ring(&most), Ok(184));
        let more = vec![7; RING_MAX as usize - 183];
        assert!(ids.ring(&more).is_err());
    }

    fn key(last: u8) -> ListenerKey {
        ListenerKey { addr: mapped([10, 0, 0, last]), port: [0, 80], proto: TCP, zero: 0 }
    }

    fn listener(id: u32) -> Listener {
        Listener { id, ..Listener::new_zeroed() }
    }
}
