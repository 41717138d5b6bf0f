//! What the maps hold as [`Tables`], and the writes that change it.

use aya::maps::lpm_trie::Key;
use aya::maps::{MapError, PerCpuValues};
use aya::util::nr_cpus;
use xdp_lb_ebpf::abi::{Backend, BackendCounters, Listener, ListenerKey, NetworkKey};
use zerocopy::transmute;

use super::{Error, Maps, links, total};
use crate::moved::Moved;
use crate::net::topology::Mac;
use crate::plan::Change;
use crate::tables::Tables;

impl Maps {
    /// Everything the control program wrote, without names.
    pub fn tables(&self) -> Result<Tables, Error> {
        let listeners =
            self.listeners.iter().map(|entry| entry.map(|(k, v)| (transmute!(k), transmute!(v))));
        let listeners = listeners.collect::<Result<Vec<_>, _>>().map_err(failed("LISTENERS"))?;
        let networks = self
            .networks
            .keys()
            .map(|key| key.map(|key| (key.prefix_len(), transmute!(key.data()))));
        let networks = networks.collect::<Result<Vec<_>, _>>().map_err(failed("NETWORKS"))?;
        let backends = (0..).zip(self.backends.iter().map(|words| words.load()));
        let ring = self.ring.map().map_err(|error| failed("RING")(error.into()))?;
        let ring: Vec<_> = ring.iter().map(|entry| entry.0.load()).collect();
        Ok(Tables::from_maps(listeners, backends, networks, &ring))
    }

    pub fn apply(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::SetBackend { id, backend } => {
                let Some(words) = self.backends.get(*id as usize) else {
                    return Ok(());
                };
                if words.load().epoch != backend.epoch {
                    let zeros = zeros()?;
                    self.backend_counters.set(*id, zeros, 0).map_err(failed("BACKEND_COUNTERS"))?;
                }
                words.store(backend);
                Ok(())
            }
            Change::SetRing { start, entries } => {
                let ring = self.ring.map().map_err(|error| failed("RING")(error.into()))?;
                let places = ring.iter().skip(*start as usize);
                for (place, entry) in places.zip(entries) {
                    place.0.store(*entry);
                }
                Ok(())
            }
            Change::SetNetwork { prefix_len, key } => {
                self.networks.insert(&network(*prefix_len, key), 1, 0).map_err(failed("NETWORKS"))
            }
            Change::RemoveNetwork { prefix_len, key } => {
                gone(self.networks.remove(&network(*prefix_len, key))).map_err(failed("NETWORKS"))
            }
            Change::SetListener { key, listener } => {
                let key: [u8; size_of::<ListenerKey>()] = transmute!(*key);
                let listener: [u8; size_of::<Listener>()] = transmute!(*listener);
                self.listeners.insert(key, listener, 0).map_err(failed("LISTENERS"))
            }
            Change::RemoveListener { key } => {
                gone(self.listeners.remove(&transmute!(*key))).map_err(failed("LISTENERS"))
            }
        }
    }

    /// What a backend has counted.
    pub fn moved(&self, id: u32) -> Result<Moved, Error> {
        let counters: BackendCounters =
            total(&self.backend_counters, id).map_err(failed("BACKEND_COUNTERS"))?;
        Ok(counters.into())
    }

    /// Has a listener that is new begin at nought. Connections are not touched: they are counted by
    /// those who open and close them.
    pub fn reset_listener(&mut self, id: u32) -> Result<(), Error> {
        if let Some(logs) = self.flow_logs.get(id as usize) {
            logs.logged.store(0);
            logs.lost.store(0);
        }
        self.listener_counters.set(id, zeros()?, 0).map_err(failed("LISTENER_COUNTERS"))
    }

    /// Lets the path send through an interface, as `mac`.
    pub fn set_port(&mut self, ifindex: u32, mac: Mac) -> Result<(), Error> {
        let [a, b, c, d, e, f] = mac;
        self.port_macs.insert(ifindex, [a, b, c, d, e, f, 0, 0], 0).map_err(failed("PORT_MACS"))?;
        self.ports
            .insert(ifindex, ifindex, None, 0)
            .map_err(|error| Error::Port { ifindex, reason: links::chain(&error) })
    }

    /// Takes all interfaces out that `stay` does not name.
    pub fn retain_ports(&mut self, stay: impl Fn(u32) -> bool) -> Result<(), Error> {
        let leaves = |ifindex: &u32| !stay(*ifindex);
        let ports = self.ports.keys().collect::<Result<Vec<_>, _>>().map_err(failed("PORTS"))?;
        for ifindex in ports.into_iter().filter(leaves) {
            gone(self.ports.remove(ifindex)).map_err(failed("PORTS"))?;
        }
        let macs =
            self.port_macs.keys().collect::<Result<Vec<_>, _>>().map_err(failed("PORT_MACS"))?;
        for ifindex in macs.into_iter().filter(leaves) {
            gone(self.port_macs.remove(&ifindex)).map_err(failed("PORT_MACS"))?;
        }
        Ok(())
    }

    /// Seconds since boot, for the packet path.
    pub fn set_clock(&self, now_s: u32) {
        if let Some(clock) = self.clock.first() {
            clock.0.store(now_s);
        }
    }
}

impl super::BackendWords {
    pub fn load(&self) -> Backend {
        transmute!(self.0.each_ref().map(|word| word.load()))
    }

    /// Word by word, the interface after the MACs: a packet that reads in between finds the old next
    /// hop, the new one, or the new MACs on the old interface.
    fn store(&self, backend: &Backend) {
        let words: [u64; 8] = transmute!(*backend);
        for (word, value) in self.0.iter().zip(words) {
            word.store(value);
        }
    }
}

fn network(prefix_len: u32, key: &NetworkKey) -> Key<[u8; size_of::<NetworkKey>()]> {
    Key::new(prefix_len, transmute!(*key))
}

/// A value of nothing for each CPU.
fn zeros<const N: usize>() -> Result<PerCpuValues<[u8; N]>, Error> {
    let failed = |error| Error::File { path: "/sys/devices/system/cpu".into(), error };
    let cpus = nr_cpus().map_err(|(_, error)| failed(error))?;
    PerCpuValues::try_from(vec![[0; N]; cpus]).map_err(failed)
}

/// What is gone already needs no removing: the kernel takes vanished interfaces out by itself.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        removed => removed,
    }
}

fn failed(name: &'static str) -> impl Fn(MapError) -> Error {
    move |error| Error::Map { name, error }
}
