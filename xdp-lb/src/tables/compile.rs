//! From the document to the tables: who takes new flows, and by which ids.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use agent_api::{Algorithm, Desired, IpNet, Listener, Member, Pool, Protocol};
use xdp_lb_ebpf::abi::{self, BACKEND_STICKY, BACKEND_UP, Backend, ListenerKey, NetworkKey};
use xdp_lb_ebpf::limits::{LISTENER_KEYS_MAX, NETWORKS_MAX};
use zerocopy::FromZeros;

use super::rings::{Ring, place};
use super::{BackendName, ByBytes, Error, Tables, address, octets};
use crate::ids::Ids;
use crate::ring::{self, Candidate};

/// What the document is compiled against.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// Pool and member of those that fail their checks.
    pub down: &'a BTreeSet<(String, String)>,
    /// How a member is reached, if that is known.
    pub hop: &'a dyn Fn(IpAddr) -> Option<Hop>,
    /// Whether a backend id has flows.
    pub busy: &'a dyn Fn(u32) -> bool,
}

/// The way to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub ifindex: u32,
    /// Of the member, or of the router before it.
    pub mac: [u8; 6],
    /// Of the interface.
    pub own_mac: [u8; 6],
    /// The interface's own address; none where that is the interface of the VIPs.
    pub source: Option<IpAddr>,
}

/// The tables for a validated document, as what comes after `actual`.
///
/// `actual` is what the maps hold: what was last applied in full, or what [`Tables::from_maps`] reads.
/// Compiled again once flows have ended, the result gives the ids of backends that left back.
///
/// New flows go to members that are up: enabled, in an enabled pool, of a weight, reachable and not
/// failing their checks. To backup members only while no other is up.
pub fn compile(desired: &Desired, world: &World<'_>, actual: &Tables) -> Result<Tables, Error> {
    let mut ids = Ids::after(actual);
    let mut tables = Tables::default();
    let mut rings = Vec::new();
    for (id, listener) in numbered(desired, &ids)? {
        tables.names.listeners.insert(id, listener.id.clone());
        tables.networks.extend(listener.allowed_networks.iter().map(|net| network(id, *net)));
        let pool = desired.pools.iter().find(|pool| Some(&pool.id) == listener.pool.as_ref());
        for family in FAMILIES {
            let side = Side { id, listener, pool, family };
            rings.extend(side.compile(world, actual, &mut ids, &mut tables)?);
        }
    }
    keep_busy(world, actual, &mut tables);
    let keys = union(tables.listeners.keys(), actual.listeners.keys());
    fits("LISTENERS", keys, LISTENER_KEYS_MAX)?;
    fits("NETWORKS", union(&tables.networks, &actual.networks), NETWORKS_MAX)?;
    place(&rings, &ids, &mut tables)?;
    Ok(tables)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// A listener in one family: VIPs of a family share a ring of its members.
struct Side<'a> {
    id: u32,
    listener: &'a Listener,
    pool: Option<&'a Pool>,
    family: Family,
}

/// A member, and how it fares.
struct Standing<'a> {
    member: &'a Member,
    hop: Option<Hop>,
    up: bool,
}

