//! What a document may not say although its types allow it: contradictions, and more than fits.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::desired::{Desired, Listener, Member, Persistence, Pool, Protocol};
use crate::limits::{
    CODES, ID_BYTES_MAX, MEMBERS_MAX, NETWORKS_PER_LISTENER_MAX, PREFIX4, PREFIX6, VIP_KEYS_MAX,
    WEIGHT_MAX,
};
use crate::monitor::{HttpProbe, Monitor, Probe};

impl Desired {
    /// The first fault of a document, wherever it came from. [`Desired::from_toml`] has asked.
    ///
    /// What is disabled is held to the same rules, so that enabling it cannot fail.
    pub fn validate(&self) -> Result<(), Invalid> {
        RULES.iter().try_for_each(|rule| rule(self))
    }
}

/// A fault, and where in the document it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct Invalid {
    pub place: Place,
    pub fault: Fault,
}

/// The way to a value from the top of the document, shown as `pool[0].member[2].weight`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub Vec<Step>);

/// One step of a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Key(&'static str),
    Index(usize),
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("id {id:?} is not 1 to {ID_BYTES_MAX} visible ASCII characters")]
    Id { id: String },
    #[error("there is already a listener {id}")]
    DuplicateListener { id: String },
    #[error("there is already a pool {id}")]
    DuplicatePool { id: String },
    #[error("there is already a member {id}, in pool {pool}")]
    DuplicateMember { id: String, pool: String },
    #[error("listener {listener} has no vips")]
    NoVip { listener: String },
    #[error("{vip} {protocol} port {port} belongs to listener {listener} already")]
    VipTaken { vip: IpAddr, protocol: Protocol, port: u16, listener: String },
    #[error("port 0 is not a port")]
    PortZero,
    #[error("listener {listener} names pool {pool}, which is not there")]
    UnknownPool { listener: String, pool: String },
    #[error("a connection limit of 0 refuses everybody; leave it out for no limit")]
    ConnectionLimitZero,
    #[error("a timeout of 0 s forgets at once")]
    TimeoutZero,
    #[error("a prefix of {prefix} bits is not within {min} to {max}")]
    Prefix { prefix: u8, min: u8, max: u8 },
    #[error("weight {weight} is over {WEIGHT_MAX}")]
    Weight { weight: u16 },
    #[error("{address} port {port} is member {member} of this pool already")]
    MemberTwice { address: IpAddr, port: u16, member: String },
    #[error("member {member} at {address} would loop: that is a vip of listener {listener}")]
    MemberIsVip { member: String, address: IpAddr, listener: String },
    #[error("{address} {unfit}")]
    Address { address: IpAddr, unfit: Unfit },
    #[error("{key} 0: a monitor needs 1 at least")]
    MonitorZero { key: &'static str },
    #[error("method {method:?} is not one of HTTP: letters, as in GET")]
    Method { method: String },
    #[error("path {path:?} is not visible ASCII that begins with a slash")]
    Path { path: String },
    #[error("host {host:?} is not visible ASCII")]
    Host { host: String },
    #[error("without a code no answer is a good one")]
    NoCode,
    #[error("code {code} is not within {} to {}", CODES.start(), CODES.end())]
    Code { code: u16 },
    #[error("network {network} {}", Unfit::Mapped)]
    Network { network: IpNet },
    #[error("with listener {listener} there are {wanted} vips, at most {VIP_KEYS_MAX} fit")]
    TooManyVips { listener: String, wanted: usize },
    #[error("with pool {pool} there are {wanted} members, at most {MEMBERS_MAX} fit")]
    TooManyMembers { pool: String, wanted: usize },
    #[error(
        "listener {listener} allows {wanted} networks, at most {NETWORKS_PER_LISTENER_MAX} fit"
    )]
    TooManyNetworks { listener: String, wanted: usize },
}

/// Why an address can be neither a VIP nor a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("is the unspecified address")]
    Unspecified,
    #[error("is a loopback address")]
    Loopback,
    #[error("is a multicast address")]
    Multicast,
    #[error("is the broadcast address")]
    Broadcast,
    /// The maps write IPv4 this way; a second spelling of one address would be a second key.
    #[error("is IPv4 in the form of IPv6; write it as IPv4")]
    Mapped,
}

type Rule = fn(&Desired) -> Result<(), Invalid>;

/// First what stands alone, then what stands against something else.
const RULES: [Rule; 9] = [
    each_listener,
    each_pool,
    listener_ids_once,
    pool_ids_once,
    member_ids_once,
    vips_once,
    pools_known,
    no_loops,
    totals_fit,
];

fn each_listener(desired: &Desired) -> Result<(), Invalid> {
    each("listener", &desired.listeners, listener)
}

fn each_pool(desired: &Desired) -> Result<(), Invalid> {
    each("pool", &desired.pools, pool)
}

