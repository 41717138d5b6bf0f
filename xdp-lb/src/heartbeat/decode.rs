//! `xdp-lb heartbeat decode`: heartbeats of a file, as tables.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use agent_api::config::Secret;
use agent_api::heartbeat::message::{self, Message, PoolKey};
use serde::Serialize;

use super::Error;
use super::capture::{self, Datagram};
use super::read::{Heartbeat, Reader};
use crate::observe::{row, table};
use crate::pcap;

/// What is in a file.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Decoded(Vec<Found>);

/// A datagram, and what it says.
#[derive(Debug, Serialize)]
struct Found {
    /// Seconds since 1970.
    at_s: Option<f64>,
    from: Option<SocketAddr>,
    to: Option<SocketAddr>,
    bytes: usize,
    #[serde(flatten)]
    said: Said,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Said {
    Heartbeat(Heartbeat),
    Unread { error: String },
}

/// Takes the datagrams to `port` of a capture apart, or the one datagram that the file is. `-` is the
/// standard input.
pub fn decode(file: &Path, port: u16, key: &Secret) -> Result<Decoded, Error> {
    let failed = |error| Error::Capture { file: file.to_owned(), error };
    let bytes = pcap::read(file).map_err(|error| failed(error.into()))?;
    let datagrams = capture::datagrams(&bytes, port).map_err(failed)?;
    let mut reader = Reader::new(key.reveal().as_bytes());
    Ok(Decoded(datagrams.into_iter().map(|datagram| found(datagram, &mut reader)).collect()))
}

fn found(Datagram { at, path, bytes }: Datagram, reader: &mut Reader) -> Found {
    let said = match reader.read(&bytes) {
        Ok(heartbeat) => Said::Heartbeat(heartbeat),
        Err(error) => Said::Unread { error: error.to_string() },
    };
    let (from, to) = path.unzip();
    Found { at_s: at.as_ref().map(Duration::as_secs_f64), from, to, bytes: bytes.len(), said }
}

impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0.iter().find_map(|found| found.at_s);
        for (at, found) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            if let (Some(first), Some(at_s)) = (first, found.at_s) {
                write!(f, "+{:.3} s  ", at_s - first)?;
            }
            if let (Some(from), Some(to)) = (found.from, found.to) {
                write!(f, "{from} > {to}  ")?;
            }
            write!(f, "{} bytes, ", found.bytes)?;
            match &found.said {
                Said::Unread { error } => writeln!(f, "NOT READ: {error}")?,
                Said::Heartbeat(heartbeat) => heartbeat.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever sent it may want to move a cursor.
        let mut f = Plain(f);
        write!(f, "{}", self.envelope)?;
        if let Some(why) = &self.refused {
            write!(f, ", REFUSED: {why}")?;
        }
        match self.typed() {
            Some(message) => written(&mut f, &message),
            // Of another version; for whoever knows it.
            None => writeln!(f, "\n{:#}", self.message),
        }
    }
}

/// Shows control characters, but for the ends of lines.
struct Plain<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_control() && character != '\n' {
                write!(self.0, "{}", character.escape_default())?;
            } else {
                self.0.write_char(character)?;
            }
        }
        Ok(())
    }
}

fn written(f: &mut impl Write, message: &Message) -> fmt::Result {
    writeln!(f, "\namphora {}, message {}", message.id, message.seq)?;
    let mut listeners =
        table(&["LISTENER", "STATUS", "BYTES IN", "BYTES OUT", "OPEN", "NEW", "ERRORS"]);
    for (id, message::Listener { status, stats }) in &message.listeners {
        let message::Stats { tx, rx, conns, totconns, ereq } = stats;
        row(&mut listeners, [id, status, rx, tx, conns, totconns, ereq]);
    }
    let mut members = table(&["POOL", "OF LISTENER", "STATUS", "MEMBER", "STATUS"]);
    for (key, pool) in &message.pools {
        let (id, listener) = match key {
            PoolKey::OfListener { pool, listener } => (pool, &listener[..]),
            PoolKey::Alone { pool } => (pool, "-"),
        };
        for (member, status) in &pool.members {
            row(&mut members, [id, &listener, &pool.status, member, status]);
        }
        if pool.members.is_empty() {
            row(&mut members, [id, &listener, &pool.status, &"-", &"-"]);
        }
    }
    if !message.listeners.is_empty() {
        writeln!(f, "{listeners}")?;
    }
    if !message.pools.is_empty() {
        writeln!(f, "{members}")?;
    }
    Ok(())
}
