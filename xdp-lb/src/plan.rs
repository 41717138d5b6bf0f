//! The writes that turn what the maps hold into what they shall hold.

use std::fmt;
use std::net::SocketAddr;

use xdp_lb_ebpf::abi::{
    BACKEND_STICKY, BACKEND_UP, Backend, Listener, ListenerKey, NetworkKey, SCTP, TCP, UDP,
};

use crate::tables::{ByBytes, Tables, address};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry of a backend that goes holds its epoch and no more.
    SetBackend {
        id: u32,
        backend: Backend,
    },
    /// Backend ids from `start` on. No listener points there yet.
    SetRing {
        start: u32,
        entries: Vec<u32>,
    },
    /// `prefix_len` in bits, of the whole key.
    SetNetwork {
        prefix_len: u32,
        key: NetworkKey,
    },
    SetListener {
        key: ListenerKey,
        listener: Listener,
    },
    RemoveListener {
        key: ListenerKey,
    },
    RemoveNetwork {
        prefix_len: u32,
        key: NetworkKey,
    },
}

/// The writes that turn `actual` into `wanted`, which was compiled to come after it.
///
/// Ordered so that no packet meets a listener without its ring, a ring with a backend that is not up,
/// or a restricted listener without its networks. The write of a listener is what switches it.
pub fn plan(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    let steps = [
        set_backends_up,
        set_rings,
        set_networks,
        set_listeners,
        remove_listeners,
        remove_networks,
        set_backends_not_up,
        remove_backends,
    ];
    steps.into_iter().flat_map(|step| step(wanted, actual)).collect()
}

fn set_backends_up(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    set_backends(wanted, actual, BACKEND_UP)
}

fn set_backends_not_up(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    set_backends(wanted, actual, 0)
}

fn set_backends(wanted: &Tables, actual: &Tables, up: u16) -> Vec<Change> {
    let backends = wanted.backends.iter().filter(|(_, backend)| backend.flags & BACKEND_UP == up);
    backends
        .filter(|(id, backend)| actual.backends.get(id) != Some(backend))
        .map(|(id, backend)| Change::SetBackend { id: *id, backend: *backend })
        .collect()
}

fn set_rings(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    let rings = wanted.rings.iter();
    rings
        .filter(|(start, entries)| actual.rings.get(start) != Some(entries))
        .map(|(start, entries)| Change::SetRing { start: *start, entries: entries.clone() })
        .collect()
}

fn set_networks(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    let new = wanted.networks.difference(&actual.networks);
    new.map(|(prefix_len, key)| Change::SetNetwork { prefix_len: *prefix_len, key: key.0 })
        .collect()
}

fn set_listeners(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    let listeners = wanted.listeners.iter();
    listeners
        .filter(|(key, listener)| actual.listeners.get(key) != Some(listener))
        .map(|(ByBytes(key), listener)| Change::SetListener { key: *key, listener: *listener })
        .collect()
}

fn remove_listeners(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    let left = actual.listeners.keys().filter(|key| !wanted.listeners.contains_key(key));
    left.map(|key| Change::RemoveListener { key: key.0 }).collect()
}

fn remove_networks(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    let left = actual.networks.difference(&wanted.networks);
    left.map(|(prefix_len, key)| Change::RemoveNetwork { prefix_len: *prefix_len, key: key.0 })
        .collect()
}

