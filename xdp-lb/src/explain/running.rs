//! The running load balancer explained: each listener, pool and member, who serves it, why, and what
//! would change that.
//!
//! Of the packet path it is what the daemon wrote down last, so that it needs no daemon; of HAProxy what its
//! own sockets say.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use agent_api::Name;
use serde::Serialize;

use super::servers::{Server, servers};
use super::{HealthMonitor, LISTENERS, SessionPersistence, algorithm};
use crate::check::Expectation;
use crate::observe::{Found, or_dash, row, table};
use crate::record::{self, Backend, Beside, Record, State};

#[derive(Debug, Serialize)]
pub struct Running {
    pub name: String,
    /// Process id of the daemon, if it runs.
    pub daemon: Option<String>,
    pub listeners: Vec<Listener>,
    /// What could not be asked, or is not in force.
    pub warnings: Vec<String>,
}

/// With the keys of [`super::Listener`].
#[derive(Debug, Serialize)]
pub struct Listener {
    pub id: String,
    pub vips: Vec<IpAddr>,
    pub port: u16,
    /// In Octavia's words.
    pub protocol: String,
    /// `xdp` or `haproxy`; none where nobody serves it.
    pub engine: Option<String>,
    pub reason: String,
    /// What would make it `xdp`, or have it take connections.
    pub change: Option<String>,
    pub pools: Vec<Pool>,
}

#[derive(Debug, Serialize)]
pub struct Pool {
    pub id: String,
    pub algorithm: &'static str,
    pub persistence: Option<SessionPersistence>,
    pub monitor: Option<HealthMonitor>,
    pub members: Vec<Member>,
}

#[derive(Debug, Serialize)]
pub struct Member {
    pub id: String,
    /// With its port, as one text.
    pub address: Option<String>,
    pub weight: u16,
    /// As `status` has it, or HAProxy.
    pub state: String,
    /// Why it takes no new connections; empty where it does.
    pub reason: String,
    /// What would make it take them.
    pub change: Option<String>,
    pub connections: u32,
}

/// Of a load balancer that has been started.
pub fn running(name: &Name, found: &Found) -> Running {
    // Where nothing is expected, HAProxy has no part in it.
    let sockets = Expectation::read(name).map(|it| it.haproxy).unwrap_or_default();
    let (served, mut warnings) = ask(&sockets);
    warnings.extend(found.record.error.iter().map(|error| format!("not in force: {error}")));
    let connections = |number: u32| found.connections(number);
    let listeners = listeners(&found.record, &connections, &served);
    Running { name: name.to_string(), daemon: found.daemon.clone(), listeners, warnings }
}

fn ask(sockets: &[PathBuf]) -> (Vec<Server>, Vec<String>) {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for socket in sockets {
        match servers(socket) {
            Ok(servers) => found.extend(servers),
            Err(error) => {
                warnings.push(format!("HAProxy does not answer at {}: {error}", socket.display()));
            }
        }
    }
    (found, warnings)
}

/// `connections` are those of a backend, by its number.
fn listeners(
    record: &Record,
    connections: &dyn Fn(u32) -> u32,
    served: &[Server],
) -> Vec<Listener> {
    let own = record.listeners.iter().map(|listener| forwarded(listener, record, connections));
    own.chain(record.beside.iter().map(|listener| beside(listener, served))).collect()
}

fn forwarded(
    listener: &record::Listener,
    record: &Record,
    connections: &dyn Fn(u32) -> u32,
) -> Listener {
    let uses = |it: &&Backend| it.listener == listener.id;
    let members = |pool: &record::Pool| {
        let own = record.backends.iter().filter(uses).filter(|it| it.pool == pool.id);
        own.map(|it| Member::of(it, connections(it.number))).collect::<Vec<_>>()
    };
    let pool = record.pools.iter().find(|pool| Some(&pool.id) == listener.pool.as_ref());
    let pools: Vec<_> = pool.into_iter().map(|pool| Pool::of(pool, members(pool))).collect();
    let (reason, change) = of_packet_path(listener, pools.first());
    Listener {
        id: listener.id.clone(),
        vips: listener.vips.clone(),
        port: listener.port,
        protocol: listener.protocol.to_uppercase(),
        engine: Some("xdp".to_owned()),
        reason,
        change,
        pools,
    }
}

