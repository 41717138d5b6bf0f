//! `xdp-lb top`: what goes through right now, and what does not.

use std::fmt;
use std::io::{self, IsTerminal, Write, stdout};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::MapError;
use serde::Serialize;

use super::stats::{Listener, Stats, stats};
use super::status::{Count, reasons};
use super::{Found, redraw, row, table};
use crate::kernel;
use crate::moved::Moved;

#[derive(Clone, Debug)]
pub struct Options {
    /// Between two looks.
    pub interval: Duration,
    /// Looks after which it ends; none to go on.
    pub count: Option<u64>,
    /// Members that are shown, the busiest first.
    pub members_max: usize,
    /// One line of JSON a look, for programs, in place of tables.
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    #[error("the maps: {0}")]
    Maps(#[from] MapError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One look.
#[derive(Clone, Debug)]
struct Sample {
    stats: Stats,
    reasons: Vec<Count>,
    /// Listeners that are not XDP's, and whose they are.
    beside: Vec<String>,
}

/// What lies between two looks, each second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Top {
    pub name: String,
    /// Between the looks.
    pub seconds: f64,
    pub listeners: Vec<Busy>,
    /// The busiest first.
    pub members: Vec<Busy>,
    /// Frames that were not forwarded, the most frequent first.
    pub reasons: Vec<Met>,
    /// Listeners that are not XDP's, and whose they are.
    pub beside: Vec<String>,
}

/// A listener, or a member as one listener uses it; rates are each second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Busy {
    pub listener: String,
    pub member: Option<String>,
    /// That are open.
    pub connections: u32,
    pub opened: f64,
    /// New flows that were turned away: by network, by limit, for want of a member, a slot or a port.
    /// Of listeners only.
    pub turned_away: f64,
    pub packets_in: f64,
    pub packets_out: f64,
    /// From the IP header on.
    pub bits_in: f64,
    pub bits_out: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Met {
    pub reason: &'static str,
    pub text: &'static str,
    /// Each second.
    pub frames: f64,
}

/// Shows it until it has looked often enough, or is stopped. `look` finds the load balancer, anew each time.
pub fn top(
    options: &Options,
    look: &mut dyn FnMut() -> Result<Found, kernel::Error>,
) -> Result<(), Error> {
    let live = stdout().is_terminal() && !options.json;
    let (mut before, mut at) = (sample(&look()?)?, Instant::now());
    let mut looks = 0;
    while options.count.is_none_or(|count| looks < count) {
        thread::sleep(options.interval);
        let (after, now) = (sample(&look()?)?, Instant::now());
        let mut top = rates(&before, &after, now.duration_since(at));
        top.members.truncate(options.members_max);
        (before, at) = (after, now);
        looks += 1;
        if live {
            redraw(&top)?;
        } else if options.json {
            let line = serde_json::to_string(&top).map_err(io::Error::from)?;
            writeln!(stdout(), "{line}")?;
        } else {
            writeln!(stdout(), "{top}")?;
        }
    }
    Ok(())
}

fn sample(found: &Found) -> Result<Sample, Error> {
    let maps = found.maps()?;
    let beside = found.record.beside.iter().map(|listener| match &listener.by {
        Some(by) => format!("{} ({by})", listener.id),
        None => format!("{} (nobody)", listener.id),
    });
    Ok(Sample {
        stats: stats(maps, &found.record)?,
        reasons: reasons(maps)?,
        beside: beside.collect(),
    })
}

fn rates(before: &Sample, after: &Sample, between: Duration) -> Top {
    let seconds = between.as_secs_f64();
    // A counter below its last reading has restarted, and its reading is what came.
    let rate = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now) as f64 / seconds;
    let busy =
        |listener: &str, member: Option<&str>, connections, now: Moved, before: Moved| Busy {
            listener: listener.to_owned(),
            member: member.map(str::to_owned),
            connections,
            opened: rate(now.opened, before.opened),
            turned_away: 0.0,
            packets_in: rate(now.packets_in, before.packets_in),
            packets_out: rate(now.packets_out, before.packets_out),
            bits_in: 8.0 * rate(now.bytes_in, before.bytes_in),
            bits_out: 8.0 * rate(now.bytes_out, before.bytes_out),
        };
    let listeners = after.stats.listeners.iter().map(|now| {
        // Counters of another source began at 0 as well.
        let is_its = |it: &&Listener| it.id == now.id && it.source == now.source;
        let before = before.stats.listeners.iter().find(is_its);
        let away = |it: &Listener| it.refused + it.limited + it.unserved + it.exhausted;
        let moved = before.map(|it| it.moved).unwrap_or_default();
        let turned_away = rate(away(now), before.map_or(0, away));
        Busy { turned_away, ..busy(&now.id, None, now.connections, now.moved, moved) }
    });
    let members = after.stats.members.iter().map(|now| {
        let key = (&now.listener, &now.pool, &now.id);
        let mut all = before.stats.members.iter();
        let before = all.find(|it| (&it.listener, &it.pool, &it.id) == key);
        let moved = before.map(|it| it.moved).unwrap_or_default();
        busy(&now.listener, Some(&now.id), now.connections, now.moved, moved)
    });
    let mut members: Vec<_> = members.collect();
    members.sort_by(|a, b| (b.bits_in + b.bits_out).total_cmp(&(a.bits_in + a.bits_out)));
    let reasons = after.reasons.iter().map(|now| {
        let before = before.reasons.iter().find(|it| it.reason == now.reason);
        let frames = rate(now.frames, before.map_or(0, |it| it.frames));
        Met { reason: now.reason, text: now.text, frames }
    });
    let mut reasons: Vec<_> = reasons.filter(|met| met.frames > 0.0).collect();
    reasons.sort_by(|a, b| b.frames.total_cmp(&a.frames));
    Top {
        name: after.stats.name.clone(),
        seconds,
        listeners: listeners.collect(),
        members,
        reasons,
        beside: after.beside.clone(),
    }
}