fn listener_ids_once(desired: &Desired) -> Result<(), Invalid> {
    let ids = desired.listeners.iter().enumerate().map(|(at, listener)| (&listener.id, at));
    let Some((id, _, at)) = repeated(ids) else {
        return Ok(());
    };
    Err(Fault::DuplicateListener { id: id.clone() }.at("id").within("listener", at))
}

fn pool_ids_once(desired: &Desired) -> Result<(), Invalid> {
    let ids = desired.pools.iter().enumerate().map(|(at, pool)| (&pool.id, at));
    let Some((id, _, at)) = repeated(ids) else {
        return Ok(());
    };
    Err(Fault::DuplicatePool { id: id.clone() }.at("id").within("pool", at))
}

fn member_ids_once(desired: &Desired) -> Result<(), Invalid> {
    let ids = members(desired).map(|(pool_at, at, pool, member)| (&member.id, (pool_at, at, pool)));
    let Some((id, (_, _, pool), (pool_at, at, _))) = repeated(ids) else {
        return Ok(());
    };
    let fault = Fault::DuplicateMember { id: id.clone(), pool: pool.id.clone() };
    Err(fault.at("id").within("member", at).within("pool", pool_at))
}

fn vips_once(desired: &Desired) -> Result<(), Invalid> {
    let keys = vips(desired).map(|(listener_at, at, listener, vip)| {
        ((vip, listener.protocol, listener.port), (listener_at, at, listener))
    });
    let Some(((vip, protocol, port), (_, _, first), (listener_at, at, _))) = repeated(keys) else {
        return Ok(());
    };
    let fault = Fault::VipTaken { vip, protocol, port, listener: first.id.clone() };
    Err(fault.at_item("vips", at).within("listener", listener_at))
}

fn pools_known(desired: &Desired) -> Result<(), Invalid> {
    let known: HashSet<&String> = desired.pools.iter().map(|pool| &pool.id).collect();
    each("listener", &desired.listeners, |listener| match &listener.pool {
        Some(pool) if !known.contains(pool) => {
            let fault = Fault::UnknownPool { listener: listener.id.clone(), pool: pool.clone() };
            Err(fault.at("pool"))
        }
        Some(_) | None => Ok(()),
    })
}

/// A connection to a member that is a VIP would come back in, whatever its port.
fn no_loops(desired: &Desired) -> Result<(), Invalid> {
    let owners: HashMap<IpAddr, &Listener> =
        vips(desired).map(|(_, _, listener, vip)| (vip, listener)).collect();
    each("pool", &desired.pools, |pool| {
        each("member", &pool.members, |member| match owners.get(&member.address) {
            Some(listener) => Err(Fault::MemberIsVip {
                member: member.id.clone(),
                address: member.address,
                listener: listener.id.clone(),
            }
            .at("address")),
            None => Ok(()),
        })
    })
}

fn totals_fit(desired: &Desired) -> Result<(), Invalid> {
    let mut wanted = 0;
    each("listener", &desired.listeners, |listener| {
        wanted += listener.vips.len();
        let fault = Fault::TooManyVips { listener: listener.id.clone(), wanted };
        if wanted > VIP_KEYS_MAX { Err(fault.at("vips")) } else { Ok(()) }
    })?;
    let mut wanted = 0;
    each("pool", &desired.pools, |pool| {
        wanted += pool.members.len();
        let fault = Fault::TooManyMembers { pool: pool.id.clone(), wanted };
        if wanted > MEMBERS_MAX { Err(fault.at("id")) } else { Ok(()) }
    })
}

fn listener(listener: &Listener) -> Result<(), Invalid> {
    id(&listener.id)?;
    if listener.vips.is_empty() {
        return Err(Fault::NoVip { listener: listener.id.clone() }.at("vips"));
    }
    for (at, vip) in listener.vips.iter().enumerate() {
        address(*vip).map_err(|fault| fault.at_item("vips", at))?;
    }
    port(listener.port)?;
    if listener.connection_limit == Some(0) {
        return Err(Fault::ConnectionLimitZero.at("connection_limit"));
    }
    if listener.idle_timeout_s == 0 {
        return Err(Fault::TimeoutZero.at("idle_timeout_s"));
    }
    let wanted = listener.allowed_networks.len();
    if wanted > NETWORKS_PER_LISTENER_MAX {
        let fault = Fault::TooManyNetworks { listener: listener.id.clone(), wanted };
        return Err(fault.at("allowed_networks"));
    }
    for (at, network) in listener.allowed_networks.iter().enumerate() {
        if is_mapped(network.addr()) {
            return Err(Fault::Network { network: *network }.at_item("allowed_networks", at));
        }
    }
    Ok(())
}

