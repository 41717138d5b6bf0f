//! `xdp-lb status`: is it well, and if not, why.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aya::maps::MapError;
use serde::Serialize;
use xdp_lb_ebpf::Reason;

use super::stats::stats;
use super::{Found, or_dash, row, table};
use crate::kernel::{Maps, Mode};
use crate::record::{Interface, Record, Standing, State};

#[derive(Debug, Serialize)]
pub struct Status {
    pub name: String,
    /// Process id of the daemon, if it runs.
    pub daemon: Option<String>,
    pub interfaces: Vec<Interface>,
    pub listeners: Vec<Listener>,
    pub members: Vec<Member>,
    /// Frames that were not forwarded, and one reason that was; those never met are left out.
    pub reasons: Vec<Count>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Listener {
    pub id: String,
    pub protocol: String,
    pub addresses: Vec<SocketAddr>,
    /// `xdp`, or the program beside it; none where nobody serves it.
    pub by: Option<String>,
    pub pool: Option<String>,
    /// Of those that XDP serves; none while it is disabled.
    pub connections: Option<u32>,
    pub connection_limit: Option<u32>,
    /// Why not by XDP.
    pub why: Option<String>,
}

/// A member as one listener uses it.
#[derive(Debug, Serialize)]
pub struct Member {
    pub listener: String,
    pub pool: String,
    pub id: String,
    pub address: SocketAddr,
    pub weight: u16,
    pub state: State,
    pub why: Option<String>,
    pub connections: u32,
}

#[derive(Clone, Debug, Serialize)]
pub struct Count {
    pub reason: &'static str,
    pub text: &'static str,
    pub frames: u64,
}

pub fn status(found: &Found) -> Result<Status, MapError> {
    let Found { record, daemon, .. } = found;
    let maps = found.maps().ok();
    let load =
        |maps: &Maps, id: u32| maps.listener_load.get(id as usize).map_or(0, |load| load.0.load());
    let listeners = record.listeners.iter().map(|listener| Listener {
        id: listener.id.clone(),
        protocol: listener.protocol.clone(),
        addresses: addresses(&listener.vips, listener.port),
        by: Some("xdp".to_owned()),
        pool: listener.pool.clone(),
        connections: listener.number.map(|number| maps.map_or(0, |maps| load(maps, number))),
        connection_limit: listener.connection_limit,
        why: None,
    });
    let beside = record.beside.iter().map(|listener| Listener {
        id: listener.id.clone(),
        protocol: listener.protocol.clone(),
        addresses: addresses(&listener.vips, listener.port),
        by: listener.by.clone(),
        pool: None,
        connections: None,
        connection_limit: None,
        why: Some(listener.why.clone()),
    });
    let members = record.backends.iter().map(|backend| Member {
        listener: backend.listener.clone(),
        pool: backend.pool.clone(),
        id: backend.member.clone(),
        address: (backend.address, backend.port).into(),
        weight: backend.weight,
        state: backend.state,
        why: backend.why.clone(),
        connections: found.connections(backend.number),
    });
    let (reasons, opened) = match maps {
        None => (Vec::new(), 0),
        Some(maps) => (reasons(maps)?, opened(maps, record)?),
    };
    Ok(Status {
        name: record.name.clone(),
        daemon: daemon.clone(),
        interfaces: record.interfaces.clone(),
        listeners: listeners.chain(beside).collect(),
        members: members.collect(),
        warnings: warnings(found, &reasons, opened),
        reasons,
    })
}

fn addresses(vips: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    vips.iter().map(|vip| (*vip, port).into()).collect()
}

/// Those that were met.
pub fn reasons(maps: &Maps) -> Result<Vec<Count>, MapError> {
    let mut counts = Vec::new();
    for reason in Reason::ALL {
        let frames = maps.reasons.get(&(*reason as u32), 0)?.iter().sum();
        if frames > 0 {
            let (name, text) = reason.text();
            counts.push(Count { reason: name, text: text.trim(), frames });
        }
    }
    Ok(counts)
}

/// Whether more frames than chance has it came with partial checksums.
pub fn partial_checksums(found: &Found) -> Result<bool, MapError> {
    let Ok(maps) = found.maps() else { return Ok(false) };
    Ok(too_many_partial(&reasons(maps)?, opened(maps, &found.record)?))
}

/// One good checksum in 65536 looks partial by chance.
fn too_many_partial(reasons: &[Count], opened: u64) -> bool {
    let (partial, _) = Reason::PartialChecksum.text();
    reasons.iter().any(|count| count.reason == partial && count.frames > opened / 1024)
}

/// Connections of all listeners so far.
fn opened(maps: &Maps, record: &Record) -> Result<u64, MapError> {
    Ok(stats(maps, record)?.listeners.iter().map(|listener| listener.moved.opened).sum())
}

fn warnings(found: &Found, reasons: &[Count], opened: u64) -> Vec<String> {
    let Found { record, daemon, .. } = found;
    let mut warnings = Vec::new();
    if daemon.is_none() {
        warnings.push(
            "the daemon does not run: packets go on, but nothing expires and nothing is followed"
                .to_owned(),
        );
    }
    warnings.extend(record.error.iter().map(|error| format!("not in force: {error}")));
    for Interface { name, standing } in &record.interfaces {
        match standing {
            Standing::Missing => warnings.push(format!("{name} is missing")),
            Standing::Failed { why } => warnings.push(format!("not attached: {why}")),
            Standing::Attached { mode: Mode::Generic, refused, .. } => {
                let why = refused.as_deref().unwrap_or("by an earlier start");
                warnings.push(format!("{name} is in generic mode, which is slower: {why}"));
            }
            Standing::Attached { mode: Mode::Native, .. } => {}
        }
    }
    // In generic mode the kernel knows what is still to be done, and whoever sends the frame completes it.
    let is_native =
        |of: &Interface| matches!(of.standing, Standing::Attached { mode: Mode::Native, .. });
    let is_lost = record.interfaces.iter().any(is_native);
    if is_lost && too_many_partial(reasons, opened) {
        warnings.push(
            "frames came with partial checksums, which their receivers refuse: turn transmit \
             checksum offload off at the endpoints (`ethtool -K <interface> tx off`)"
                .to_owned(),
        );
    }
    warnings
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.daemon {
            Some(pid) => writeln!(f, "{}, run by process {pid}\n", self.name)?,
            None => writeln!(f, "{}, without a daemon\n", self.name)?,
        }
        let mut interfaces = table(&["INTERFACE", "MODE", "WHY"]);
        for Interface { name, standing } in &self.interfaces {
            match standing {
                Standing::Missing => row(&mut interfaces, [name, &"missing", &""]),
                Standing::Failed { why } => row(&mut interfaces, [name, &"not attached", why]),
                Standing::Attached { mode, refused, .. } => {
                    row(&mut interfaces, [name, mode, &refused.as_deref().unwrap_or("")]);
                }
            }
        }
        writeln!(f, "{interfaces}\n")?;

        let mut listeners = table(&[
            "LISTENER",
            "PROTOCOL",
            "ADDRESS",
            "BY",
            "POOL",
            "CONNECTIONS",
            "LIMIT",
            "WHY",
        ]);
        for listener in &self.listeners {
            let Listener { id, protocol, addresses, pool, connections, why, .. } = listener;
            let by = listener.by.as_deref().unwrap_or("nobody");
            let connections = match connections {
                Some(connections) => connections.to_string(),
                None if by == "xdp" => "disabled".to_owned(),
                None => "-".to_owned(),
            };
            let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
            let addresses = addresses.join(" ");
            let (pool, limit) = (or_dash(pool.as_ref()), or_dash(listener.connection_limit));
            let why = why.as_deref().unwrap_or("");
            let cells: [&dyn fmt::Display; 8] =
                [id, protocol, &addresses, &by, &pool, &connections, &limit, &why];
            row(&mut listeners, cells);
        }
        writeln!(f, "{listeners}\n")?;

        let mut members = table(&[
            "LISTENER",
            "POOL",
            "MEMBER",
            "ADDRESS",
            "WEIGHT",
            "STATE",
            "CONNECTIONS",
            "WHY",
        ]);
        for member in &self.members {
            let Member { listener, pool, id, address, weight, state, why, connections } = member;
            let why = why.as_deref().unwrap_or("");
            row(&mut members, [listener, pool, id, address, weight, state, connections, &why]);
        }
        writeln!(f, "{members}")?;

        if !self.reasons.is_empty() {
            let mut reasons = table(&["FRAMES", "NOT FORWARDED, BECAUSE", ""]);
            for Count { reason, text, frames } in &self.reasons {
                row(&mut reasons, [frames, reason, text]);
            }
            writeln!(f, "\n{reasons}")?;
        }
        if !self.warnings.is_empty() {
            writeln!(f)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}