/// Three digits and a letter for thousands: `1.23 M`.
fn short(value: f64) -> String {
    let units = ["", " k", " M", " G", " T"];
    let (mut value, mut unit) = (value, 0);
    // What would be written as 1000 is one of the next.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 && value.fract() == 0.0 => 0,
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", units[unit])
}

impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, each second of the last {:.1}\n", self.name, self.seconds)?;
        let tail = ["PACKETS IN", "OUT", "BITS IN", "OUT"];
        let rates = |it: &Busy| [it.packets_in, it.packets_out, it.bits_in, it.bits_out].map(short);
        let header = ["LISTENER", "CONNECTIONS", "NEW", "TURNED AWAY"];
        let mut listeners = table(&[&header[..], &tail].concat());
        for it in &self.listeners {
            let (opened, away, [p_in, p_out, b_in, b_out]) =
                (short(it.opened), short(it.turned_away), rates(it));
            let cells: [&dyn fmt::Display; 8] =
                [&it.listener, &it.connections, &opened, &away, &p_in, &p_out, &b_in, &b_out];
            row(&mut listeners, cells);
        }
        writeln!(f, "{listeners}\n")?;

        let header = ["LISTENER", "MEMBER", "CONNECTIONS", "NEW"];
        let mut members = table(&[&header[..], &tail].concat());
        for it in &self.members {
            let member = it.member.as_deref().unwrap_or_default();
            let (opened, [p_in, p_out, b_in, b_out]) = (short(it.opened), rates(it));
            let cells: [&dyn fmt::Display; 8] =
                [&it.listener, &member, &it.connections, &opened, &p_in, &p_out, &b_in, &b_out];
            row(&mut members, cells);
        }
        writeln!(f, "{members}")?;

        if !self.reasons.is_empty() {
            let mut reasons = table(&["FRAMES", "NOT FORWARDED, BECAUSE", ""]);
            for Met { reason, text, frames } in &self.reasons {
                row(&mut reasons, [&short(*frames), reason, text]);
            }
            writeln!(f, "\n{reasons}")?;
        }
        if !self.beside.is_empty() {
            writeln!(f, "\nnot by XDP, so not shown: {}", self.beside.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::stats::Member;
    use super::*;

    #[test]
    fn rates_lie_between_two_looks() {
        let look = |source: &str, opened: u64, bytes: u64, refused: u64, frames: u64| {
            let moved = Moved { opened, bytes_in: bytes, packets_out: opened, ..Moved::default() };
            let listener = Listener {
                id: "web".to_owned(),
                leaving: false,
                source: source.to_owned(),
                connections: 7,
                moved,
                refused,
                limited: 0,
                unserved: refused,
                exhausted: 0,
                logged: 0,
                unlogged: 0,
            };
            let member = |id: &str, share: u64| Member {
                listener: "web".to_owned(),
                pool: "pool".to_owned(),
                id: id.to_owned(),
                connections: 3,
                moved: Moved { bytes_in: bytes * share, ..moved },
            };
            let members = vec![member("idle", 0), member("busy", 1)];
            let stats = Stats { name: "lb".to_owned(), listeners: vec![listener], members };
            let reasons = vec![Count { reason: "NotIp", text: "", frames }];
            Sample { stats, reasons, beside: Vec::new() }
        };
        /// A name, the looks, and each second: opened, bits in, turned away, frames of the reason.
        type Row = (&'static str, Sample, Sample, [f64; 3], Option<f64>);
        let rows: [Row; 4] = [
            (
                "two seconds",
                look("a", 10, 100, 1, 5),
                look("a", 30, 1100, 3, 7),
                [10.0, 4000.0, 2.0],
                Some(1.0),
            ),
            ("nothing", look("a", 10, 100, 1, 5), look("a", 10, 100, 1, 5), [0.0; 3], None),
            (
                "another source",
                look("a", 10, 100, 0, 5),
                look("b", 20, 300, 0, 5),
                [10.0, 1200.0, 0.0],
                None,
            ),
            (
                "counted anew",
                look("a", 10, 100, 0, 5),
                look("a", 4, 10, 0, 2),
                [2.0, 40.0, 0.0],
                Some(1.0),
            ),
        ];
        for (name, before, after, want, frames) in rows {
            let top = rates(&before, &after, Duration::from_secs(2));
            let [listener] = &top.listeners[..] else { panic!("{name}: one listener") };
            assert_eq!([listener.opened, listener.bits_in, listener.turned_away], want, "{name}");
            assert_eq!(listener.connections, 7, "{name}");
            assert_eq!(top.reasons.first().map(|met| met.frames), frames, "{name}");
            if listener.bits_in > 0.0 {
                let order: Vec<_> = top.members.iter().map(|it| it.member.as_deref()).collect();
                assert_eq!(order, [Some("busy"), Some("idle")], "{name}");
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, want) in [
            (0.0, "0"),
            (0.5, "0.50"),
            (7.0, "7"),
            (99.94, "99.9"),
            (999.4, "999"),
            (999.6, "1.00 k"),
            (1234.0, "1.23 k"),
            (12_345_678.0, "12.3 M"),
            (9.99e9, "9.99 G"),
            (1e16, "10000 T"),
        ] {
            assert_eq!(short(value), want);
        }
    }
}
