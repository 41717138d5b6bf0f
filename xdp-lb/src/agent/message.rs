//! What a heartbeat says: of all listeners, whoever serves them.

use std::collections::BTreeMap;

use super::journal::{Journal, Source, Totals};
use super::pools;
use crate::haproxy_stats::{Row, Worker};
use crate::health::Standings;
use crate::moved::Moved;
use crate::observe::stats;
use agent_api::heartbeat::message::{Listener, ListenerStatus, Message, PoolKey, Stats};
use agent_api::understood::{self, Protocol};

/// What is known of those who serve.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// All listeners that are wanted.
    pub listeners: &'a [understood::Listener],
    /// The packet path; none while it does not run.
    pub forwarded: Option<&'a stats::Stats>,
    /// Members that the packet path forwards to and that are probed.
    pub standings: &'a Standings,
    /// HAProxy.
    pub rows: &'a [Row],
    /// The machine is not back to what it served before the start: who serves is not known yet.
    pub starting: bool,
}

/// The message, and the journal once it is told.
pub fn message(id: &str, seq: u64, known: Known<'_>, before: &Journal) -> (Message, Journal) {
    let (mut listeners, mut told, mut journal) = (BTreeMap::new(), BTreeMap::new(), before.clone());
    for listener in known.listeners {
        let Some(said) = said(listener, known, &mut journal) else { continue };
        listeners.insert(listener.id.clone(), said);
        for pool in &listener.pools {
            if let Some(said) = pools::pool(pool, listener, &known) {
                told.insert(key(listener, &pool.id), said);
            }
        }
    }
    journal.trim(|id| known.listeners.iter().any(|listener| listener.id == id));
    (Message::new(id.to_owned(), seq, listeners, told), journal)
}

/// The message without what came since the last one.
pub fn withheld(mut message: Message) -> Message {
    for listener in message.listeners.values_mut() {
        listener.stats = Stats { conns: listener.stats.conns, ..Stats::default() };
    }
    message
}

impl Known<'_> {
    /// Whether the packet path takes its new connections, or would but for the start.
    pub fn by_packets(&self, listener: &str) -> bool {
        let forwards = self.forwarded(listener).any(|it| !it.leaving);
        // HAProxy of before the start serves on, and knows its members.
        forwards || self.starting && !self.frontends(listener).any(|row| !row.leaving)
    }

    fn forwarded(&self, listener: &str) -> impl Iterator<Item = &stats::Listener> {
        let all = self.forwarded.map(|stats| &stats.listeners[..]).unwrap_or_default();
        all.iter().filter(move |it| it.id == listener)
    }

    fn frontends(&self, listener: &str) -> impl Iterator<Item = &Row> {
        let is = move |row: &&Row| row.proxy == listener && row.server == "FRONTEND";
        self.rows.iter().filter(is)
    }
}

/// None where nobody serves it, and that it is not told of says so.
fn said(
    listener: &understood::Listener,
    known: Known<'_>,
    journal: &mut Journal,
) -> Option<Listener> {
    let id = &listener.id;
    // Nothing that came since the start would be known of. One without a VIP has nothing to serve, and
    // Octavia counts it.
    let served = known.by_packets(id)
        || known.frontends(id).any(|row| !row.leaving)
        || listener.vips.is_empty();
    if !served {
        return None;
    }
    let forwarded = known.forwarded(id);
    let packets = forwarded.map(|it| (it.source.clone(), of_packets(it.moved, listener.protocol)));
    let streams = known.frontends(id).map(|row| (source(row.worker), of_haproxy(row)));
    let news = journal.tell(id, &packets.chain(streams).collect::<Vec<_>>());
    let open = known.forwarded(id).map(|it| u64::from(it.connections));
    let open = open.chain(known.frontends(id).map(|row| row.sessions));
    let stats = Stats {
        rx: news.bytes_in,
        tx: news.bytes_out,
        conns: open.sum(),
        totconns: news.connections,
        ereq: news.request_errors,
    };
    Some(Listener { status: ListenerStatus::Open, stats })
}

fn source(Worker { pid, started_s }: Worker) -> Source {
    format!("haproxy {pid} {started_s}")
}

/// TCP as HAProxy counts it, the payload; the rest as IPVS, from the IP header on.
pub fn of_packets(moved: Moved, protocol: Protocol) -> Totals {
    let (bytes_in, bytes_out) = match protocol {
        Protocol::Udp | Protocol::Sctp => (moved.bytes_in, moved.bytes_out),
        Protocol::Tcp | Protocol::Http | Protocol::TerminatedHttps | Protocol::Prometheus => {
            (moved.payload_in, moved.payload_out)
        }
    };
    Totals { bytes_in, bytes_out, request_errors: 0, connections: moved.opened }
}

