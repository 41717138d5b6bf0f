//! Octavia's families for what the packet path serves, and for HAProxy where only its stats socket answers.
//!
//! What is not known is left out. `octavia_loadbalancer_connections_total` is HAProxy's alone: with ours in
//! it, the sum would fall at a reload of HAProxy, and be taken for a counter that began anew.

use std::collections::BTreeMap;

use agent_api::heartbeat::message::{MemberStatus, PoolStatus};
use agent_api::understood;

use super::exposition::{Exposition, Kind};
use crate::agent::message::{Known, of_packets as bytes};
use crate::agent::pools;
use crate::haproxy_stats::Row;
use crate::moved::Moved;

/// What a listener, a pool or a member did.
struct Did {
    sessions: u64,
    sessions_total: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// The states that HAProxy's exporter tells apart; one of them is 1.
const STATES: [&str; 2] = ["DOWN", "UP"];
const MEMBER_STATES: [&str; 5] = ["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];

/// Those of the packet path.
pub fn of_packets(known: &Known<'_>, to: &mut Exposition) {
    let Some(stats) = known.forwarded else { return };
    let mut open = 0;
    for listener in known.listeners {
        let Some(forwarded) = stats.listeners.iter().find(|it| it.id == listener.id && !it.leaving)
        else {
            continue;
        };
        open += u64::from(forwarded.connections);
        let did = did(forwarded.connections.into(), forwarded.moved, listener);
        let labels = [("listener", &listener.id[..])];
        listener_did(&labels, &did, to);
        let help = "Total number of connections of this listener.";
        let name = "octavia_listener_connections_total";
        to.add(name, Kind::Counter, help, &labels, did.sessions_total);
        if let Some(limit) = listener.connection_limit {
            let help = "Connections at a time that this listener takes.";
            to.add("octavia_listener_limit_sessions", Kind::Gauge, help, &labels, limit);
        }
        let help = "Total number of connections denied, by the allowed networks of the listener.";
        let name = "octavia_listener_denied_connections_total";
        to.add(name, Kind::Counter, help, &labels, forwarded.refused);
        let ours = [
            ("limited", "New connections over the connection limit.", forwarded.limited),
            ("unserved", "New connections that found no usable member.", forwarded.unserved),
            (
                "exhausted",
                "New connections that found no slot or no source port.",
                forwarded.exhausted,
            ),
            ("logged", "Finished connections in the listener's log.", forwarded.logged),
            ("unlogged", "Finished connections that the log has lost.", forwarded.unlogged),
            ("packets_in", "Packets from clients.", forwarded.moved.packets_in),
            ("packets_out", "Packets to clients.", forwarded.moved.packets_out),
        ];
        for (what, help, count) in ours {
            let name = format!("octavia_xdp_listener_{what}_total");
            to.add(&name, Kind::Counter, help, &labels, count);
        }
        for pool in &listener.pools {
            of_pool(pool, listener, &did, known, to);
        }
    }
    add_connections(open, to);
}

/// A pool of the packet path has one listener's connections, by its label too: a pool of two listeners would
/// have each series twice.
fn of_pool(
    pool: &understood::Pool,
    listener: &understood::Listener,
    whole: &Did,
    known: &Known<'_>,
    to: &mut Exposition,
) {
    let Some(said) = pools::pool(pool, listener, known) else { return };
    let proxy = format!("{}:{}", pool.id, listener.id);
    pool_is(&proxy, said.status == PoolStatus::Up, to);
    // Those of the listener: a sum over its members would fall with each that leaves.
    pool_did(&proxy, whole, to);
    let usable = |member: &&understood::Member| {
        let status = said.members.get(&member.id);
        matches!(status, Some(MemberStatus::Up(_) | MemberStatus::NoCheck))
            && member.server.as_ref().is_some_and(|server| server.weight > 0)
    };
    let backup =
        |member: &&understood::Member| member.server.as_ref().is_some_and(|server| server.backup);
    let active = pool.members.iter().filter(|it| usable(it) && !backup(it)).count();
    let backups = pool.members.iter().filter(|it| usable(it) && backup(it)).count();
    pool_has(&proxy, active, backups, to);

    let members = known.forwarded.map(|stats| &stats.members[..]).unwrap_or_default();
    let mut by_member = BTreeMap::<&str, (u64, Moved)>::new();
    for member in members.iter().filter(|it| it.listener == listener.id && it.pool == pool.id) {
        // One that moved has two backends for a while.
        let (open, moved) = by_member.entry(&member.id).or_default();
        (*open, *moved) = (*open + u64::from(member.connections), *moved + member.moved);
    }
    for member in &pool.members {
        let state = match said.members.get(&member.id) {
            Some(MemberStatus::Up(_) | MemberStatus::NoCheck) => "UP",
            Some(MemberStatus::Down(_)) => "DOWN",
            Some(MemberStatus::Drain) => "DRAIN",
            Some(MemberStatus::Maint) => "MAINT",
            Some(MemberStatus::Restarting) | None => continue,
        };
        let (open, moved) = by_member.get(&member.id[..]).copied().unwrap_or_default();
        let did = did(open, moved, listener);
        let weight = member.server.as_ref().map(|server| u32::from(server.weight));
        of_member(&proxy, &member.id, state, weight, &did, to);
    }
}

/// Those of HAProxy, by its stats socket.
pub fn of_rows(known: &Known<'_>, to: &mut Exposition) {
    let mut open = 0;
    let is_ours = |row: &&Row| {
        let listener = row.proxy.rsplit(':').next().unwrap_or_default();
        let wanted = known.listeners.iter().any(|it| it.id == listener);
        wanted && !row.leaving && !known.by_packets(listener)
    };
    for row in known.rows.iter().filter(is_ours) {
        let did = Did {
            sessions: row.sessions,
            sessions_total: row.sessions_total,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
        };
        match &row.server[..] {
            "FRONTEND" => {
                open += row.sessions;
                listener_did(&[("listener", &row.proxy)], &did, to);
            }
            "BACKEND" => {
                pool_is(&row.proxy, row.status == "UP", to);
                pool_did(&row.proxy, &did, to);
            }
            member => {
                let known = |state: &&&str| row.status.starts_with(**state);
                let state = MEMBER_STATES.iter().find(known).unwrap_or(&"UP");
                of_member(&row.proxy, member, state, Some(row.weight), &did, to);
            }
        }
    }
    add_connections(open, to);
}

fn did(open: u64, moved: Moved, listener: &understood::Listener) -> Did {
    let totals = bytes(moved, listener.protocol);
    Did {
        sessions: open,
        sessions_total: totals.connections,
        bytes_in: totals.bytes_in,
        bytes_out: totals.bytes_out,
    }
}

/// To those that HAProxy has.
fn add_connections(open: u64, to: &mut Exposition) {
    let name = "octavia_loadbalancer_current_connections";
    let all = open + to.number(name).unwrap_or(0);
    to.add(name, Kind::Gauge, "Connections that are open now.", &[], all);
}

fn listener_did(labels: &[(&str, &str)], did: &Did, to: &mut Exposition) {
    for state in STATES {
        let labels = [labels, &[("state", state)]].concat();
        let help = "Current status of the listener.";
        // It is told of while it is open.
        let is = u8::from(state == "UP");
        to.add("octavia_listener_status", Kind::Gauge, help, &labels, is);
    }
    scope("listener", labels, did, to);
}

fn pool_is(proxy: &str, up: bool, to: &mut Exposition) {
    for state in STATES {
        let help = "Current status of the pool.";
        let is = u8::from((state == "UP") == up);
        let labels = [("pool", proxy), ("state", state)];
        to.add("octavia_pool_status", Kind::Gauge, help, &labels, is);
    }
}

fn pool_did(proxy: &str, did: &Did, to: &mut Exposition) {
    scope("pool", &[("pool", proxy)], did, to);
}

fn pool_has(proxy: &str, active: usize, backups: usize, to: &mut Exposition) {
    let labels = [("pool", proxy)];
    let help = "Current number of active members.";
    to.add("octavia_pool_active_members", Kind::Gauge, help, &labels, active);
    let help = "Current number of backup members.";
    to.add("octavia_pool_backup_members", Kind::Gauge, help, &labels, backups);
}

fn of_member(
    proxy: &str,
    member: &str,
    state: &str,
    weight: Option<u32>,
    did: &Did,
    to: &mut Exposition,
) {
    let labels = [("pool", proxy), ("member", member)];
    for other in MEMBER_STATES {
        let labels = [&labels[..], &[("state", other)]].concat();
        let help = "Current status of the member.";
        to.add("octavia_member_status", Kind::Gauge, help, &labels, u8::from(other == state));
    }
    if let Some(weight) = weight {
        to.add("octavia_member_weight", Kind::Gauge, "Member weight.", &labels, weight);
    }
    scope("member", &labels, did, to);
}

/// What all three have.
fn scope(of: &str, labels: &[(&str, &str)], did: &Did, to: &mut Exposition) {
    let Did { sessions, sessions_total, bytes_in, bytes_out } = did;
    let rows = [
        ("current_sessions", Kind::Gauge, "Connections that are open now.", sessions),
        ("sessions_total", Kind::Counter, "Total number of connections.", sessions_total),
        ("bytes_in_total", Kind::Counter, "Total number of bytes from clients.", bytes_in),
        ("bytes_out_total", Kind::Counter, "Total number of bytes to clients.", bytes_out),
    ];
    for (what, kind, help, count) in rows {
        to.add(&format!("octavia_{of}_{what}"), kind, help, labels, count);
    }
}
