//! `xdp-lb stats`: what went through, per listener and member.

use std::fmt;
use std::ops::Add;

use aya::maps::MapError;
use serde::Serialize;
use xdp_lb_ebpf::abi::{BackendCounters, ListenerCounters};

use super::{row, table};
use crate::kernel::{Maps, total};
use crate::moved::Moved;
use crate::record::{Counted, Record};

#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    pub name: String,
    pub listeners: Vec<Listener>,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Listener {
    pub id: String,
    /// It is not to be served any more; what it has open goes on.
    pub leaving: bool,
    /// Tells these counters from those of an earlier time, which began at 0 as well.
    pub source: String,
    pub connections: u32,
    /// The sums over its members, also those that left.
    pub moved: Moved,
    /// New flows from networks that are not allowed.
    pub refused: u64,
    /// Over the connection limit.
    pub limited: u64,
    /// Without a usable member.
    pub unserved: u64,
    /// Without a slot or a source port.
    pub exhausted: u64,
    /// Finished connections that are in the log of the listener, and those that it lost.
    pub logged: u64,
    pub unlogged: u64,
}

/// A member as one listener uses it.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    pub listener: String,
    pub pool: String,
    pub id: String,
    pub connections: u32,
    /// Since it came.
    pub moved: Moved,
}

pub fn stats(maps: &Maps, record: &Record) -> Result<Stats, MapError> {
    let mut members = Vec::new();
    for backend in &record.backends {
        let load = maps.backend_load.get(backend.number as usize);
        members.push(Member {
            listener: backend.listener.clone(),
            pool: backend.pool.clone(),
            id: backend.member.clone(),
            connections: load.map_or(0, |load| load.0.load()),
            moved: total::<BackendCounters, _>(&maps.backend_counters, backend.number)?.into(),
        });
    }
    let mut listeners = Vec::new();
    let left = record.leaving.iter().map(|it| (it.number, &it.id, it.counted, true));
    let serving = record
        .listeners
        .iter()
        .filter_map(|it| Some((it.number?, &it.id, it.counted, false)))
        .chain(left);
    for (number, id, Counted { since_ns, departed }, leaving) in serving {
        let counters: ListenerCounters = total(&maps.listener_counters, number)?;
        let load = maps.listener_load.get(number as usize);
        let logs = maps.flow_logs.get(number as usize);
        let its = members.iter().filter(|member| member.listener == *id);
        listeners.push(Listener {
            id: id.clone(),
            leaving,
            source: format!("xdp {:x} {number} {since_ns:x}", maps.meta.seed0),
            connections: load.map_or(0, |load| load.0.load()),
            moved: its.map(|member| member.moved).fold(departed, Moved::add),
            refused: counters.refused,
            limited: counters.limited,
            unserved: counters.unserved,
            exhausted: counters.exhausted,
            logged: logs.map_or(0, |logs| logs.logged.load()),
            unlogged: logs.map_or(0, |logs| logs.lost.load()),
        });
    }
    Ok(Stats { name: record.name.clone(), listeners, members })
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut listeners = table(&[
            "LISTENER",
            "CONNECTIONS",
            "OPENED",
            "PACKETS IN",
            "BYTES IN",
            "PACKETS OUT",
            "BYTES OUT",
            "REFUSED",
            "LIMITED",
            "UNSERVED",
            "EXHAUSTED",
            "LOGGED",
            "NOT LOGGED",
        ]);
        for listener in &self.listeners {
            let Listener {
                id,
                connections,
                moved,
                refused,
                limited,
                unserved,
                exhausted,
                logged,
                unlogged,
                ..
            } = listener;
            let Moved { opened, packets_in, bytes_in, packets_out, bytes_out, .. } = moved;
            row(
                &mut listeners,
                [
                    id,
                    connections,
                    opened,
                    packets_in,
                    bytes_in,
                    packets_out,
                    bytes_out,
                    refused,
                    limited,
                    unserved,
                    exhausted,
                    logged,
                    unlogged,
                ],
            );
        }
        writeln!(f, "{listeners}\n")?;

        let mut members = table(&[
            "LISTENER",
            "POOL",
            "MEMBER",
            "CONNECTIONS",
            "OPENED",
            "PACKETS IN",
            "BYTES IN",
            "PACKETS OUT",
            "BYTES OUT",
        ]);
        for Member { listener, pool, id, connections, moved } in &self.members {
            let Moved { opened, packets_in, bytes_in, packets_out, bytes_out, .. } = moved;
            row(
                &mut members,
                [
                    listener,
                    pool,
                    id,
                    connections,
                    opened,
                    packets_in,
                    bytes_in,
                    packets_out,
                    bytes_out,
                ],
            );
        }
        writeln!(f, "{members}")
    }
}