impl Side<'_> {
    /// Adds its listeners and backends to the tables; the ring is left to be filled.
    fn compile(
        &self,
        world: &World<'_>,
        actual: &Tables,
        ids: &mut Ids<'_>,
        tables: &mut Tables,
    ) -> Result<Option<Ring>, Error> {
        let Some(vip) = self.listener.vips.iter().copied().find(|vip| self.family.has(*vip)) else {
            return Ok(None);
        };
        let keys = keys(self.listener, self.family);
        tables.listeners.extend(keys.iter().map(|key| (ByBytes(*key), self.value())));
        let Some(pool) = self.pool else {
            return Ok(None);
        };
        let standings = self.standings(pool, world);
        let serves = |s: &Standing<'_>| s.up && s.member.weight > 0 && !s.member.backup;
        let backups = !standings.iter().any(serves);
        let weights = [false, true].map(|backup| {
            let may = |m: &Member| m.enabled && m.weight > 0 && m.backup == backup;
            let members = standings.iter().map(|standing| standing.member);
            members.filter(|member| may(member)).map(|member| member.weight).collect()
        });
        let algorithm = pool.algorithm;
        let mut ring = Ring { keys, algorithm, members: Vec::new(), ids: Vec::new(), weights };
        for Standing { member, hop, up } in standings {
            let called = member.weight > 0 && member.backup == backups;
            let (addr, port) = (octets(member.address), member.port.to_be_bytes());
            let (id, epoch) = ids.backend((self.id, addr, port))?;
            let flags = match (up, called) {
                (true, true) => BACKEND_UP,
                // Draining, or a backup: as in HAProxy, persistence still holds clients to it.
                (true, false) => BACKEND_STICKY,
                (false, _) => 0,
            };
            let known = actual.backends.get(&id).copied().unwrap_or_default();
            let (listener, weight) = (self.id, member.weight);
            let backend = Backend { addr, port, listener, epoch, weight, flags, ..known };
            tables.backends.insert(id, reached(backend, hop, octets(vip)));
            tables.names.backends.insert(id, self.name(pool, member));
            if called && member.enabled {
                let hash = ring::stable_hash(&[&addr[..], &port].concat());
                ring.members.push(Candidate { hash, weight, up });
                ring.ids.push(id);
            }
        }
        Ok(Some(ring))
    }

    /// By address: the order in the document means nothing, and must not cost a new ring.
    fn standings<'a>(&self, pool: &'a Pool, world: &World<'_>) -> Vec<Standing<'a>> {
        let down = world.down.iter().filter(|(name, _)| *name == pool.id);
        let down: HashSet<&str> = down.map(|(_, member)| &member[..]).collect();
        let standing = |member: &'a Member| {
            let hop = (world.hop)(member.address);
            let wanted = pool.enabled && member.enabled;
            let up = wanted && hop.is_some() && !down.contains(&member.id[..]);
            Standing { member, hop, up }
        };
        let members = pool.members.iter().filter(|member| self.family.has(member.address));
        let mut standings: Vec<_> = members.map(standing).collect();
        standings.sort_by_key(|standing| (standing.member.address, standing.member.port));
        standings
    }

    /// Its value in the map, pointing to no ring.
    fn value(&self) -> abi::Listener {
        let Listener {
            id,
            port,
            protocol,
            connection_limit,
            allowed_networks,
            idle_timeout_s,
            log_format,
            ..
        } = self.listener;
        let seed = [id.as_bytes(), &port.to_be_bytes(), &[number(*protocol)]].concat();
        let persistence = self.pool.and_then(|pool| pool.persistence);
        abi::Listener {
            id: self.id,
            connections_max: connection_limit.unwrap_or(u32::MAX),
            sticky_s: persistence.map_or(0, |persistence| persistence.timeout_s),
            sticky_bits: persistence.map_or(0, |persistence| match self.family {
                Family::V4 => 96 + persistence.prefix4,
                Family::V6 => persistence.prefix6,
            }),
            seed: (ring::stable_hash(&seed) >> 32) as u32,
            algorithm: self.pool.map_or(0, |pool| algorithm(pool.algorithm) as u8),
            restricted: u8::from(!allowed_networks.is_empty()),
            logged: u8::from(*protocol == Protocol::Tcp && log_format.is_some()),
            idle_s: *idle_timeout_s,
            ..abi::Listener::new_zeroed()
        }
    }

    fn name(&self, pool: &Pool, member: &Member) -> BackendName {
        BackendName {
            listener: self.listener.id.clone(),
            pool: pool.id.clone(),
            member: member.id.clone(),
        }
    }
}

/// Enabled listeners with their ids.
fn numbered<'a>(desired: &'a Desired, ids: &Ids<'_>) -> Result<Vec<(u32, &'a Listener)>, Error> {
    let listeners = || desired.listeners.iter().filter(|listener| listener.enabled);
    let keys = |listener| FAMILIES.into_iter().flat_map(|family| keys(listener, family)).collect();
    let wanted: Vec<_> = listeners().map(|listener| (&listener.id[..], keys(listener))).collect();
    Ok(ids.listeners(&wanted)?.into_iter().zip(listeners()).collect())
}