fn remove_backends(wanted: &Tables, actual: &Tables) -> Vec<Change> {
    let left = actual.backends.iter().filter(|(id, _)| !wanted.backends.contains_key(id));
    let vacated = |epoch| Backend { epoch, ..Backend::default() };
    left.map(|(id, left)| Change::SetBackend { id: *id, backend: vacated(left.epoch) }).collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetBackend { id, backend: Backend { port: [0, 0], .. } } => {
                write!(f, "backend {id} is free")
            }
            Self::SetBackend { id, backend } => {
                let Backend { listener, weight, .. } = backend;
                let state = state(backend.flags);
                let socket = socket(backend.addr, backend.port);
                write!(
                    f,
                    "backend {id} of listener {listener} is {socket}, weight {weight}, {state}"
                )
            }
            Self::SetRing { start, entries } => {
                write!(f, "ring at {start} has {} entries", entries.len())
            }
            Self::SetNetwork { prefix_len, key } => write!(f, "{}", Network(*prefix_len, key)),
            Self::RemoveNetwork { prefix_len, key } => {
                write!(f, "{} no more", Network(*prefix_len, key))
            }
            Self::SetListener { key, listener: Listener { id, ring_start, ring_len, .. } } => {
                let (socket, protocol) = (socket(key.addr, key.port), protocol(key.proto));
                write!(f, "{socket} {protocol} is listener {id}, ")?;
                match ring_len {
                    0 => write!(f, "no member is up"),
                    _ => write!(f, "ring at {ring_start}"),
                }
            }
            Self::RemoveListener { key } => {
                let (socket, protocol) = (socket(key.addr, key.port), protocol(key.proto));
                write!(f, "{socket} {protocol} is no listener")
            }
        }
    }
}

/// Prefix length and key.
struct Network<'a>(u32, &'a NetworkKey);

impl fmt::Display for Network<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(prefix_len, key) = self;
        let addr = address(key.addr);
        let len = prefix_len - if addr.is_ipv4() { 32 + 96 } else { 32 };
        write!(f, "listener {} allows {addr}/{len}", u32::from_be_bytes(key.listener))
    }
}

fn socket(addr: [u8; 16], port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(address(addr), u16::from_be_bytes(port))
}

fn state(flags: u16) -> &'static str {
    match flags {
        flags if flags & BACKEND_UP != 0 => "up",
        flags if flags & BACKEND_STICKY != 0 => "only for clients it had",
        _ => "down",
    }
}