/// How a listener of the packet path fares, and what would have it take connections.
fn of_packet_path(listener: &record::Listener, pool: Option<&Pool>) -> (String, Option<String>) {
    let change = |what: &str| Some(what.to_owned());
    if listener.number.is_none() {
        return ("it is disabled".to_owned(), change("enabling it"));
    }
    let Some(pool) = pool else {
        return ("layer 4; without a pool it refuses all".to_owned(), change("a default pool"));
    };
    let takes = |member: &&Member| member.state == State::Up.to_string();
    match (pool.members.iter().filter(takes).count(), pool.members.len()) {
        (_, 0) => ("layer 4; without a member it refuses all".to_owned(), change("a member")),
        (0, all) => {
            let reason = format!("layer 4; it refuses all, for none of {all} members is up");
            (reason, change("what brings a member back, below"))
        }
        (up, all) if up < all => (format!("layer 4; {up} of {all} members are up"), None),
        _ => ("layer 4".to_owned(), None),
    }
}

fn beside(listener: &Beside, served: &[Server]) -> Listener {
    let members = |pool: &record::Pool| {
        let is_of = |it: &&Server| it.pool == pool.id && it.listener == listener.id;
        served.iter().filter(is_of).map(Member::of_haproxy).collect()
    };
    Listener {
        id: listener.id.clone(),
        vips: listener.vips.clone(),
        port: listener.port,
        protocol: listener.protocol.clone(),
        engine: listener.by.clone(),
        reason: listener.why.clone(),
        change: listener.change.clone(),
        pools: listener.pools.iter().map(|pool| Pool::of(pool, members(pool))).collect(),
    }
}

impl Pool {
    fn of(pool: &record::Pool, members: Vec<Member>) -> Self {
        Self {
            id: pool.id.clone(),
            algorithm: algorithm(pool.algorithm),
            persistence: pool.persistence.clone().map(SessionPersistence::of),
            monitor: pool.monitor.clone().map(HealthMonitor::of),
            members,
        }
    }
}

impl Member {
    fn of(backend: &Backend, connections: u32) -> Self {
        let by_state = match backend.state {
            State::Up => "",
            State::Draining => "drained: weight 0",
            State::Backup => "a backup, and others are up",
            State::Disabled => "it is disabled",
            State::Down => "it is being looked for",
            State::Leaving => "no longer configured; it goes with its last connection",
        };
        Self {
            id: backend.member.clone(),
            address: Some(std::net::SocketAddr::new(backend.address, backend.port).to_string()),
            weight: backend.weight,
            state: backend.state.to_string(),
            reason: backend.why.clone().unwrap_or_else(|| by_state.to_owned()),
            change: backend.change.clone(),
            connections,
        }
    }