/// Carries over what left the document and still has flows, and frees what has none.
///
/// A backend is freed only if it had no flags before: else a packet may be about to choose it.
fn keep_busy(world: &World<'_>, actual: &Tables, tables: &mut Tables) {
    tables.vacant = actual.vacant.clone();
    tables.vacant.retain(|id, _| !tables.backends.contains_key(id));
    for (id, left) in &actual.backends {
        if tables.backends.contains_key(id) {
            continue;
        }
        if left.flags == 0 && !(world.busy)(*id) {
            tables.vacant.insert(*id, left.epoch);
            continue;
        }
        let kept = reached(*left, (world.hop)(address(left.addr)), left.source);
        tables.backends.insert(*id, Backend { flags: 0, source: left.source, ..kept });
        if let Some(name) = actual.names.backends.get(id) {
            tables.names.backends.insert(*id, name.clone());
        }
        if let Some(name) = actual.names.listeners.get(&left.listener) {
            tables.names.listeners.entry(left.listener).or_insert_with(|| name.clone());
        }
    }
}

/// A backend with its next hop. One that is not known any more stays as it was: flows try it on.
fn reached(backend: Backend, hop: Option<Hop>, vip: [u8; 16]) -> Backend {
    let Some(Hop { ifindex, mac, own_mac, source }) = hop else {
        return backend;
    };
    Backend { ifindex, mac, own_mac, source: source.map_or(vip, octets), ..backend }
}

fn keys(listener: &Listener, family: Family) -> Vec<ListenerKey> {
    let key = |vip: &IpAddr| ListenerKey {
        addr: octets(*vip),
        port: listener.port.to_be_bytes(),
        proto: number(listener.protocol),
        zero: 0,
    };
    listener.vips.iter().filter(|vip| family.has(**vip)).map(key).collect()
}

fn network(listener: u32, network: IpNet) -> (u32, ByBytes<NetworkKey>) {
    let network = network.trunc();
    let before = if network.addr().is_ipv4() { 32 + 96 } else { 32 };
    let key = NetworkKey { listener: listener.to_be_bytes(), addr: octets(network.addr()) };
    (before + u32::from(network.prefix_len()), ByBytes(key))
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => abi::TCP,
        Protocol::Udp => abi::UDP,
        Protocol::Sctp => abi::SCTP,
    }
}

fn algorithm(algorithm: Algorithm) -> abi::Algorithm {
    match algorithm {
        Algorithm::RoundRobin => abi::Algorithm::RoundRobin,
        Algorithm::LeastConnections => abi::Algorithm::LeastConnections,
        Algorithm::SourceIp => abi::Algorithm::SourceIp,
        Algorithm::SourceIpPort => abi::Algorithm::SourceIpPort,
    }
}

fn union<'a, T: Ord + 'a>(
    new: impl IntoIterator<Item = &'a T>,
    old: impl IntoIterator<Item = &'a T>,
) -> usize {
    new.into_iter().chain(old).collect::<BTreeSet<_>>().len()
}