fn protocol(number: u8) -> &'static str {
    match number {
        TCP => "tcp",
        UDP => "udp",
        SCTP => "sctp",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;

    use agent_api::{Algorithm, Desired, Listener as Wish, Member, Name, Pool, Protocol};
    use proptest::prelude::*;
    use xdp_lb_ebpf::abi::mapped;
    use xdp_lb_ebpf::limits::RING_MAX;
    use zerocopy::FromZeros;

    use super::*;
    use crate::tables::{Hop, World, compile};

    /// What a log says.
    #[test]
    fn shown() {
        let key = ListenerKey { addr: mapped([10, 0, 0, 10]), port: [0, 80], proto: TCP, zero: 0 };
        let listener = Listener { id: 3, ..Listener::new_zeroed() };
        let addr = IpAddr::V6("2001:db8::1".parse().unwrap());
        let addr = crate::tables::octets(addr);
        let backend = Backend { addr, port: [0, 80], weight: 2, ..Backend::default() };
        let network = |addr| NetworkKey { listener: [0, 0, 0, 3], addr };
        let rows = [
            (
                Change::SetBackend { id: 5, backend },
                "backend 5 of listener 0 is [2001:db8::1]:80, weight 2, down",
            ),
            (Change::SetBackend { id: 5, backend: Backend::default() }, "backend 5 is free"),
            (Change::SetRing { start: 9, entries: vec![1, 2] }, "ring at 9 has 2 entries"),
            (
                Change::SetNetwork { prefix_len: 136, key: network(mapped([10, 0, 0, 0])) },
                "listener 3 allows 10.0.0.0/8",
            ),
            (
                Change::RemoveNetwork { prefix_len: 160, key: network(addr) },
                "listener 3 allows 2001:db8::1/128 no more",
            ),
            (
                Change::SetListener { key, listener },
                "10.0.0.10:80 tcp is listener 3, no member is up",
            ),
            (
                Change::SetListener { key, listener: Listener { ring_len: 1, ..listener } },
                "10.0.0.10:80 tcp is listener 3, ring at 0",
            ),
            (Change::RemoveListener { key }, "10.0.0.10:80 tcp is no listener"),
        ];
        for (change, want) in rows {
            assert_eq!(change.to_string(), want);
        }
    }

    proptest! {
        /// One document after the other, daemons that are killed between two writes, others that know
        /// no names: whatever stands in the maps at any moment is sound, and in the end it is what
        /// was wanted.
        #[test]
        fn every_step_is_sound(steps in prop::collection::vec(step(), 1..8)) {
            let mut maps = Maps::default();
            let mut actual = Tables::default();
            for Step { desired, weather, fate } in steps {
                let wanted = weather.compile(&desired, &actual);
                let changes = plan(&wanted, &actual);
                maps.hold_sound(&wanted, &actual);
                let last = if let Fate::Killed(after) = fate { after } else { changes.len() };
                for change in changes.iter().take(last) {
                    maps.apply(change);
                    maps.hold_sound(&wanted, &actual);
                }
                maps.hold_busy(&weather, &actual);
                actual = match fate {
                    Fate::Killed(_) => maps.read(),
                    Fate::Restarted | Fate::Done => {
                        let nameless = Tables { names: Default::default(), ..wanted.clone() };
                        assert_eq!(maps.read(), nameless);
                        assert_eq!(plan(&wanted, &wanted), []);
                        if let Fate::Done = fate { wanted } else { nameless }
                    }
                };
            }
        }

        /// On the other amphora of a pair: what it went through, and the order of the document, are
        /// not in its rings, nor in what it makes of a client.
        #[test]
        fn a_pair_chooses_alike(past in prop::collection::vec(step(), 0..4), now in step()) {
            let past = past.iter().fold(Tables::default(), |tables, step| {
                step.weather.compile(&step.desired, &tables)
            });
            let mut turned = now.desired.clone();
            turned.listeners.reverse();
            turned.pools.reverse();
            for pool in &mut turned.pools {
                pool.members.reverse();
            }
            let one = now.weather.compile(&now.desired, &Tables::default());
            let other = now.weather.compile(&turned, &past);
            prop_assert_eq!(choices(&one), choices(&other));
        }

        /// Whoever reads the maps again, by name or by key, has nothing to write once what left is
        /// gone.
        #[test]
        fn it_comes_to_rest(first in step(), then in step()) {
            let weather = Weather { busy: 0, ..then.weather };
            let mut tables = first.weather.compile(&first.desired, &Tables::default());
            for _ in 0..3 {
                tables = weather.compile(&then.desired, &tables);
            }
            prop_assert_eq!(&weather.compile(&then.desired, &tables), &tables);
            let nameless = Tables { names: Default::default(), ..tables.clone() };
            prop_assert_eq!(&weather.compile(&then.desired, &nameless), &tables);
        }
    }

    /// Of each listener: algorithm, seed, and its ring as addresses, the member's and ours to it.
    type Choices = BTreeMap<ByBytes<ListenerKey>, (u8, u32, Vec<[IpAddr; 2]>)>;

    fn choices(tables: &Tables) -> Choices {
        let member = |id| {
            let Backend { addr, source, .. } = tables.backends[id];
            [address(addr), address(source)]
        };
        let choice = |(key, listener): (&ByBytes<ListenerKey>, &Listener)| {
            let ring = tables.rings.get(&listener.ring_start).filter(|_| listener.ring_len > 0);
            let ring = ring.into_iter().flatten().map(member).collect();
            (*key, (listener.algorithm, listener.seed, ring))
        };
        tables.listeners.iter().map(choice).collect()
    }

    #[derive(Clone, Debug)]
    struct Step {
        desired: Desired,
        weather: Weather,
        fate: Fate,
    }

    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Done,
        /// All was written, but the next daemon knows no names.
        Restarted,
        /// So many changes were written.
        Killed(usize),
    }

    /// Bit masks: of members, by the last byte of their address, and of backend ids.
    #[derive(Clone, Copy, Debug)]
    struct Weather {
        down: u8,
        lost: u8,
        busy: u32,
    }

    /// The maps as the packet path sees them.
    #[derive(Default)]
    struct Maps {
        listeners: BTreeMap<ByBytes<ListenerKey>, Listener>,
        backends: BTreeMap<u32, Backend>,
        ring: Vec<u32>,
        networks: BTreeSet<(u32, ByBytes<NetworkKey>)>,
    }

    impl Weather {
        fn compile(&self, desired: &Desired, actual: &Tables) -> Tables {
            desired.validate().unwrap();
            let members = desired
                .pools
                .iter()
                .flat_map(|pool| pool.members.iter().map(|member| (pool.id.clone(), member)));
            let down = members
                .filter(|(_, member)| self.down & bit(member.address) != 0)
                .map(|(pool, member)| (pool, member.id.clone()))
                .collect();
            let near = Hop { ifindex: 7, mac: [2; 6], own_mac: [3; 6], source: None };
            let hop = |address| (self.lost & bit(address) == 0).then_some(near);
            let busy = |id| self.is_busy(id);
            let world = World { down: &down, hop: &hop, busy: &busy };
            compile(desired, &world, actual).unwrap()
        }

        fn is_busy(&self, id: u32) -> bool {
            self.busy & 1 << (id % 32) != 0
        }
    }

    impl Maps {
        fn apply(&mut self, change: &Change) {
            match change.clone() {
                Change::SetBackend { id, backend } => drop(self.backends.insert(id, backend)),
                Change::SetRing { start, entries } => {
                    let end = start as usize + entries.len();
                    assert!(end <= RING_MAX as usize);
                    self.ring.resize(end.max(self.ring.len()), 0);
                    self.ring[start as usize..end].copy_from_slice(&entries);
                }
                Change::SetNetwork { prefix_len, key } => {
                    assert!(self.networks.insert((prefix_len, ByBytes(key))));
                }
                Change::SetListener { key, listener } => {
                    self.listeners.insert(ByBytes(key), listener);
                }
                Change::RemoveListener { key } => {
                    self.listeners.remove(&ByBytes(key)).unwrap();
                }
                Change::RemoveNetwork { prefix_len, key } => {
                    assert!(self.networks.remove(&(prefix_len, ByBytes(key))));
                }
            }
        }

        fn read(&self) -> Tables {
            let listeners = self.listeners.iter().map(|(key, listener)| (key.0, *listener));
            let backends = self.backends.iter().map(|(id, backend)| (*id, *backend));
            let networks = self.networks.iter().map(|(len, key)| (*len, key.0));
            Tables::from_maps(listeners, backends, networks, &self.ring)
        }

        /// Each listener is the old one or the new one, as a whole.
        fn hold_sound(&self, wanted: &Tables, actual: &Tables) {
            for (key, listener) in &self.listeners {
                let new = wanted.listeners.get(key) == Some(listener);
                let tables = if new { wanted } else { actual };
                assert_eq!(tables.listeners.get(key), Some(listener));
                let Listener { id, ring_start, ring_len, .. } = *listener;
                if ring_len > 0 {
                    let (start, len) = (ring_start as usize, ring_len as usize);
                    assert_eq!(self.ring[start..start + len], tables.rings[&ring_start]);
                }
                for entry in &self.ring[ring_start as usize..][..ring_len as usize] {
                    let backend = self.backends[entry];
                    assert_eq!((backend.listener, backend.flags), (id, BACKEND_UP));
                    assert_ne!(backend.ifindex, 0);
                }
                let same = wanted.listeners.get(key) == actual.listeners.get(key);
                let mut allowed = tables
                    .networks
                    .iter()
                    .filter(|(_, network)| network.0.listener == id.to_be_bytes());
                // Those that come to a listener which is otherwise the same may still be missing.
                assert!(allowed.all(|network| {
                    self.networks.contains(network) || same && !actual.networks.contains(network)
                }));
                let mut networks = self.networks.iter();
                let any = networks.any(|(_, network)| network.0.listener == id.to_be_bytes());
                assert!(any || listener.restricted == 0);
            }
        }

        /// A backend with flows stays who it is, and an id that was in use is not another's yet.
        fn hold_busy(&self, weather: &Weather, actual: &Tables) {
            for (id, was) in &actual.backends {
                let is = self.backends[id];
                let who = |backend: Backend| (backend.listener, backend.addr, backend.port);
                assert_eq!(is.epoch, was.epoch);
                let same = who(is) == who(*was);
                assert!(same || is.port == [0, 0] && was.flags == 0 && !weather.is_busy(*id));
            }
        }
    }

    const VIPS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"];
    const MEMBERS: [&str; 6] =
        ["10.0.1.1", "10.0.1.2", "10.0.1.3", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3"];
    const NETWORKS: [&str; 3] = ["0.0.0.0/0", "192.0.2.0/24", "2001:db8:2::/48"];

    fn step() -> impl Strategy<Value = Step> {
        let fate = prop_oneof![
            3 => Just(Fate::Done),
            1 => Just(Fate::Restarted),
            2 => (0..40_usize).prop_map(Fate::Killed),
        ];
        let weather = (any::<u8>(), any::<u8>(), any::<u32>())
            .prop_map(|(down, lost, busy)| Weather { down: down & 0x22, lost: lost & 0x48, busy });
        (desired(), weather, fate).prop_map(|(desired, weather, fate)| Step {
            desired,
            weather,
            fate,
        })
    }

    fn desired() -> impl Strategy<Value = Desired> {
        let listeners = [0, 1, 2, 3].map(listener);
        let pools = [0, 1, 2].map(pool);
        (listeners, pools).prop_map(|(listeners, pools)| {
            let mut taken = BTreeSet::new();
            let mut listeners = Vec::from(listeners);
            for listener in &mut listeners {
                listener.vips.retain(|vip| taken.insert((*vip, listener.port)));
            }
            listeners.retain(|listener| !listener.vips.is_empty());
            let name = Name::try_from("lb".to_owned()).unwrap();
            Desired { name, listeners, pools: pools.into() }
        })
    }

    fn listener(id: usize) -> impl Strategy<Value = Wish> {
        let vips = prop::sample::subsequence(&VIPS[..], 0..=VIPS.len());
        let networks = prop::sample::subsequence(&NETWORKS[..], 0..=NETWORKS.len());
        let pool = prop::option::weighted(0.9, 0..3_usize);
        let enabled = prop::bool::weighted(0.8);
        (vips, 80..82_u16, pool, networks, enabled).prop_map(
            move |(vips, port, pool, networks, enabled)| Wish {
                id: format!("l{id}"),
                vips: vips.into_iter().map(|vip| vip.parse().unwrap()).collect(),
                port,
                protocol: Protocol::Tcp,
                pool: pool.map(|pool| format!("p{pool}")),
                enabled,
                connection_limit: None,
                allowed_networks: networks.into_iter().map(|net| net.parse().unwrap()).collect(),
                idle_timeout_s: 50,
                log_format: None,
            },
        )
    }

    fn pool(id: usize) -> impl Strategy<Value = Pool> {
        let algorithm = prop::sample::select(vec![
            Algorithm::RoundRobin,
            Algorithm::LeastConnections,
            Algorithm::SourceIp,
            Algorithm::SourceIpPort,
        ]);
        let members = prop::sample::subsequence(&MEMBERS[..], 0..=MEMBERS.len());
        let members = members.prop_flat_map(move |members| {
            members.into_iter().map(|address| member(id, address)).collect::<Vec<_>>()
        });
        let enabled = prop::bool::weighted(0.9);
        (algorithm, enabled, members).prop_map(move |(algorithm, enabled, members)| Pool {
            id: format!("p{id}"),
            algorithm,
            persistence: None,
            monitor: None,
            enabled,
            members,
        })
    }

    fn member(pool: usize, address: &'static str) -> impl Strategy<Value = Member> {
        let weight = prop::sample::select(vec![0, 1, 1, 3]);
        let (backup, enabled) = (prop::bool::weighted(0.2), prop::bool::weighted(0.9));
        (weight, backup, enabled).prop_map(move |(weight, backup, enabled)| Member {
            id: format!("p{pool}-{address}"),
            address: address.parse().unwrap(),
            port: 8080,
            weight,
            backup,
            enabled,
            probed_at: None,
        })
    }

    /// Another for each of the members above.
    fn bit(address: IpAddr) -> u8 {
        let last = crate::tables::octets(address)[15];
        if address.is_ipv4() { 1 << last } else { 1 << (last + 3) }
    }
}
