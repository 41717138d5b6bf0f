//! What each listener has counted, and what of that the health manager was told.
//!
//! The health manager adds up what it is told, blindly and for good: so no byte may be told twice, whatever
//! restarts, crashes or begins anew. Each counter says where it counts, its [`Source`], and a source only
//! counts up; one that begins anew is another source. Of a source that is known the difference to the last
//! reading is told, of a new one all of it. And the journal is on disk before the heartbeat leaves: a crash
//! between the two loses an interval and repeats none.

use std::collections::BTreeMap;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// Where something was counted: the maps of the packet path since a listener was made there, or one
/// worker of HAProxy.
pub type Source = String;

/// What a listener has counted. In the stock agent's words for its file, which it finds if it comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    #[serde(rename = "bin")]
    pub bytes_in: u64,
    #[serde(rename = "bout")]
    pub bytes_out: u64,
    #[serde(rename = "ereq")]
    pub request_errors: u64,
    #[serde(rename = "stot")]
    pub connections: u64,
}

/// By listener, the last readings that were told. Its file is the stock agent's `stats_counters.json`, with
/// the sources besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Journal(BTreeMap<String, Told>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// Of the source that was told of last, which is all that the stock agent writes.
    #[serde(flatten)]
    last: Totals,
    /// The one that was read last stands last.
    #[serde(default)]
    sources: Vec<Counted>,
}

/// All that was told of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    source: Source,
    #[serde(flatten)]
    totals: Totals,
}

/// Sources of a listener: HAProxy that does not answer for once has it all when it does again, and so has
/// each of its workers that leave.
const SOURCES_MAX: usize = 64;
/// Listeners that are kept though nobody wants them: one that comes back may go on counting.
const LISTENERS_MAX: usize = 4096;

impl Journal {
    /// What came of a listener since it was told of last. It counts as told from now on.
    pub fn tell(&mut self, listener: &str, readings: &[(Source, Totals)]) -> Totals {
        if readings.is_empty() {
            return Totals::default();
        }
        let told = self.0.entry(listener.to_owned()).or_default();
        let mut news = Totals::default();
        for (source, now) in readings {
            let before = told.before(source, *now);
            news = news + now.since(before);
            told.sources.retain(|it| it.source != *source);
            // A reading that comes late, of an earlier time, takes nothing back.
            let totals = now.at_least(before);
            told.sources.push(Counted { source: source.clone(), totals });
            told.last = *now;
        }
        let most = SOURCES_MAX.max(readings.len());
        told.sources.drain(..told.sources.len().saturating_sub(most));
        news
    }

    /// Forgets listeners that nobody wants, where there are too many of them.
    pub fn trim<'a>(&mut self, wanted: impl Fn(&str) -> bool + 'a) {
        while self.0.len() > LISTENERS_MAX {
            let Some(unwanted) = self.0.keys().find(|id| !wanted(id)).cloned() else { return };
            self.0.remove(&unwanted);
        }
    }
}

/// Whether a heartbeat says what came since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figures {
    Told,
    /// It cannot be written down that they were: they wait.
    Withheld,
}

/// A heartbeat's writes and its way out, in the order that repeats nothing wherever it ends. `kept` is the
/// journal in memory, `next` what it is once this heartbeat is out; `write` says whether it is on disk.
pub async fn deliver<E>(
    kept: &mut Journal,
    next: Journal,
    mut write: impl FnMut(&Journal) -> bool,
    send: impl AsyncFnOnce(Figures) -> Result<(), E>,
) -> Result<(), E> {
    if next == *kept {
        return send(Figures::Told).await;
    }
    if !write(&next) {
        return send(Figures::Withheld).await;
    }
    let sent = send(Figures::Told).await;
    match sent {
        Ok(()) => *kept = next,
        // Nobody was told. If that cannot be written, a crash now loses an interval.
        Err(_) => _ = write(kept),
    }
    sent
}

impl Told {
    /// What was told of a source.
    fn before(&self, source: &Source, now: Totals) -> Totals {
        match self.sources.iter().find(|it| it.source == *source) {
            Some(before) => before.totals,
            // The stock agent's file says not where: as it does, anything below began anew.
            None if self.sources.is_empty() && now.is_after(self.last) => self.last,
            None => Totals::default(),
        }
    }
}

impl Totals {
    fn is_after(self, before: Self) -> bool {
        self.bytes_in >= before.bytes_in
            && self.bytes_out >= before.bytes_out
            && self.request_errors >= before.request_errors
            && self.connections >= before.connections
    }

    fn at_least(self, before: Self) -> Self {
        Self {
            bytes_in: self.bytes_in.max(before.bytes_in),
            bytes_out: self.bytes_out.max(before.bytes_out),
            request_errors: self.request_errors.max(before.request_errors),
            connections: self.connections.max(before.connections),
        }
    }