fn fits(map: &'static str, wanted: usize, max: u32) -> Result<(), Error> {
    if wanted > max as usize { Err(Error::Full { map, wanted, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use xdp_lb_ebpf::limits::LISTENERS_MAX;

    use super::*;

    const VIP: &str = "10.0.0.10";
    const VIP6: &str = "2001:db8::10";

    /// A row is its name, then of each member: weight, what else is said of it, and the flags it must
    /// have; then the members whose ids the ring must hold.
    type Row = (&'static str, &'static [(u16, &'static str, u16)], &'static [u32]);

    #[rustfmt::skip]
    const ROWS: &[Row] = &[
        ("all are up", &[(1, "", BACKEND_UP), (9, "", BACKEND_UP)], &[0, 1]),
        ("one is down", &[(1, "down", 0), (1, "", BACKEND_UP)], &[1]),
        ("one is disabled", &[(1, "disabled", 0), (1, "", BACKEND_UP)], &[1]),
        ("one cannot be reached", &[(1, "lost", 0), (1, "", BACKEND_UP)], &[1]),
        ("one drains", &[(0, "", BACKEND_STICKY), (1, "", BACKEND_UP)], &[1]),
        ("one drains and is down", &[(0, "down", 0), (1, "", BACKEND_UP)], &[1]),
        ("a backup waits", &[(1, "", BACKEND_UP), (1, "backup", BACKEND_STICKY)], &[0]),
        ("a backup helps out", &[(1, "down", 0), (1, "backup", BACKEND_UP)], &[1]),
        ("a backup stands in for one that drains",
            &[(0, "", BACKEND_STICKY), (1, "backup", BACKEND_UP)], &[1]),
        ("a backup is down too", &[(1, "down", 0), (1, "backup down", 0)], &[]),
        ("all drain", &[(0, "", BACKEND_STICKY), (0, "", BACKEND_STICKY)], &[]),
        ("nobody", &[], &[]),
    ];

    #[test]
    fn who_takes_new_flows() {
        for (row, members, ring) in ROWS {
            let said = |word: &'static str| {
                let of = |(at, (_, said, _)): (usize, &(u16, &str, u16))| {
                    said.contains(word).then(|| format!("m{at}"))
                };
                members.iter().enumerate().filter_map(of).collect::<Vec<_>>()
            };
            let mut desired = document(&[VIP], members.len() as u8);
            for (member, (weight, said, _)) in desired.pools[0].members.iter_mut().zip(*members) {
                member.weight = *weight;
                member.backup = said.contains("backup");
                member.enabled = !said.contains("disabled");
            }
            let down = said("down").into_iter().map(|member| ("pool".to_owned(), member)).collect();
            let lost: Vec<IpAddr> = (0..members.len())
                .filter(|at| members[*at].1 == "lost")
                .map(|at| desired.pools[0].members[at].address)
                .collect();
            let hop = |address| (!lost.contains(&address)).then(near);
            let world = World { down: &down, hop: &hop, busy: &|_| false };
            let tables = compile(&desired, &world, &Tables::default()).unwrap();
            let flags: Vec<_> = tables.backends.values().map(|backend| backend.flags).collect();
            let want: Vec<_> = members.iter().map(|(_, _, flags)| *flags).collect();
            assert_eq!(flags, want, "{row}");
            let listener = tables.listeners[&key(VIP)];
            assert_eq!(listener.ring_len as usize, ring.len(), "{row}");
            assert_eq!(tables.rings.get(&0).map_or(&[][..], |ring| ring), *ring, "{row}");

            desired.pools[0].enabled = false;
            let tables = compile(&desired, &world, &Tables::default()).unwrap();
            assert!(tables.backends.values().all(|backend| backend.flags == 0), "{row}: no pool");
            assert_eq!(tables.listeners[&key(VIP)].ring_len, 0, "{row}: no pool");
        }
    }

    /// One document and all that must come of it.
    #[test]
    fn a_listener_of_two_families() {
        let mut desired = document(&[VIP, VIP6, "10.0.0.11"], 1);
        let six = Member { id: "m6".into(), address: ip("2001:db8:1::1"), ..member(0) };
        desired.pools[0].members.push(six);
        desired.pools[0].persistence =
            Some(agent_api::Persistence { timeout_s: 60, prefix4: 24, prefix6: 64 });
        desired.pools[0].algorithm = Algorithm::RoundRobin;
        desired.listeners[0].connection_limit = Some(100);
        desired.listeners[0].log_format =
            Some(agent_api::LogFormat { text: "%ci".into(), facility: 0 });
        desired.listeners[0].allowed_networks =
            ["10.9.9.9/8", "2001:db8::1/32", "0.0.0.0/0"].map(|net| net.parse().unwrap()).into();
        // IPv6 leaves through another interface.
        let source = |address: IpAddr| address.is_ipv6().then(|| ip("2001:db8:1::99"));
        let hop = |address| Some(Hop { source: source(address), ..near() });
        let world = World { hop: &hop, ..calm() };
        let tables = compile(&desired, &world, &Tables::default()).unwrap();

        let [v4, second, v6] = [VIP, "10.0.0.11", VIP6].map(|vip| tables.listeners[&key(vip)]);
        let want = abi::Listener {
            id: 0,
            ring_start: 0,
            ring_len: 1,
            connections_max: 100,
            sticky_s: 60,
            seed: v4.seed,
            algorithm: abi::Algorithm::RoundRobin as u8,
            restricted: 1,
            logged: 1,
            sticky_bits: 96 + 24,
            idle_s: v4.idle_s,
        };
        assert_eq!(v4, want);
        assert_eq!(second, want);
        assert_eq!(v6, abi::Listener { ring_start: 1, sticky_bits: 64, ..want });
        assert_eq!(tables.listeners.len(), 3);
        assert_eq!(tables.rings, BTreeMap::from([(0, vec![0]), (1, vec![1])]));
        let backend = Backend {
            addr: octets(ip("10.0.1.0")),
            source: octets(ip(VIP)),
            mac: [2; 6],
            port: 8080_u16.to_be_bytes(),
            own_mac: [3; 6],
            ifindex: 7,
            epoch: 1,
            weight: 1,
            flags: BACKEND_UP,
            ..Backend::default()
        };
        assert_eq!(tables.backends[&0], backend);
        let (addr, source) = (octets(ip("2001:db8:1::1")), octets(ip("2001:db8:1::99")));
        assert_eq!(tables.backends[&1], Backend { addr, source, ..backend });
        let networks: Vec<_> = tables
            .networks
            .iter()
            .map(|(len, key)| (*len, u32::from_be_bytes(key.0.listener), address(key.0.addr)))
            .collect();
        let want = [(64, 0, ip("2001:db8::")), (128, 0, ip("0.0.0.0")), (136, 0, ip("10.0.0.0"))];
        assert_eq!(networks, want);
        let name = BackendName { listener: "web".into(), pool: "pool".into(), member: "m6".into() };
        assert_eq!(tables.names.backends[&1], name);
        assert_eq!(tables.names.listeners[&0], "web");
    }

    #[test]
    fn a_member_leaves() {
        let busy = |id| id == 1;
        let calm = calm();
        let world = World { busy: &busy, ..calm };
        let mut desired = document(&[VIP], 3);
        let full = compile(&desired, &calm, &Tables::default()).unwrap();
        assert_eq!(full.rings, BTreeMap::from([(0, vec![0, 1, 2])]));
        assert_eq!(compile(&desired, &calm, &full).unwrap(), full, "nothing changed");
        desired.pools[0].members.reverse();
        assert_eq!(compile(&desired, &calm, &full).unwrap(), full, "another order");

        desired.pools[0].members.truncate(1);
        let left = compile(&desired, &world, &full).unwrap();
        assert_eq!(left.rings, BTreeMap::from([(3, vec![2])]), "beside the old one");
        for id in [0, 1] {
            assert_eq!(left.backends[&id], Backend { flags: 0, ..full.backends[&id] });
            assert_eq!(left.names.backends[&id], full.names.backends[&id]);
        }

        let later = compile(&desired, &world, &left).unwrap();
        assert_eq!(later.backends.keys().collect::<Vec<_>>(), [&1, &2], "one has flows");
        assert_eq!(later.vacant, BTreeMap::from([(0, 1)]));

        desired.pools[0].members.push(member(9));
        let again = compile(&desired, &world, &later).unwrap();
        assert_eq!(again.backends[&0].epoch, 2);
        assert_eq!(again.vacant, BTreeMap::new());
        assert_eq!(again.rings, BTreeMap::from([(0, vec![2, 0])]), "where the first one was");
    }

    #[test]
    fn a_listener_is_disabled() {
        let mut desired = document(&[VIP], 1);
        let before = compile(&desired, &calm(), &Tables::default()).unwrap();
        desired.listeners[0].enabled = false;
        let busy = World { busy: &|_| true, ..calm() };
        let after = compile(&desired, &busy, &before).unwrap();
        assert_eq!(after.listeners.len(), 0);
        assert_eq!(after.backends[&0], Backend { flags: 0, ..before.backends[&0] });

        let other = Listener { id: "other".into(), enabled: true, ..desired.listeners[0].clone() };
        desired.listeners.push(other);
        let other = compile(&desired, &busy, &after).unwrap();
        assert_eq!(other.listeners[&key(VIP)].id, 1, "the first one still has flows");

        desired.listeners.pop();
        desired.listeners[0].enabled = true;
        assert_eq!(compile(&desired, &busy, &after).unwrap().listeners, before.listeners);
    }

    /// A next hop that is lost for a while: no new flows, but those there are keep the last one.
    #[test]
    fn a_hop_is_lost() {
        let desired = document(&[VIP], 1);
        let before = compile(&desired, &calm(), &Tables::default()).unwrap();
        let lost = World { hop: &|_| None, ..calm() };
        let after = compile(&desired, &lost, &before).unwrap();
        assert_eq!(after.backends[&0], Backend { flags: 0, ..before.backends[&0] });
        assert_eq!(after.listeners[&key(VIP)].ring_len, 0);
        let never = compile(&desired, &lost, &Tables::default()).unwrap();
        assert_eq!(never.backends[&0].ifindex, 0);
    }

    /// As many rings as there can be: they are held to a length at which all of them can be replaced.
    #[test]
    fn many_large_rings() {
        let mut desired = document(&[VIP, VIP6], 8);
        desired.pools[0].algorithm = Algorithm::SourceIp;
        for (at, member) in desired.pools[0].members.iter_mut().enumerate().skip(4) {
            member.address = ip(&format!("2001:db8:1::{at}"));
        }
        let first = desired.listeners.remove(0);
        desired.listeners.extend((1..=LISTENERS_MAX as u16).map(|port| Listener {
            id: format!("web-{port}"),
            port,
            ..first.clone()
        }));
        let entries = |tables: &Tables| tables.rings.values().map(Vec::len).sum::<usize>();
        let full = compile(&desired, &calm(), &Tables::default()).unwrap();
        assert_eq!(entries(&full), 2 * 1024 * 251);
        let down = BTreeSet::from(["m0", "m7"].map(|member| ("pool".into(), member.into())));
        let after = compile(&desired, &World { down: &down, ..calm() }, &full).unwrap();
        assert_eq!(entries(&after), 2 * 1024 * 251);
        let again = compile(&desired, &calm(), &after).unwrap();
        assert_eq!(entries(&again), 2 * 1024 * 251);

        desired.pools[0].members.extend((0..28).map(|at| member(100 + at)));
        let want = Error::Full { map: "BACKENDS", wanted: 32769, max: 32768 };
        assert_eq!(compile(&desired, &calm(), &Tables::default()), Err(want));
    }

    /// Rings that are held to a length keep it while another pool is down: else all their clients
    /// would move, and perhaps on one amphora of a pair only.
    #[test]
    fn another_pool_is_down() {
        let mut desired = document(&[VIP], 2);
        desired.pools[0].algorithm = Algorithm::SourceIp;
        // The longest ring there is.
        desired.pools[0].members[1].weight = 256;
        let pool =
            Pool { id: "other".into(), members: vec![member(9)], ..desired.pools[0].clone() };
        desired.pools.push(pool);
        let first = desired.listeners.remove(0);
        desired.listeners.extend((80..89).map(|port| Listener {
            id: format!("web-{port}"),
            port,
            pool: Some(if port < 88 { "pool" } else { "other" }.into()),
            ..first.clone()
        }));
        let down = BTreeSet::from([("other".into(), "m9".into())]);
        for world in [calm(), World { down: &down, ..calm() }] {
            let tables = compile(&desired, &world, &Tables::default()).unwrap();
            assert_eq!(tables.listeners[&key(VIP)].ring_len, 16_381, "of nine the longest fit not");
        }
        desired.listeners.pop();
        let tables = compile(&desired, &calm(), &Tables::default()).unwrap();
        assert_eq!(tables.listeners[&key(VIP)].ring_len, 65_521, "of eight they do");
    }

    fn document(vips: &[&str], members: u8) -> Desired {
        let listener = Listener {
            id: "web".into(),
            vips: vips.iter().map(|vip| ip(vip)).collect(),
            port: 80,
            protocol: Protocol::Tcp,
            pool: Some("pool".into()),
            enabled: true,
            connection_limit: None,
            allowed_networks: Vec::new(),
            idle_timeout_s: 50,
            log_format: None,
        };
        let pool = Pool {
            id: "pool".into(),
            algorithm: Algorithm::LeastConnections,
            persistence: None,
            monitor: None,
            enabled: true,
            members: (0..members).map(member).collect(),
        };
        let name = agent_api::Name::try_from("lb".to_owned()).unwrap();
        Desired { name, listeners: vec![listener], pools: vec![pool] }
    }

    fn member(last: u8) -> Member {
        Member {
            id: format!("m{last}"),
            address: IpAddr::from([10, 0, 1, last]),
            port: 8080,
            weight: 1,
            backup: false,
            enabled: true,
            probed_at: None,
        }
    }

    /// Everybody is up and next door, and nobody has flows.
    fn calm() -> World<'static> {
        const NOBODY: &BTreeSet<(String, String)> = &BTreeSet::new();
        World { down: NOBODY, hop: &|_| Some(near()), busy: &|_| false }
    }

    fn near() -> Hop {
        Hop { ifindex: 7, mac: [2; 6], own_mac: [3; 6], source: None }
    }

    fn key(vip: &str) -> ByBytes<ListenerKey> {
        ByBytes(ListenerKey { addr: octets(ip(vip)), port: [0, 80], proto: abi::TCP, zero: 0 })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