fn of_haproxy(row: &Row) -> Totals {
    Totals {
        bytes_in: row.bytes_in,
        bytes_out: row.bytes_out,
        request_errors: row.request_errors,
        connections: row.sessions_total,
    }
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

#[cfg(test)]
mod tests {
    use agent_api::heartbeat::message::PoolStatus;
    use agent_api::understood::{Engine, Layer7};

    use super::super::pools::tests::{member, pool, row};
    use super::*;

    /// With one pool of one member.
    fn listener(protocol: Protocol) -> understood::Listener {
        let engine = match protocol {
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => Engine::Xdp,
            Protocol::Http | Protocol::TerminatedHttps | Protocol::Prometheus => {
                Engine::Haproxy(Layer7::Http)
            }
        };
        understood::Listener {
            id: "l".to_owned(),
            vips: vec!["192.0.2.1".parse().unwrap()],
            port: 80,
            protocol,
            engine,
            connection_limit: None,
            client_timeout_ms: 0,
            server_timeout_ms: 0,
            default_pool: Some("p".to_owned()),
            pools: vec![pool(vec![member("m", 1)])],
            log_format: None,
        }
    }

    /// The bytes from the IP header on are ten times the payload.
    fn forwarded(payload_in: u64, payload_out: u64, opened: u64) -> stats::Stats {
        let moved = Moved {
            opened,
            payload_in,
            payload_out,
            bytes_in: 10 * payload_in,
            bytes_out: 10 * payload_out,
            ..Moved::default()
        };
        let listener = stats::Listener {
            id: "l".to_owned(),
            leaving: false,
            source: "xdp".to_owned(),
            connections: 2,
            moved,
            refused: 0,
            limited: 0,
            unserved: 0,
            exhausted: 0,
            logged: 0,
            unlogged: 0,
        };
        let (listeners, members) = (vec![listener], Vec::new());
        stats::Stats { name: "a".to_owned(), listeners, members }
    }

    fn totals(bytes_in: u64, bytes_out: u64, request_errors: u64, connections: u64) -> Totals {
        Totals { bytes_in, bytes_out, request_errors, connections }
    }

    const NONE: Stats = Stats { tx: 0, rx: 0, conns: 0, totconns: 0, ereq: 0 };

    #[test]
    fn edges_19_21_28_29_what_listeners_did() {
        struct Case {
            name: &'static str,
            listener: understood::Listener,
            forwarded: Option<stats::Stats>,
            rows: Vec<Row>,
            starting: bool,
            /// What was told already, of which source.
            before: Option<(&'static str, Totals)>,
            /// None where it is not told of.
            told: Option<Stats>,
        }
        let tcp = || Case {
            name: "",
            listener: listener(Protocol::Tcp),
            forwarded: None,
            rows: Vec::new(),
            starting: false,
            before: None,
            told: None,
        };
        let frontend = || vec![row("l", "FRONTEND", "OPEN", 0), row("p:l", "BACKEND", "UP", 1)];
        let of = |rx, tx, totconns, ereq, conns| Some(Stats { tx, rx, conns, totconns, ereq });
        let leaving = |it: stats::Stats| stats::Stats {
            listeners: it
                .listeners
                .into_iter()
                .map(|l| stats::Listener { leaving: true, ..l })
                .collect(),
            ..it
        };
        let old = |row: Row| Row { worker: Worker { pid: 11, started_s: 0 }, leaving: true, ..row };
        let unserved =
            || understood::Listener { vips: Vec::new(), port: 0, ..listener(Protocol::Udp) };
        const HAPROXY: &str = "haproxy 12 1";
        let cases = [
            Case {
                name: "TCP, its payload",
                forwarded: Some(forwarded(10, 20, 1)),
                told: of(10, 20, 1, 0, 2),
                ..tcp()
            },
            Case {
                name: "UDP, its packets",
                listener: listener(Protocol::Udp),
                forwarded: Some(forwarded(10, 20, 1)),
                told: of(100, 200, 1, 0, 2),
                ..tcp()
            },
            Case {
                name: "deltas",
                forwarded: Some(forwarded(10, 20, 5)),
                before: Some(("xdp", totals(7, 20, 0, 3))),
                told: of(3, 0, 2, 0, 2),
                ..tcp()
            },
            Case {
                name: "HAProxy",
                listener: listener(Protocol::Http),
                rows: frontend(),
                before: Some((HAPROXY, totals(90, 150, 0, 5))),
                told: of(10, 50, 2, 1, 3),
                ..tcp()
            },
            Case {
                name: "TCP that HAProxy serves, beside a packet path that knows nothing of it",
                forwarded: Some(stats::Stats { listeners: Vec::new(), ..forwarded(0, 0, 0) }),
                rows: frontend(),
                told: of(100, 200, 7, 1, 3),
                ..tcp()
            },
            Case {
                name: "another worker, and the old one's last connections",
                listener: listener(Protocol::Http),
                rows: [frontend(), frontend().into_iter().map(old).collect()].concat(),
                before: Some(("haproxy 11 0", totals(90, 150, 0, 5))),
                told: of(110, 250, 9, 2, 6),
                ..tcp()
            },
            Case {
                name: "both, while it moves",
                forwarded: Some(forwarded(10, 20, 1)),
                rows: frontend(),
                told: of(110, 220, 8, 1, 5),
                ..tcp()
            },
            Case {
                name: "HAProxy, and what the packet path has still",
                forwarded: Some(leaving(forwarded(10, 20, 1))),
                rows: frontend(),
                told: of(110, 220, 8, 1, 5),
                ..tcp()
            },
            Case {
                name: "only what an old worker has still: nobody takes new ones",
                rows: frontend().into_iter().map(old).collect(),
                ..tcp()
            },
            Case {
                name: "nobody serves it for once",
                before: Some(("xdp", totals(7, 20, 0, 3))),
                ..tcp()
            },
            Case { name: "nobody has ever served it", ..tcp() },
            Case {
                name: "the agent has just started",
                starting: true,
                before: Some(("xdp", totals(7, 20, 0, 3))),
                told: Some(NONE),
                ..tcp()
            },
            Case {
                name: "the agent has just started, and HAProxy serves on",
                starting: true,
                rows: frontend(),
                before: Some((HAPROXY, totals(90, 150, 0, 5))),
                told: of(10, 50, 2, 1, 3),
                ..tcp()
            },
            Case {
                name: "no VIP, as of a disabled load balancer",
                listener: unserved(),
                told: Some(NONE),
                ..tcp()
            },
        ];
        for Case { name, listener, forwarded, rows, starting, before, told } in cases {
            let listeners = [listener];
            let known = Known {
                standings: &Standings::new(),
                listeners: &listeners,
                forwarded: forwarded.as_ref(),
                rows: &rows,
                starting,
            };
            let mut journal = Journal::default();
            let readings = before.map(|(source, totals)| (source.to_owned(), totals));
            journal.tell("l", readings.as_slice());
            let (first, after) = message("a", 7, known, &journal);
            let status = ListenerStatus::Open;
            let want = told.map(|stats| ("l".to_owned(), Listener { status, stats }));
            assert_eq!(first.listeners, want.into_iter().collect(), "{name}");
            assert_eq!((&first.id[..], first.seq), ("a", 7), "{name}");
            // The same again is nothing new, and so is what is withheld.
            let (second, same) = message("a", 8, known, &after);
            assert_eq!(same, after, "{name}");
            assert_eq!(second.listeners, withheld(first).listeners, "{name}");
        }
    }

    /// What HAProxy says of pools holds at a start too.
    #[test]
    fn edges_21_27_pools_at_a_start() {
        let listeners = [listener(Protocol::Http)];
        let down = [row("l", "FRONTEND", "OPEN", 0), row("p:l", "BACKEND", "DOWN", 0)];
        for (rows, want) in [(&down[..], PoolStatus::Down), (&[], PoolStatus::Up)] {
            let known = Known {
                standings: &Standings::new(),
                listeners: &listeners,
                forwarded: None,
                rows,
                starting: true,
            };
            let (message, _) = message("a", 0, known, &Journal::default());
            let pools: Vec<_> = message.pools.values().map(|pool| pool.status).collect();
            assert_eq!(pools, [want], "{rows:?}");
        }
    }

    #[test]
    fn edge_30_keys_of_pools() {
        let rows = [
            (Protocol::Tcp, "p:l"),
            (Protocol::Http, "p:l"),
            (Protocol::TerminatedHttps, "p:l"),
            (Protocol::Prometheus, "p:l"),
            (Protocol::Udp, "p"),
            (Protocol::Sctp, "p"),
        ];
        for (protocol, want) in rows {
            let (listeners, rows) = ([listener(protocol)], []);
            let stats = forwarded(0, 0, 0);
            let known = Known {
                standings: &Standings::new(),
                listeners: &listeners,
                forwarded: Some(&stats),
                rows: &rows,
                starting: false,
            };
            let (message, _) = message("a", 0, known, &Journal::default());
            let keys: Vec<String> = message.pools.keys().map(PoolKey::to_string).collect();
            assert_eq!(keys, [want]);
        }
    }
}
