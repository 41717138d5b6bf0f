//! The keepalived configuration of a UDP or SCTP listener, as Octavia renders it (`common/jinja/lvs`).
//!
//! It is never given to keepalived: what it says is read, by a grammar that knows nothing else.

mod statement;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::desired::{self, Algorithm};
use crate::grammar::Statements;
use crate::monitor::{HttpProbe, Monitor, Probe};
use crate::paths::Paths;
use crate::refused::Refused;
use crate::understood::{Engine, Listener, Member, Persistence, Pool, Protocol, Server};
use statement::{Family, Script, Statement as S, statement};

/// What a file says. Two are equal if they mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub load_balancer: String,
    pub listener: String,
    /// False for a file that says so of its listener; it then says nothing else.
    pub enabled: bool,
    /// Octavia's id of the health monitor, also where its kind is not rendered.
    pub health_monitor: Option<String>,
    /// None without a pool, or where the load balancer is disabled.
    service: Option<Service>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    vips: Vec<IpAddr>,
    port: u16,
    protocol: Protocol,
    connection_limit: Option<u32>,
    pool: Option<Pool>,
}

/// A virtual server: the listener in one family.
struct Side {
    line: usize,
    vips: Vec<IpAddr>,
    port: u16,
    shared: Shared,
    /// Bits of a client's address that persistence looks at.
    prefix: Option<Prefix>,
    members: Vec<Member>,
    connection_limit: Option<u32>,
    check: Option<Check>,
}

/// What both families must say alike.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shared {
    algorithm: Algorithm,
    protocol: Protocol,
    persistence_timeout_s: Option<u32>,
    /// `delay_loop` and `retry`.
    rhythm: Option<(u32, u16)>,
    /// Id, and whether it is enabled.
    pool: Option<(String, bool)>,
    health_monitor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    Four(u8),
    Six(u8),
}

/// What is done to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    probe: Probe,
    timeout_s: u32,
}

/// keepalived's, where the controller leaves `retry` out.
const RETRY_DEFAULT: u16 = 1;

/// Of a whole file. `paths` are those whose scripts it may name.
pub fn parse(text: &str, paths: &Paths) -> Result<Config, Refused> {
    let mut file = Statements::read(text, statement)?;
    let load_balancer = file.must("the comment of the load balancer", |s| match s {
        S::LoadBalancer(id) => Some(id.clone()),
        _ => None,
    })?;
    let (listener, enabled) = file.must("the comment of the listener", |s| match s {
        S::Listener(id, enabled) => Some((id.clone(), *enabled)),
        _ => None,
    })?;
    file.must("`net_namespace amphora-haproxy`", |s| (*s == S::Namespace).then_some(()))?;
    let mut sides = Vec::new();
    for family in [Family::Four, Family::Six] {
        if file.peek() == Some(&S::Group(family)) {
            sides.push(side(&mut file, family, paths)?);
        }
    }
    file.done()?;
    let health_monitor = sides.first().and_then(|side| side.shared.health_monitor.clone());
    let service = service(sides)?;
    Ok(Config { load_balancer, listener, enabled, health_monitor, service })
}

impl Config {
    /// None for a listener that is disabled: the health manager does not expect it.
    pub fn listener(&self) -> Option<Listener> {
        if !self.enabled {
            return None;
        }
        let service = self.service.clone();
        Some(Listener {
            id: self.listener.clone(),
            vips: service.as_ref().map_or_else(Vec::new, |service| service.vips.clone()),
            port: service.as_ref().map_or(0, |service| service.port),
            protocol: service.as_ref().map_or(Protocol::Udp, |service| service.protocol),
            engine: Engine::Xdp,
            connection_limit: service.as_ref().and_then(|service| service.connection_limit),
            client_timeout_ms: 0,
            server_timeout_ms: 0,
            default_pool: service.as_ref().and_then(|it| it.pool.as_ref()).map(|it| it.id.clone()),
            pools: service.and_then(|service| service.pool).into_iter().collect(),
            log_format: None,
        })
    }
}

