//! `xdp-lb heartbeat listen`: what amphorae send, as it comes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use agent_api::config::Secret;
use agent_api::heartbeat::DATAGRAM_MAX;
use agent_api::heartbeat::message::{MemberStatus, Message};
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time::{interval, timeout_at};

use super::Error;
use super::read::{Envelope, Heartbeat, Reader};
use crate::observe::{or_dash, row, table};

#[derive(Clone, Debug)]
pub struct Options {
    pub bind: SocketAddr,
    /// One line of JSON a heartbeat, for programs, in place of a table.
    pub json: bool,
    /// Heartbeats after which it ends; none to go on.
    pub count: Option<u64>,
}

/// How often the table is drawn again.
const REDRAW: Duration = Duration::from_secs(1);
/// Amphorae that are shown; who sends more is not ours.
const SHOWN_MAX: usize = 4096;

/// Shows what comes until it has counted enough, or is stopped.
pub async fn listen(options: Options, key: &Secret) -> Result<(), Error> {
    let address = options.bind;
    let failed = |error| Error::Bind { address, error };
    let socket = UdpSocket::bind(address).await.map_err(failed)?;
    eprintln!("listening at {}", socket.local_addr()?);
    let mut reader = Reader::new(key.reveal().as_bytes());
    let mut seen = Seen::default();
    let live = io::stdout().is_terminal() && !options.json;
    let mut buffer = vec![0; DATAGRAM_MAX + 1];
    let mut redraw = interval(REDRAW);
    let mut due = redraw.tick().await;
    let mut taken = 0;
    while options.count.is_none_or(|count| taken < count) {
        let Ok(received) = timeout_at(due, socket.recv_from(&mut buffer)).await else {
            if live {
                draw(&seen)?;
            }
            due = redraw.tick().await + REDRAW;
            continue;
        };
        let (length, from) = received?;
        let read = reader.read(&buffer[..length]).map_err(|error| error.to_string());
        taken += 1;
        if options.json {
            let line = match &read {
                Ok(heartbeat) => serde_json::to_string(&Line { from, said: heartbeat }),
                Err(error) => serde_json::to_string(&Line { from, said: Unread { error } }),
            };
            say(&line.map_err(io::Error::from)?)?;
        }
        seen.note(from, read, Instant::now());
        if !live && !options.json {
            say(&seen.latest(from))?;
        }
    }
    if live {
        draw(&seen)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Line<T> {
    from: SocketAddr,
    #[serde(flatten)]
    said: T,
}

#[derive(Serialize)]
struct Unread<'a> {
    error: &'a str,
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// From the upper left corner, over what was there.
fn draw(seen: &Seen) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "\x1b[H\x1b[2J{seen}")?;
    out.flush()
}

/// All that came, by amphora.
#[derive(Debug, Default)]
struct Seen {
    amphorae: BTreeMap<String, Amphora>,
    /// By the sender of the last one that could not be read.
    unread: u64,
    last_unread: Option<(SocketAddr, String)>,
}

#[derive(Debug)]
struct Amphora {
    from: SocketAddr,
    envelope: Envelope,
    last: Instant,
    /// Since the one before.
    since_before: Option<Duration>,
    heartbeats: u64,
    /// Why the last was to be refused, if so.
    refused: Option<String>,
    said: Option<Figures>,
}

/// What a message comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    seq: u64,
    listeners: usize,
    members: usize,
    /// Of the members.
    down: usize,
    connections: u64,
    opened: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Figures {
    fn of(message: &Message) -> Self {
        let members = || message.pools.values().flat_map(|pool| pool.members.values());
        let sum = |of: fn(&agent_api::heartbeat::message::Stats) -> u64| {
            message.listeners.values().map(|listener| of(&listener.stats)).sum()
        };
        Self {
            seq: message.seq,
            listeners: message.listeners.len(),
            members: members().count(),
            down: members().filter(|status| matches!(status, MemberStatus::Down(_))).count(),
            connections: sum(|stats| stats.conns),
            opened: sum(|stats| stats.totconns),
            bytes_in: sum(|stats| stats.rx),
            bytes_out: sum(|stats| stats.tx),
        }
    }
}

impl Seen {
    fn note(&mut self, from: SocketAddr, read: Result<Heartbeat, String>, now: Instant) {
        let heartbeat = match read {
            Ok(heartbeat) => heartbeat,
            Err(error) => {
                self.unread += 1;
                self.last_unread = Some((from, error));
                return;
            }
        };
        let id = heartbeat.amphora().to_owned();
        if !self.amphorae.contains_key(&id) && self.amphorae.len() >= SHOWN_MAX {
            return;
        }
        let said = heartbeat.typed().as_ref().map(Figures::of);
        let Heartbeat { envelope, refused, .. } = heartbeat;
        let before = self.amphorae.get(&id);
        let since_before = before.map(|before| now.duration_since(before.last));
        let heartbeats = before.map_or(0, |before| before.heartbeats) + 1;
        let last = now;
        let amphora = Amphora { from, envelope, last, since_before, heartbeats, refused, said };
        self.amphorae.insert(id, amphora);
    }

    /// The last that came, in one line.
    fn latest(&self, from: SocketAddr) -> String {
        let latest = self.amphorae.iter().max_by_key(|(_, amphora)| amphora.last);
        match (latest, &self.last_unread) {
            (_, Some((sender, error))) if *sender == from => format!("{from}  NOT READ: {error}"),
            (Some((id, Amphora { envelope, refused, said, .. })), _) => {
                let refused = refused.as_ref().map(|why| format!("  REFUSED: {why}"));
                let said = said.map_or_else(String::new, |it| it.to_string());
                format!("{from}  {id}  {envelope}  {said}{}", refused.unwrap_or_default())
            }
            (None, _) => String::new(),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seq, listeners, members, down, connections, opened, bytes_in, bytes_out } = self;
        write!(
            f,
            "message {seq}  listeners {listeners}  members {members}, down {down}  connections \
             {connections}, new {opened}  bytes {bytes_in} in, {bytes_out} out"
        )
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut amphorae = table(&[
            "AMPHORA",
            "FROM",
            "ENVELOPE",
            "HEARTBEATS",
            "AGO S",
            "INTERVAL S",
            "LISTENERS",
            "MEMBERS",
            "DOWN",
            "CONNECTIONS",
            "NEW",
            "BYTES IN",
            "BYTES OUT",
            "REFUSED",
        ]);
        for (id, amphora) in &self.amphorae {
            let Amphora { from, envelope, last, since_before, heartbeats, refused, said } = amphora;
            let Figures {
                listeners, members, down, connections, opened, bytes_in, bytes_out, ..
            } = said.unwrap_or_default();
            let ago = last.elapsed().as_secs();
            let interval = or_dash(since_before.map(|it| format!("{:.1}", it.as_secs_f64())));
            let refused = or_dash(refused.clone());
            row(
                &mut amphorae,
                [
                    id,
                    from,
                    envelope,
                    heartbeats,
                    &ago,
                    &interval,
                    &listeners,
                    &members,
                    &down,
                    &connections,
                    &opened,
                    &bytes_in,
                    &bytes_out,
                    &refused,
                ],
            );
        }
        writeln!(f, "{amphorae}")?;
        if let Some((from, error)) = &self.last_unread {
            writeln!(f, "not read: {}, the last from {from}: {error}", self.unread)?;
        }
        Ok(())
    }
}
