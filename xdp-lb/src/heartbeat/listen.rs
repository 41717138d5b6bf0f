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
use tokio::time::interval;

use super::Error;
use super::read::{Envelope, Heartbeat, Reader};
use crate::observe::{or_dash, redraw, row, table};

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
/// Letters of an id; Octavia's have 36.
const ID_MAX: usize = 64;
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
    let mut due = interval(REDRAW);
    let mut taken = 0;
    while options.count.is_none_or(|count| taken < count) {
        let (length, from) = tokio::select! {
            _ = due.tick(), if live => {
                redraw(&seen)?;
                continue;
            }
            received = socket.recv_from(&mut buffer) => received?,
        };
        let read = reader.read(&buffer[..length]).map_err(|error| error.to_string());
        taken += 1;
        if options.json {
            let line = match &read {
                Ok(heartbeat) => serde_json::to_string(&Line { from, said: heartbeat }),
                Err(error) => serde_json::to_string(&Line { from, said: Unread { error } }),
            };
            say(&line.map_err(io::Error::from)?)?;
        } else if !live {
            say(&line(from, &read))?;
        }
        seen.note(from, read, Instant::now());
    }
    if live {
        redraw(&seen)?;
    }
    Ok(())
}

/// What has come, in one line.
fn line(from: SocketAddr, read: &Result<Heartbeat, String>) -> String {
    match read {
        Err(error) => format!("{from}  NOT READ: {error}"),
        Ok(heartbeat) => {
            let (id, envelope) = (shown(heartbeat.amphora()), heartbeat.envelope);
            let refused = heartbeat.refused.as_ref().map(|why| format!("  REFUSED: {why}"));
            let said =
                heartbeat.typed().map_or_else(String::new, |it| Figures::of(&it).to_string());
            format!("{from}  {id}  {envelope}  {said}{}", refused.unwrap_or_default())
        }
    }
}

/// An id as it may be shown: anybody may have sent it.
fn shown(id: &str) -> String {
    id.chars().take(ID_MAX).flat_map(char::escape_default).collect()
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

/// All that came, by amphora.
#[derive(Debug, Default)]
struct Seen {
    amphorae: BTreeMap<String, Amphora>,
    /// Not read, not authentic, or not for the first time; and the last of them.
    refused: u64,
    last_refused: Option<(SocketAddr, String)>,
}

#[derive(Debug)]
struct Amphora {
    from: SocketAddr,
    envelope: Envelope,
    last: Instant,
    /// Since the one before.
    since_before: Option<Duration>,
    heartbeats: u64,
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
        // Only who has the key has a row: else anybody could fill the table, or change that of another.
        let heartbeat = match read {
            Ok(Heartbeat { refused: Some(why), .. }) | Err(why) => {
                self.refused += 1;
                self.last_refused = Some((from, why));
                return;
            }
            Ok(heartbeat) => heartbeat,
        };
        let id = shown(heartbeat.amphora());
        if !self.amphorae.contains_key(&id) && self.amphorae.len() >= SHOWN_MAX {
            return;
        }
        let said = heartbeat.typed().as_ref().map(Figures::of);
        let envelope = heartbeat.envelope;
        let before = self.amphorae.get(&id);
        let since_before = before.map(|before| now.duration_since(before.last));
        let heartbeats = before.map_or(0, |before| before.heartbeats) + 1;
        let last = now;
        let amphora = Amphora { from, envelope, last, since_before, heartbeats, said };
        self.amphorae.insert(id, amphora);
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
        ]);
        for (id, amphora) in &self.amphorae {
            let Amphora { from, envelope, last, since_before, heartbeats, said } = amphora;
            let Figures {
                listeners, members, down, connections, opened, bytes_in, bytes_out, ..
            } = said.unwrap_or_default();
            let ago = last.elapsed().as_secs();
            let interval = or_dash(since_before.map(|it| format!("{:.1}", it.as_secs_f64())));
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
                ],
            );
        }
        writeln!(f, "{amphorae}")?;
        if let Some((from, why)) = &self.last_refused {
            writeln!(f, "refused: {}, the last from {from}: {why}", self.refused)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use agent_api::heartbeat::envelope;

    use super::*;

    #[test]
    fn who_has_a_row() {
        let message =
            |id: &str| format!(r#"{{"id":"{id}","seq":1,"ver":3,"listeners":{{}},"pools":{{}}}}"#);
        let wrap = |id: &str, key: &[u8]| envelope::wrap(message(id).as_bytes(), key).unwrap();
        let mut reader = Reader::new(b"key");
        let mut seen = Seen::default();
        let from = "192.0.2.1:9".parse().unwrap();
        let sent = [
            wrap("a", b"key"),
            wrap("a", b"key"),
            wrap("a", b"other"),
            wrap("\\u001b[2J", b"key"),
            wrap("forged", b"other"),
            vec![0; 90],
        ];
        let mut lines = String::new();
        for datagram in sent {
            let read = reader.read(&datagram).map_err(|error| error.to_string());
            lines += &(line(from, &read) + "\n");
            seen.note(from, read, Instant::now());
        }
        let rows: Vec<_> = seen.amphorae.iter().map(|(id, it)| (&id[..], it.heartbeats)).collect();
        assert_eq!(rows, [("\\u{1b}[2J", 1), ("a", 2)]);
        assert_eq!(seen.refused, 3);
        assert!(!lines.contains('\x1b') && !seen.to_string().contains('\x1b'));
        assert_eq!(lines.matches("REFUSED").count(), 2, "{lines}");
        assert_eq!(lines.matches("NOT READ").count(), 1, "{lines}");
    }
}