fn side(file: &mut Statements<S>, family: Family, paths: &Paths) -> Result<Side, Refused> {
    let line = file.line();
    file.must("`virtual_server_group`", |s| (*s == S::Group(family)).then_some(()))?;
    let mut vips = Vec::new();
    let mut ports = BTreeSet::new();
    while let Some((vip, port)) = file.take(|s| match s {
        S::Vip(vip, port) if family.has(*vip) => Some((*vip, *port)),
        _ => None,
    }) {
        vips.push(vip);
        ports.insert(port);
    }
    close(file)?;
    let port = match (ports.len(), ports.first()) {
        (1, Some(port)) => *port,
        _ => return Err(Refused::new(line, "a group has one port and at least one VIP")),
    };
    file.must("`virtual_server` of the group", |s| (*s == S::Server(family)).then_some(()))?;
    let algorithm = file.must("`lb_algo`", |s| match s {
        S::Algorithm(algorithm) => Some(*algorithm),
        _ => None,
    })?;
    file.must("`lb_kind NAT`", |s| (*s == S::Nat).then_some(()))?;
    let protocol = file.must("`protocol`", |s| match s {
        S::Protocol(protocol) => Some(*protocol),
        _ => None,
    })?;
    let persistence_timeout_s = file.take(|s| match s {
        S::PersistenceTimeout(seconds) => Some(*seconds),
        _ => None,
    });
    let prefix = match persistence_timeout_s {
        Some(_) => Some(file.must("`persistence_granularity`", |s| match s {
            S::Granularity(bits) => family.prefix(*bits),
            _ => None,
        })?),
        None => None,
    };
    let rhythm = rhythm(file)?;
    let pool = file.take(|s| match s {
        S::Pool(id, enabled) => Some((id.clone(), *enabled)),
        _ => None,
    });
    let health_monitor = file.take(|s| match s {
        S::HealthMonitor(id) => Some(id.clone()),
        _ => None,
    });
    let shared =
        Shared { algorithm, protocol, persistence_timeout_s, rhythm, pool, health_monitor };
    let mut side = Side {
        line,
        vips,
        port,
        shared,
        prefix,
        members: Vec::new(),
        connection_limit: None,
        check: None,
    };
    let mut first = true;
    while let Some((id, enabled)) = file.take(|s| match s {
        S::Member(id, enabled) => Some((id.clone(), *enabled)),
        _ => None,
    }) {
        if !enabled {
            side.members.push(Member { id, enabled, server: None });
            continue;
        }
        let line = file.line();
        let (server, limit, check) = real_server(file, family, paths)?;
        if !first && (limit, &check) != (side.connection_limit, &side.check) {
            return Err(Refused::new(line, "it is limited or checked unlike the one before"));
        }
        (first, side.connection_limit, side.check) = (false, limit, check);
        side.members.push(Member { id, enabled, server: Some(server) });
    }
    if side.check.is_some() && side.shared.rhythm.is_none() {
        return Err(Refused::new(line, "members are checked, and nothing says how often"));
    }
    close(file)?;
    Ok(side)
}

fn rhythm(file: &mut Statements<S>) -> Result<Option<(u32, u16)>, Refused> {
    let Some(delay_s) = file.take(|s| match s {
        S::DelayLoop(seconds) => Some(*seconds),
        _ => None,
    }) else {
        return Ok(None);
    };
    file.must("`delay_before_retry`, the same,", |s| {
        (*s == S::DelayBeforeRetry(delay_s)).then_some(())
    })?;
    let retry = file.take(|s| match s {
        S::Retry(times) => Some(*times),
        _ => None,
    });
    Ok(Some((delay_s, retry.unwrap_or(RETRY_DEFAULT))))
}

fn real_server(
    file: &mut Statements<S>,
    family: Family,
    paths: &Paths,
) -> Result<(Server, Option<u32>, Option<Check>), Refused> {
    let (address, port) = file.must("`real_server` of the family", |s| match s {
        S::RealServer(address, port) if family.has(*address) => Some((*address, *port)),
        _ => None,
    })?;
    let weight = file.must("`weight`", |s| match s {
        S::Weight(weight) => Some(*weight),
        _ => None,
    })?;
    // IPVS limits each member; the API promises a limit of the listener, and that is what becomes of it.
    let limit = file.take(|s| match s {
        S::UpperThreshold(connections) => Some(*connections),
        _ => None,
    });
    let check = checker(file, paths)?;
    close(file)?;
    let probed_at = check.as_ref().map(|(_, at)| *at);
    let probed_at = probed_at.filter(|at| *at != SocketAddr::new(address, port));
    let server = Server { address, port, weight, backup: false, probed_at };
    Ok((server, limit, check.map(|(check, _)| check)))
}

/// What is checked, and where.
fn checker(
    file: &mut Statements<S>,
    paths: &Paths,
) -> Result<Option<(Check, SocketAddr)>, Refused> {
    if file.take(|s| (*s == S::MiscCheck).then_some(())).is_some() {
        let line = file.line();
        let script = file.must("`misc_path`", |s| match s {
            S::MiscPath(script) => Some(script.clone()),
            _ => None,
        })?;
        let timeout_s = file.must("`misc_timeout`", |s| match s {
            S::MiscTimeout(seconds) => Some(*seconds),
            _ => None,
        })?;
        close(file)?;
        return match script {
            Script::Udp { path, at } if path == paths.udp_check().to_string_lossy() => {
                Ok(Some((Check { probe: Probe::UdpConnect, timeout_s }, at)))
            }
            Script::Sctp { timeout_s: inner, at } if timeout_s == inner + 1 => {
                Ok(Some((Check { probe: Probe::Sctp, timeout_s: inner }, at)))
            }
            Script::Udp { .. } => {
                let known = paths.udp_check();
                Err(Refused::new(line, format!("the script must be {}", known.display())))
            }
            Script::Sctp { timeout_s, .. } => {
                let known = format!("`misc_timeout` must be {}", timeout_s + 1);
                Err(Refused::new(line, known))
            }
        };
    }
    let probe = if file.take(|s| (*s == S::TcpCheck).then_some(())).is_some() {
        Probe::Tcp
    } else if file.take(|s| (*s == S::HttpGet).then_some(())).is_some() {
        Probe::Http(urls(file)?)
    } else {
        return Ok(None);
    };
    let address = file.must("`connect_ip`", |s| match s {
        S::ConnectIp(address) => Some(*address),
        _ => None,
    })?;
    let port = file.must("`connect_port`", |s| match s {
        S::ConnectPort(port) => Some(*port),
        _ => None,
    })?;
    let timeout_s = file.must("`connect_timeout`", |s| match s {
        S::ConnectTimeout(seconds) => Some(*seconds),
        _ => None,
    })?;
    close(file)?;
    Ok(Some((Check { probe, timeout_s }, SocketAddr::new(address, port))))
}