    /// Nothing where it is below: so much of the source was told already.
    fn since(self, before: Self) -> Self {
        Self {
            bytes_in: self.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
            request_errors: self.request_errors.saturating_sub(before.request_errors),
            connections: self.connections.saturating_sub(before.connections),
        }
    }
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
            bytes_out: self.bytes_out.saturating_add(other.bytes_out),
            request_errors: self.request_errors.saturating_add(other.request_errors),
            connections: self.connections.saturating_add(other.connections),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn totals(bytes_in: u64) -> Totals {
        Totals { bytes_in, bytes_out: 2 * bytes_in, request_errors: 0, connections: bytes_in }
    }

    #[test]
    fn readings() {
        /// What is read, of which source, and what is told.
        type Row<'a> = (&'a str, &'a [(&'a str, u64)], u64);
        let rows: [Row<'_>; 9] = [
            ("the first reading", &[("xdp 1", 10)], 10),
            ("the same", &[("xdp 1", 10)], 0),
            ("more", &[("xdp 1", 13)], 3),
            ("HAProxy takes it over", &[("haproxy 1", 5)], 5),
            ("both, while it moves back", &[("haproxy 1", 6), ("xdp 1", 20)], 8),
            ("HAProxy began anew, and is further by now", &[("haproxy 2", 7)], 7),
            ("the old worker's last connection", &[("haproxy 1", 8), ("haproxy 2", 7)], 2),
            ("a reading of an earlier time", &[("xdp 1", 15)], 0),
            ("and one of now", &[("xdp 1", 21)], 1),
        ];
        let mut journal = Journal::default();
        for (row, read, want) in rows {
            let read: Vec<_> =
                read.iter().map(|(source, at)| ((*source).to_owned(), totals(*at))).collect();
            assert_eq!(journal.tell("l", &read), totals(want), "{row}");
            assert_eq!(journal.tell("other", &[]), Totals::default(), "{row}");
        }
    }

    /// Ours to the stock agent, and the stock agent's to us.
    #[test]
    fn files() {
        let mut journal = Journal::default();
        journal.tell("l", &[("xdp".to_owned(), totals(3))]);
        let json = serde_json::to_value(&journal).unwrap();
        let figures = serde_json::json!({"bin": 3, "bout": 6, "ereq": 0, "stot": 3});
        let mut want = figures.clone();
        let mut counted = figures.clone();
        counted["source"] = "xdp".into();
        want["sources"] = serde_json::json!([counted]);
        assert_eq!(json, serde_json::json!({"l": want}));
        assert_eq!(serde_json::from_value::<Journal>(json).unwrap(), journal);

        let stock = serde_json::json!({"l": figures}).to_string();
        for (now, want) in [(5, 2), (2, 2), (3, 0)] {
            let mut journal: Journal = serde_json::from_str(&stock).unwrap();
            let read = [("haproxy".to_owned(), totals(now))];
            assert_eq!(journal.tell("l", &read), totals(want), "{now} after 3");
        }
    }

    #[test]
    fn no_more_is_kept_than_is_of_use() {
        let mut journal = Journal::default();
        for worker in 0..100 {
            journal.tell("l", &[(format!("haproxy {worker}"), totals(1))]);
        }
        let kept = journal.0["l"].sources.iter().map(|it| it.source.clone()).collect::<Vec<_>>();
        let last = (100 - SOURCES_MAX..100).map(|worker| format!("haproxy {worker}"));
        assert_eq!(kept, last.collect::<Vec<_>>());
        for listener in 0..2 * LISTENERS_MAX {
            journal.tell(&listener.to_string(), &[("xdp".to_owned(), totals(1))]);
        }
        journal.trim(|id| id == "0" || id == "8191");
        assert_eq!(journal.0.len(), LISTENERS_MAX);
        assert!(journal.0.contains_key("0") && journal.0.contains_key("8191"));
    }

    /// What may happen to an amphora.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// Bytes, by one of two engines.
        Traffic(usize, u64),
        /// An engine's counters begin anew.
        Reset(usize),
        Restart,
        /// A reading of an earlier time is told once more, beside one of now.
        OldReading(usize),
        /// It may crash before any of its steps, and each of its writes may fail.
        Heartbeat {
            fate: Fate,
            crash: Option<u32>,
            writes: [bool; 2],
        },
    }

    /// What becomes of a heartbeat.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Arrives,
        /// On the way, where nobody sees it.
        IsLost,
        /// It cannot be sent, and that is known.
        Fails,
    }

    fn event() -> impl Strategy<Value = Event> {
        let fate = prop::sample::select(&[Fate::Arrives, Fate::IsLost, Fate::Fails][..]);
        let crash = prop::option::weighted(0.3, 0..4_u32);
        let writes = [prop::bool::weighted(0.8), prop::bool::weighted(0.8)];
        prop_oneof![
            3 => (0..2_usize, 1..1000_u64).prop_map(|(engine, bytes)| Event::Traffic(engine, bytes)),
            1 => (0..2_usize).prop_map(Event::Reset),
            1 => Just(Event::Restart),
            1 => (0..2_usize).prop_map(Event::OldReading),
            3 => (fate, crash, writes)
                .prop_map(|(fate, crash, writes)| Event::Heartbeat { fate, crash, writes }),
        ]
    }

    /// The amphora, and who adds up what it tells.
    #[derive(Default)]
    struct World {
        /// Generation and count of each engine.
        engines: [(u32, u64); 2],
        /// Of that, what has been on its way, arrived or not.
        sent: [u64; 2],
        disk: Journal,
        memory: Journal,
        received: u64,
        truth: u64,
        /// What was lost before it was sent, at most.
        unsent: u64,
        lost: u64,
    }

    /// The steps of a heartbeat; from the one at which it crashes on, nothing happens any more.
    struct Steps {
        crash: Option<u32>,
        done: Cell<u32>,
    }

    impl Steps {
        /// Whether one more is reached.
        fn reached(&self) -> bool {
            let at = self.done.replace(self.done.get() + 1);
            self.crash.is_none_or(|crash| at < crash)
        }
    }

    impl World {
        fn happens(&mut self, event: Event) {
            match event {
                Event::Traffic(engine, bytes) => {
                    self.engines[engine].1 += bytes;
                    self.truth += bytes;
                }
                Event::Reset(engine) => {
                    let (generation, count) = &mut self.engines[engine];
                    // Nobody will read it any more.
                    self.unsent += *count - self.sent[engine];
                    (*generation, *count) = (*generation + 1, 0);
                    self.sent[engine] = 0;
                }
                Event::Restart => self.start(),
                Event::OldReading(engine) => {
                    let (generation, _) = self.engines[engine];
                    let old = Totals { bytes_in: self.sent[engine] / 2, ..Totals::default() };
                    let read = [(format!("{engine} {generation}"), old)];
                    let mut next = self.memory.clone();
                    assert_eq!(next.tell("l", &read), Totals::default());
                    (self.disk, self.memory) = (next.clone(), next);
                }
                Event::Heartbeat { fate, crash, writes } => self.heartbeat(fate, crash, writes),
            }
        }

        fn heartbeat(&mut self, fate: Fate, crash: Option<u32>, writes: [bool; 2]) {
            let read = [0, 1].map(|engine| {
                let (generation, bytes) = self.engines[engine];
                (format!("{engine} {generation}"), Totals { bytes_in: bytes, ..Totals::default() })
            });
            let mut next = self.memory.clone();
            let news = next.tell("l", &read).bytes_in;
            let steps = Steps { crash, done: Cell::new(0) };
            let (mut writes, disk, mut out) = (writes.into_iter(), &mut self.disk, None);
            let write = |journal: &Journal| {
                let works = writes.next().unwrap_or(true) && steps.reached();
                if works {
                    *disk = journal.clone();
                }
                works
            };
            let send = async |figures| {
                if !steps.reached() || fate == Fate::Fails {
                    return Err(());
                }
                out = Some(figures);
                Ok(())
            };
            let _ = block_on(deliver(&mut self.memory, next, write, send));
            if out == Some(Figures::Told) {
                match fate {
                    Fate::Arrives => self.received += news,
                    Fate::IsLost | Fate::Fails => self.lost += news,
                }
                for (engine, (_, bytes)) in self.engines.iter().enumerate() {
                    self.sent[engine] = *bytes;
                }
            }
            if crash.is_some() {
                self.start();
            }
        }

        /// Anew, from what is on disk.
        fn start(&mut self) {
            self.memory = self.disk.clone();
            for engine in [0, 1] {
                let (generation, _) = self.engines[engine];
                let source = format!("{engine} {generation}");
                let told = self.memory.0.get("l");
                let told = told.and_then(|told| told.sources.iter().find(|it| it.source == source));
                let told = told.map_or(0, |it| it.totals.bytes_in);
                // It was written that it is told, and then was not.
                self.unsent += told - self.sent[engine];
                self.sent[engine] = told;
            }
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_truth_and_no_less_than_was_sent(
            events in prop::collection::vec(event(), 0..200),
        ) {
            let mut world = World::default();
            for event in events {
                world.happens(event);
                prop_assert!(world.received <= world.truth);
                let waits: u64 =
                    world.engines.iter().zip(world.sent).map(|((_, count), sent)| count - sent).sum();
                prop_assert_eq!(world.received + world.lost + world.unsent + waits, world.truth);
            }
        }
    }
}
