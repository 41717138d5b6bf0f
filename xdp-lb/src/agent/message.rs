//! What a heartbeat says: of all listeners, whoever serves them.

use std::collections::BTreeMap;

use agent_api::heartbeat::message::{
    Listener, ListenerStatus, MemberStatus, Message, Pool, PoolKey, PoolStatus, Stats,
};
use agent_api::understood::{self, Protocol};
use serde::de::IntoDeserializer;
use serde::de::value::Error as Unknown;
use serde::{Deserialize, Serialize};

use crate::haproxy_stats::Row;
use crate::observe::stats;

/// What a listener has counted since it was made. In the stock agent's words for its file, which it
/// finds if it comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    #[serde(rename = "bin")]
    bytes_in: u64,
    #[serde(rename = "bout")]
    bytes_out: u64,
    #[serde(rename = "ereq")]
    request_errors: u64,
    #[serde(rename = "stot")]
    connections: u64,
}

/// By listener, as they were in the last message.
pub type Before = BTreeMap<String, Totals>;

/// What is known of those who serve.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// All listeners that are wanted.
    pub listeners: &'a [understood::Listener],
    /// The packet path; none while it does not run.
    pub forwarded: Option<&'a stats::Stats>,
    /// HAProxy.
    pub rows: &'a [Row],
    /// The machine is not back to what it served before the start: who serves is not known yet.
    pub starting: bool,
}

/// The message, and what is to be remembered for the next.
pub fn message(id: &str, seq: u64, known: Known<'_>, before: &Before) -> (Message, Before) {
    let (mut listeners, mut pools, mut after) = Default::default();
    for listener in known.listeners {
        told(listener, known, before, (&mut listeners, &mut pools, &mut after));
    }
    (Message::new(id.to_owned(), seq, listeners, pools), after)
}

type Parts<'a> = (
    &'a mut BTreeMap<String, Listener>,
    &'a mut BTreeMap<PoolKey, Pool>,
    &'a mut BTreeMap<String, Totals>,
);

fn told(
    listener: &understood::Listener,
    known: Known<'_>,
    before: &Before,
    (listeners, pools, after): Parts<'_>,
) {
    let stats = known.forwarded.map(|stats| &stats.listeners[..]).unwrap_or_default();
    let forwarded = stats.iter().find(|it| it.id == listener.id);
    let frontend = |row: &&Row| row.proxy == listener.id && row.server == "FRONTEND";
    let last = before.get(&listener.id).copied();
    let (totals, conns) = match (forwarded, known.rows.iter().find(frontend)) {
        (Some(stats), _) => (Totals::of_forwarded(stats, listener.protocol), stats.connections),
        (None, Some(row)) => (Totals::of_haproxy(row), clamped(row.sessions)),
        // Nothing came since the last message that would be known of. One without a VIP has nothing
        // to serve, and Octavia counts it.
        (None, None) if known.starting || listener.vips.is_empty() => (last.unwrap_or_default(), 0),
        (None, None) => return,
    };
    let stats = totals.since(last, conns);
    listeners.insert(listener.id.clone(), Listener { status: ListenerStatus::Open, stats });
    after.insert(listener.id.clone(), totals);
    let by_packets = forwarded.is_some() || known.starting;
    for pool in &listener.pools {
        let said = if by_packets {
            pool_of_packets(pool)
        } else {
            pool_of_haproxy(&pool.id, &listener.id, known.rows)
        };
        if let Some(said) = said {
            pools.insert(key(listener, &pool.id), said);
        }
    }
}

fn clamped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn key(listener: &understood::Listener, pool: &str) -> PoolKey {
    let (pool, listener_id) = (pool.to_owned(), listener.id.clone());
    match listener.protocol {
        Protocol::Udp | Protocol::Sctp => PoolKey::Alone { pool },
        Protocol::Tcp | Protocol::Http | Protocol::TerminatedHttps | Protocol::Prometheus => {
            PoolKey::OfListener { pool, listener: listener_id }
        }
    }
}

impl Totals {
    /// TCP as HAProxy counts it, the payload; the rest as IPVS, from the IP header on.
    fn of_forwarded(stats: &stats::Listener, protocol: Protocol) -> Self {
        let moved = stats.moved;
        let (bytes_in, bytes_out) = match protocol {
            Protocol::Udp | Protocol::Sctp => (moved.bytes_in, moved.bytes_out),
            Protocol::Tcp | Protocol::Http | Protocol::TerminatedHttps | Protocol::Prometheus => {
                (moved.payload_in, moved.payload_out)
            }
        };
        Self { bytes_in, bytes_out, request_errors: 0, connections: moved.opened }
    }

    fn of_haproxy(row: &Row) -> Self {
        Self {
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            request_errors: row.request_errors,
            connections: row.sessions_total,
        }
    }

    /// What came since, for the health manager to add. A total below the last one has begun anew, by a
    /// restart of HAProxy or by moving to the other engine: then all of it came since.
    fn since(self, before: Option<Self>, conns: u32) -> Stats {
        let before = before.unwrap_or_default();
        let begun = self.bytes_in < before.bytes_in
            || self.bytes_out < before.bytes_out
            || self.request_errors < before.request_errors
            || self.connections < before.connections;
        let before = if begun { Self::default() } else { before };
        Stats {
            rx: self.bytes_in - before.bytes_in,
            tx: self.bytes_out - before.bytes_out,
            conns: conns.into(),
            totconns: self.connections - before.connections,
            ereq: self.request_errors - before.request_errors,
        }
    }
}

/// Down where it has members and none may be used, as HAProxy says it.
fn pool_of_packets(pool: &understood::Pool) -> Option<Pool> {
    let status = |member: &understood::Member| match (member.enabled, &pool.monitor) {
        (false, _) => MemberStatus::Maint,
        (true, None) => MemberStatus::NoCheck,
        // Nobody has probed it yet: the health manager keeps what it has.
        (true, Some(_)) => MemberStatus::Restarting,
    };
    let members: BTreeMap<_, _> =
        pool.members.iter().map(|member| (member.id.clone(), status(member))).collect();
    let weighs = |member: &understood::Member| {
        member.enabled && member.server.as_ref().is_some_and(|server| server.weight > 0)
    };
    let usable = members.is_empty() || pool.members.iter().any(weighs);
    let status = if usable { PoolStatus::Up } else { PoolStatus::Down };
    pool.enabled.then_some(Pool { status, members })
}

/// None where HAProxy does not have it.
fn pool_of_haproxy(pool: &str, listener: &str, rows: &[Row]) -> Option<Pool> {
    let proxy = format!("{pool}:{listener}");
    let rows = || rows.iter().filter(|row| row.proxy == proxy);
    let backend = rows().find(|row| row.server == "BACKEND")?;
    let status = if backend.status == "UP" { PoolStatus::Up } else { PoolStatus::Down };
    let servers = rows().filter(|row| row.server != "BACKEND");
    let members = servers.filter_map(|row| Some((row.server.clone(), member_status(row)?)));
    Some(Pool { status, members: members.collect() })
}

/// As the stock agent says it: of weight 0 and well is `DRAIN`. None for words that nobody knows.
fn member_status(row: &Row) -> Option<MemberStatus> {
    let text = if row.status.starts_with("MAINT") { "MAINT" } else { &row.status };
    let deserializer = IntoDeserializer::<Unknown>::into_deserializer(text);
    match MemberStatus::deserialize(deserializer).ok()? {
        MemberStatus::Up(None) if row.weight == 0 => Some(MemberStatus::Drain),
        status => Some(status),
    }
}