    fn of_haproxy(server: &Server) -> Self {
        let is = |word: &str| server.status.split_whitespace().next() == Some(word);
        let check = || server.check.clone().unwrap_or_default();
        let (reason, change) = if is("DOWN") || is("NOLB") {
            (check(), Some("a check that passes"))
        } else if is("MAINT") {
            ("it, or its pool, is disabled".to_owned(), Some("enabling it"))
        } else if is("DRAIN") || server.weight == 0 {
            ("drained: weight 0".to_owned(), Some("a weight above 0"))
        } else {
            (String::new(), None)
        };
        Self {
            id: server.member.clone(),
            address: server.address.clone(),
            weight: server.weight,
            state: server.status.clone(),
            reason,
            change: change.map(str::to_owned),
            connections: server.connections,
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.daemon {
            Some(pid) => writeln!(f, "load balancer {}, run by process {pid}\n", self.name)?,
            None => writeln!(f, "load balancer {}, without a daemon\n", self.name)?,
        }
        let mut listeners = table(&LISTENERS);
        let mut pools = table(&["LISTENER", "POOL", "ALGORITHM", "PERSISTENCE", "MONITOR"]);
        let mut members = table(&[
            "POOL",
            "MEMBER",
            "ADDRESS",
            "WEIGHT",
            "STATE",
            "CONNECTIONS",
            "BECAUSE",
            "CHANGED BY",
        ]);
        for listener in &self.listeners {
            let Listener { id, vips, port, protocol, engine, reason, change, .. } = listener;
            let vips: Vec<String> = vips.iter().map(IpAddr::to_string).collect();
            let address = format!("{} port {port}", vips.join(", "));
            let engine = engine.as_deref().unwrap_or("nobody");
            let change = change.as_deref().unwrap_or("");
            row(&mut listeners, [id, protocol, &address, &engine, reason, &change]);
            for pool in &listener.pools {
                let Pool { algorithm, persistence, monitor, .. } = pool;
                let persistence = or_dash(persistence.as_ref().map(|it| it.kind));
                let monitor = or_dash(monitor.as_ref().map(HealthMonitor::in_short));
                row(&mut pools, [id, &pool.id, algorithm, &persistence, &monitor]);
                for member in &pool.members {
                    let Member { id, address, weight, state, reason, change, connections } = member;
                    let (address, change) = (or_dash(address.as_ref()), change.as_deref());
                    let change = change.unwrap_or("");
                    row(
                        &mut members,
                        [&pool.id, id, &address, weight, state, connections, reason, &change],
                    );
                }
            }
        }
        writeln!(f, "{listeners}\n\n{pools}\n\n{members}")?;
        if !self.warnings.is_empty() {
            writeln!(f)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

#[cfg(test)]
mod tests {
    use agent_api::{Algorithm, Monitor, OnMarkedDown, Probe};

    use super::*;

    fn listener(id: &str, number: Option<u32>, pool: Option<&str>) -> record::Listener {
        record::Listener {
            number,
            id: id.to_owned(),
            vips: vec!["192.0.2.1".parse().unwrap()],
            port: 80,
            protocol: "tcp".to_owned(),
            pool: pool.map(str::to_owned),
            connection_limit: None,
            counted: record::Counted::default(),
        }
    }

    fn backend(number: u32, listener: &str, state: State, why: Option<&str>) -> Backend {
        Backend {
            number,
            listener: listener.to_owned(),
            pool: "p".to_owned(),
            member: format!("m{number}"),
            address: [10, 0, 0, 5].into(),
            port: 80,
            weight: 1,
            state,
            why: why.map(str::to_owned),
            change: None,
        }
    }

    fn pool(id: &str) -> record::Pool {
        let monitor = Monitor {
            probe: Probe::Tcp,
            delay_s: 5,
            timeout_s: 3,
            rise: 2,
            fall: 3,
            on_marked_down: OnMarkedDown::Keep,
        };
        record::Pool {
            id: id.to_owned(),
            algorithm: Algorithm::RoundRobin,
            persistence: None,
            monitor: Some(monitor),
        }
    }

    #[test]
    fn listeners_of_the_packet_path() {
        use State::{Down, Up};
        let backends = |states: &[State]| -> Vec<Backend> {
            let numbered = states.iter().zip(0..);
            numbered.map(|(state, number)| backend(number, "l", *state, None)).collect()
        };
        type Row<'a> =
            (&'a str, Option<u32>, Option<&'a str>, Vec<Backend>, &'a str, Option<&'a str>);
        let rows: [Row<'_>; 6] = [
            ("all is well", Some(1), Some("p"), backends(&[Up, Up]), "layer 4", None),
            (
                "one is not",
                Some(1),
                Some("p"),
                backends(&[Up, Down]),
                "layer 4; 1 of 2 members are up",
                None,
            ),
            (
                "none is",
                Some(1),
                Some("p"),
                backends(&[Down, Down]),
                "layer 4; it refuses all, for none of 2 members is up",
                Some("what brings a member back, below"),
            ),
            (
                "no member",
                Some(1),
                Some("p"),
                vec![],
                "layer 4; without a member it refuses all",
                Some("a member"),
            ),
            (
                "no pool",
                Some(1),
                None,
                vec![],
                "layer 4; without a pool it refuses all",
                Some("a default pool"),
            ),
            ("disabled", None, Some("p"), vec![], "it is disabled", Some("enabling it")),
        ];
        for (row, number, of, backends, reason, change) in rows {
            let listeners_of = vec![listener("l", number, of)];
            let pools = vec![pool("p"), pool("other")];
            let record = Record { listeners: listeners_of, pools, backends, ..Record::default() };
            let explained = listeners(&record, &|_| 0, &[]);
            assert_eq!(explained[0].reason, reason, "{row}");
            assert_eq!(explained[0].change.as_deref(), change, "{row}");
            assert_eq!(explained[0].engine.as_deref(), Some("xdp"), "{row}");
        }
    }

    #[test]
    fn members_by_their_states() {
        let rows = [
            (State::Up, None, ""),
            (State::Draining, None, "drained: weight 0"),
            (State::Backup, None, "a backup, and others are up"),
            (State::Disabled, Some("its pool is disabled"), "its pool is disabled"),
            (
                State::Down,
                Some("connection refused at 10.0.0.5:80"),
                "connection refused at 10.0.0.5:80",
            ),
            (State::Leaving, None, "no longer configured; it goes with its last connection"),
        ];
        for (state, why, want) in rows {
            let member = Member::of(&backend(0, "l", state, why), 3);
            assert_eq!((&member.reason[..], member.connections), (want, 3), "{state}");
            assert_eq!(member.address.as_deref(), Some("10.0.0.5:80"));
        }
    }

    #[test]
    fn members_of_haproxy() {
        let refused = "Layer4 connection problem (Connection refused)";
        let rows = [
            ("UP", 1, "", None),
            ("UP 1/3", 1, "", None),
            ("no check", 1, "", None),
            ("DOWN", 1, refused, Some("a check that passes")),
            ("DOWN 1/2", 1, refused, Some("a check that passes")),
            ("MAINT", 1, "it, or its pool, is disabled", Some("enabling it")),
            ("no check", 0, "drained: weight 0", Some("a weight above 0")),
            ("DRAIN", 0, "drained: weight 0", Some("a weight above 0")),
        ];
        for (status, weight, reason, change) in rows {
            let server = Server {
                pool: "p".to_owned(),
                listener: "l".to_owned(),
                member: "m".to_owned(),
                address: Some("10.0.0.5:80".to_owned()),
                weight,
                status: status.to_owned(),
                connections: 0,
                check: Some(refused.to_owned()),
            };
            let http = Beside {
                id: "l".to_owned(),
                vips: vec![],
                port: 80,
                protocol: "HTTP".to_owned(),
                by: Some("haproxy".to_owned()),
                why: "the listener speaks HTTP".to_owned(),
                change: Some("a listener of protocol TCP".to_owned()),
                pools: vec![pool("p")],
            };
            let record = Record { beside: vec![http], ..Record::default() };
            let elsewhere = Server { listener: "l2".to_owned(), ..server.clone() };
            let explained = listeners(&record, &|_| 0, &[server, elsewhere]);
            assert_eq!(explained[0].reason, "the listener speaks HTTP");
            let [member] = &explained[0].pools[0].members[..] else { panic!("{explained:?}") };
            assert_eq!(
                (&member.reason[..], member.change.as_deref()),
                (reason, change),
                "{status}"
            );
        }
    }
}