/// A block for each code of one path. keepalived wants all of them to pass, which no member can; what
/// the API promises is any.
fn urls(file: &mut Statements<S>) -> Result<HttpProbe, Refused> {
    let (mut path, mut codes) = (None, BTreeSet::new());
    while file.take(|s| (*s == S::Url).then_some(())).is_some() {
        let line = file.line();
        let this = file.must("`path`", |s| match s {
            S::Path(path) => Some(path.clone()),
            _ => None,
        })?;
        if path.get_or_insert_with(|| this.clone()) != &this {
            return Err(Refused::new(line, "all blocks must have the same path"));
        }
        codes.insert(file.must("`status_code`", |s| match s {
            S::StatusCode(code) => Some(*code),
            _ => None,
        })?);
        close(file)?;
    }
    let line = file.line();
    let path = path.ok_or_else(|| Refused::new(line, "`url` is missing here"))?;
    Ok(HttpProbe { method: "GET".to_owned(), path, version: None, host: None, codes })
}

fn close(file: &mut Statements<S>) -> Result<(), Refused> {
    file.must("a known directive, or `}`,", |s| (*s == S::Close).then_some(()))
}

/// Both families together.
fn service(sides: Vec<Side>) -> Result<Option<Service>, Refused> {
    let mut sides = sides.into_iter();
    let Some(mut whole) = sides.next() else {
        return Ok(None);
    };
    let mut prefixes = vec![whole.prefix];
    for side in sides {
        if (&side.shared, side.port) != (&whole.shared, whole.port) {
            return Err(Refused::new(side.line, "the two families differ"));
        }
        if !whole.members.is_empty() && !side.members.is_empty() {
            let told = |side: &Side| (side.connection_limit, side.check.clone());
            let enabled = |side: &Side| side.members.iter().any(|member| member.enabled);
            if enabled(&whole) && enabled(&side) && told(&whole) != told(&side) {
                return Err(Refused::new(side.line, "the two families are checked differently"));
            }
        }
        whole.connection_limit = whole.connection_limit.or(side.connection_limit);
        whole.check = whole.check.or(side.check);
        whole.vips.extend(side.vips);
        whole.members.extend(side.members);
        prefixes.push(side.prefix);
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = whole.members.iter().find(|member| !seen.insert(&member.id[..])) {
        // A disabled member is told in each family.
        if twice.enabled {
            return Err(Refused::new(whole.line, format!("member {} is there twice", twice.id)));
        }
    }
    let mut seen = BTreeSet::new();
    whole.members.retain(|member| seen.insert(member.id.clone()));
    let Shared { algorithm, protocol, persistence_timeout_s, rhythm, pool, .. } = whole.shared;
    let persistence = persistence_timeout_s.map(|timeout_s| {
        let mut persistence = desired::Persistence { timeout_s, ..Default::default() };
        for prefix in prefixes.into_iter().flatten() {
            match prefix {
                Prefix::Four(bits) => persistence.prefix4 = bits,
                Prefix::Six(bits) => persistence.prefix6 = bits,
            }
        }
        Persistence::SourceIp(persistence)
    });
    let monitor = whole.check.zip(rhythm).map(|(check, (delay_s, fall))| Monitor {
        probe: check.probe,
        delay_s,
        timeout_s: check.timeout_s,
        // keepalived brings a member back after one success, whatever the API says.
        rise: 1,
        fall,
    });
    let members = whole.members;
    let pool =
        pool.map(|(id, enabled)| Pool { id, algorithm, persistence, monitor, enabled, members });
    let connection_limit = whole.connection_limit;
    Ok(Some(Service { vips: whole.vips, port: whole.port, protocol, connection_limit, pool }))
}

impl Family {
    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Four)
    }

    /// Octavia 11 writes a mask of IPv4 into the block of IPv6 too, for which keepalived takes 128.
    fn prefix(self, granularity: statement::Granularity) -> Option<Prefix> {
        match (self, granularity) {
            (Self::Four, statement::Granularity::Mask(bits)) => Some(Prefix::Four(bits)),
            (Self::Four, statement::Granularity::Bits(bits)) => {
                (bits <= 32).then_some(Prefix::Four(bits))
            }
            (Self::Six, statement::Granularity::Bits(bits)) => Some(Prefix::Six(bits)),
            (Self::Six, statement::Granularity::Mask(_)) => Some(Prefix::Six(128)),
        }
    }
}