fn pool(pool: &Pool) -> Result<(), Invalid> {
    id(&pool.id)?;
    if let Some(wanted) = &pool.persistence {
        persistence(wanted).map_err(|invalid| invalid.under("persistence"))?;
    }
    if let Some(wanted) = &pool.monitor {
        monitor(wanted).map_err(|invalid| invalid.under("monitor"))?;
    }
    each("member", &pool.members, member)?;
    let sockets = pool.members.iter().enumerate();
    let sockets = sockets.map(|(at, member)| ((member.address, member.port), (at, member)));
    let Some(((address, port), (_, first), (at, _))) = repeated(sockets) else {
        return Ok(());
    };
    let fault = Fault::MemberTwice { address, port, member: first.id.clone() };
    Err(fault.at("address").within("member", at))
}

fn persistence(persistence: &Persistence) -> Result<(), Invalid> {
    if persistence.timeout_s == 0 {
        return Err(Fault::TimeoutZero.at("timeout_s"));
    }
    prefix(persistence.prefix4, PREFIX4).map_err(|fault| fault.at("prefix4"))?;
    prefix(persistence.prefix6, PREFIX6).map_err(|fault| fault.at("prefix6"))
}

fn monitor(monitor: &Monitor) -> Result<(), Invalid> {
    let Monitor { probe, delay_s, timeout_s, rise, fall, on_marked_down: _ } = monitor;
    let numbers = [
        ("delay_s", *delay_s),
        ("timeout_s", *timeout_s),
        ("rise", (*rise).into()),
        ("fall", (*fall).into()),
    ];
    if let Some((key, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
        return Err(Fault::MonitorZero { key }.at(key));
    }
    match probe {
        Probe::Http(http) | Probe::Https(http) => http_probe(http),
        Probe::Tcp | Probe::TlsHello | Probe::Ping | Probe::UdpConnect | Probe::Sctp => Ok(()),
    }
}

/// What would end a line of the request, or a word of it, is refused.
fn http_probe(http: &HttpProbe) -> Result<(), Invalid> {
    let HttpProbe { method, path, version: _, host, codes } = http;
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(Fault::Method { method: method.clone() }.at("method"));
    }
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || !visible(path) {
        return Err(Fault::Path { path: path.clone() }.at("path"));
    }
    if let Some(host) = host.as_ref().filter(|host| host.is_empty() || !visible(host)) {
        return Err(Fault::Host { host: host.clone() }.at("host"));
    }
    if codes.is_empty() {
        return Err(Fault::NoCode.at("codes"));
    }
    match codes.iter().copied().find(|code| !CODES.contains(code)) {
        Some(code) => Err(Fault::Code { code }.at("codes")),
        None => Ok(()),
    }
}

fn member(member: &Member) -> Result<(), Invalid> {
    id(&member.id)?;
    address(member.address).map_err(|fault| fault.at("address"))?;
    port(member.port)?;
    if let Some(probed) = member.probed_at {
        address(probed.ip()).map_err(|fault| fault.at("monitor_address"))?;
        if probed.port() == 0 {
            return Err(Fault::PortZero.at("monitor_port"));
        }
    }
    let weight = member.weight;
    if weight > WEIGHT_MAX { Err(Fault::Weight { weight }.at("weight")) } else { Ok(()) }
}

fn id(id: &str) -> Result<(), Invalid> {
    let fits = (1..=ID_BYTES_MAX).contains(&id.len());
    if fits && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Fault::Id { id: id.to_owned() }.at("id"))
    }
}

fn port(port: u16) -> Result<(), Invalid> {
    if port == 0 { Err(Fault::PortZero.at("port")) } else { Ok(()) }
}

fn prefix(prefix: u8, bits: RangeInclusive<u8>) -> Result<(), Fault> {
    if bits.contains(&prefix) {
        Ok(())
    } else {
        Err(Fault::Prefix { prefix, min: *bits.start(), max: *bits.end() })
    }
}

fn address(address: IpAddr) -> Result<(), Fault> {
    let unfit = match address {
        _ if address.is_unspecified() => Unfit::Unspecified,
        _ if address.is_loopback() => Unfit::Loopback,
        _ if address.is_multicast() => Unfit::Multicast,
        IpAddr::V4(v4) if v4.is_broadcast() => Unfit::Broadcast,
        _ if is_mapped(address) => Unfit::Mapped,
        IpAddr::V4(_) | IpAddr::V6(_) => return Ok(()),
    };
    Err(Fault::Address { address, unfit })
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// Every VIP, with the index of its listener, its own index there, and the listener.
fn vips(desired: &Desired) -> impl Iterator<Item = (usize, usize, &Listener, IpAddr)> {
    desired.listeners.iter().enumerate().flat_map(|(listener_at, listener)| {
        let vips = listener.vips.iter().enumerate();
        vips.map(move |(at, vip)| (listener_at, at, listener, *vip))
    })
}

/// Every member, with the index of its pool, its own index there, and the pool.
fn members(desired: &Desired) -> impl Iterator<Item = (usize, usize, &Pool, &Member)> {
    desired.pools.iter().enumerate().flat_map(|(pool_at, pool)| {
        let members = pool.members.iter().enumerate();
        members.map(move |(at, member)| (pool_at, at, pool, member))
    })
}

fn each<T>(
    key: &'static str,
    items: &[T],
    mut check: impl FnMut(&T) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let mut items = items.iter().enumerate();
    items.try_for_each(|(at, item)| check(item).map_err(|invalid| invalid.within(key, at)))
}

/// The first key that comes a second time, with what stood at it before and now.
fn repeated<K: Copy + Eq + Hash, T: Copy>(
    mut items: impl Iterator<Item = (K, T)>,
) -> Option<(K, T, T)> {
    let mut seen = HashMap::new();
    items.find_map(|(key, now)| Some((key, seen.insert(key, now)?, now)))
}

impl Fault {
    fn at(self, key: &'static str) -> Invalid {
        Invalid { place: Place(vec![Step::Key(key)]), fault: self }
    }

    fn at_item(self, key: &'static str, at: usize) -> Invalid {
        Invalid { place: Place(vec![Step::Key(key), Step::Index(at)]), fault: self }
    }
}

impl Invalid {
    fn under(mut self, key: &'static str) -> Self {
        self.place.0.insert(0, Step::Key(key));
        self
    }

    fn within(mut self, key: &'static str, at: usize) -> Self {
        self.place.0.splice(0..0, [Step::Key(key), Step::Index(at)]);
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, step)| match step {
            Step::Key(key) if at == 0 => write!(f, "{key}"),
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::desired::{Algorithm, Name};

    /// Documents that are as large as they may be, and one more.
    #[test]
    fn limits() {
        let members = |pools: &[usize]| document(&[1], pools, 0);
        let rows = [
            ("vips that fit", document(&[VIP_KEYS_MAX - 1, 1], &[], 0), ""),
            (
                "a vip more",
                document(&[VIP_KEYS_MAX, 1], &[], 0),
                "listener[1].vips: with listener l1 there are 1025 vips, at most 1024 fit",
            ),
            ("a pool that fits", members(&[MEMBERS_MAX]), ""),
            (
                "a member more in a pool",
                members(&[MEMBERS_MAX + 1]),
                "pool[0].id: with pool p0 there are 16385 members, at most 16384 fit",
            ),
            ("pools that fit", members(&[MEMBERS_MAX - 1, 1]), ""),
            (
                "a member more",
                members(&[MEMBERS_MAX, 1]),
                "pool[1].id: with pool p1 there are 16385 members, at most 16384 fit",
            ),
            ("networks that fit", document(&[1], &[], NETWORKS_PER_LISTENER_MAX), ""),
            (
                "a network more",
                document(&[1], &[], NETWORKS_PER_LISTENER_MAX + 1),
                "listener[0].allowed_networks: listener l0 allows 1025 networks, at most 1024 fit",
            ),
        ];
        for (row, desired, want) in rows {
            let shown = desired.validate().err().map(|invalid| invalid.to_string());
            assert_eq!(shown.unwrap_or_default(), want, "{row}");
        }
    }

    /// Listeners with so many VIPs each and so many networks, pools with so many members each.
    fn document(vips: &[usize], members: &[usize], networks: usize) -> Desired {
        let address = |a: usize, b: usize, c: usize| {
            let part = |n: usize| u16::try_from(n).unwrap();
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, part(a), part(b), 0, 0, 0, part(c)))
        };
        let listeners = vips.iter().enumerate().map(|(l, vips)| Listener {
            id: format!("l{l}"),
            vips: (0..*vips).map(|v| address(1, l, v)).collect(),
            port: 80,
            protocol: Protocol::Tcp,
            pool: None,
            enabled: true,
            connection_limit: None,
            allowed_networks: (0..networks).map(|n| address(2, 0, n).into()).collect(),
            idle_timeout_s: 50,
            log_format: None,
        });
        let pools = members.iter().enumerate().map(|(p, members)| Pool {
            id: format!("p{p}"),
            algorithm: Algorithm::RoundRobin,
            persistence: None,
            monitor: None,
            enabled: true,
            members: (0..*members)
                .map(|m| Member {
                    id: format!("p{p}m{m}"),
                    address: address(3, p, m),
                    port: 80,
                    weight: 1,
                    backup: false,
                    enabled: true,
                    probed_at: None,
                })
                .collect(),
        });
        Desired {
            name: Name::try_from("web".to_owned()).unwrap(),
            listeners: listeners.collect(),
            pools: pools.collect(),
        }
    }
}
