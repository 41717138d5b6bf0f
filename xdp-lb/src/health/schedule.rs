//! Which member is probed when, and what its results make of it. Knows no clock: `now` comes in.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use agent_api::{Desired, Monitor, OnMarkedDown};

use super::kept::Kept;
use super::member::{Member, Standing};
use super::probe::Patience;
use super::target::{Target, targets};
use super::{Name, Standings};

/// All members that are probed.
#[derive(Debug, Default)]
pub struct Schedule {
    members: HashMap<Name, Probed>,
    /// Whose turn it is when; those of one time in the order in which they were planned.
    due: BTreeMap<(Instant, u64), Name>,
    turns: u64,
    /// By an earlier start, until its members are there again.
    kept: Kept,
}

/// A member, and where it stands.
#[derive(Debug)]
struct Probed {
    target: Target,
    member: Member,
    /// Failures in a row.
    failures: u16,
    /// Why it was taken out, while it is.
    why: Option<String>,
    /// Of its next probe, or of the one that is under way.
    turn: u64,
    /// When its next probe is due; none while one is under way.
    due: Option<Instant>,
    /// When the last that was begun was due.
    last: Option<Instant>,
}

/// Where a member stood, and why it was down.
pub type Known = (Member, Option<String>);

/// A probe that is to be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub name: Name,
    pub turn: u64,
    pub monitor: Arc<Monitor>,
    pub at: SocketAddr,
    pub patience: Patience,
}

/// What a result has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Nothing,
    /// How many more results it takes to turn the member.
    Count,
    Turned(Turned),
}

/// A member that is up now and was down, or the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    pub name: Name,
    pub up: bool,
    pub why: String,
    pub on_marked_down: OnMarkedDown,
}

impl Schedule {
    /// One that goes on from what an earlier start has kept.
    pub fn after(kept: Kept) -> Self {
        Self { kept, ..Self::default() }
    }

    /// What is to be probed from now on.
    ///
    /// A member that stays, and is probed there and in that way still, keeps its standing and its
    /// rhythm. One that is probed otherwise from now on stays down if it was, until it passes: HAProxy's
    /// `server-state-file` does not look at how. The first probes of new ones are spread over their delay, those of all pools together
    /// (HAProxy `check.c`, `start_checks`; keepalived begins at random within `delay_loop`).
    pub fn set(&mut self, desired: &Desired, now: Instant) {
        let mut before = std::mem::take(&mut self.members);
        self.due.clear();
        let mut new = Vec::new();
        for target in targets(desired) {
            match before.remove(&target.name) {
                Some(probed) if probed.target.is_same(&target) => self.keep(probed, target, now),
                Some(probed) if probed.target.serves_at == target.serves_at => {
                    new.push((target, probed.down()));
                }
                Some(_) => new.push((target, None)),
                None => new.push((target, None)),
            }
        }
        let kept = if new.is_empty() { Kept::default() } else { std::mem::take(&mut self.kept) };
        let count = u32::try_from(new.len()).unwrap_or(u32::MAX).max(1);
        for (place, (target, down)) in (0..).zip(new) {
            let at = now + target.delay() / count * place;
            let known = down.or_else(|| kept.find(&target));
            self.begin(target, known, at);
        }
    }

    fn keep(&mut self, probed: Probed, target: Target, now: Instant) {
        let name = target.name.clone();
        let member = probed.member.within(target.thresholds());
        let probed = Probed { target, member, ..probed };
        let due = match (probed.due, probed.last) {
            (None, _) => None,
            (Some(_), Some(_)) => Some(probed.next(now)),
            // In its place among the first ones.
            (due, None) => due,
        };
        self.members.insert(name.clone(), probed);
        if let Some(at) = due {
            self.plan(name, at);
        }
    }

    fn begin(&mut self, target: Target, known: Option<Known>, at: Instant) {
        let name = target.name.clone();
        let (member, why) = match known {
            Some((member, why)) => (member.within(target.thresholds()), why),
            None => (target.begins(), None),
        };
        let probed = Probed { target, member, failures: 0, why, turn: 0, due: None, last: None };
        self.members.insert(name.clone(), probed);
        self.plan(name, at);
    }

    fn plan(&mut self, name: Name, at: Instant) {
        let Some(probed) = self.members.get_mut(&name) else { return };
        self.turns += 1;
        (probed.turn, probed.due) = (self.turns, Some(at));
        self.due.insert((at, self.turns), name);
    }

    /// When the next probe is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next probe that is due, if one is. It is under way until its [`result`](Self::result).
    pub fn due(&mut self, now: Instant) -> Option<Job> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let ((at, turn), name) = first.remove_entry();
        let probed = self.members.get_mut(&name)?;
        // Who is late keeps his place among the others, unless by a whole round.
        let is_late = now.saturating_duration_since(at) >= probed.target.delay();
        (probed.due, probed.last) = (None, Some(if is_late { now } else { at }));
        let Target { monitor, at, .. } = &probed.target;
        let (monitor, patience) = (Arc::clone(monitor), probed.target.patience());
        Some(Job { name, turn, monitor, at: *at, patience })
    }

    /// What came of a probe, an error being why it failed. Of one that was begun for a member that is no
    /// more, or is another, nothing comes.
    pub fn result(&mut self, job: &Job, result: Result<(), String>, now: Instant) -> Changed {
        let Some(probed) = self.members.get_mut(&job.name).filter(|it| it.is_at(job)) else {
            return Changed::Nothing;
        };
        let before = probed.member;
        let turned = probed.note(result);
        let (after, next) = (probed.member, probed.next(now));
        self.plan(job.name.clone(), next);
        match turned {
            Some(turned) => Changed::Turned(turned),
            None if before == after => Changed::Nothing,
            None => Changed::Count,
        }
    }

    /// A probe that could not be made, and says nothing of its member: it has its next turn.
    pub fn missed(&mut self, job: &Job, now: Instant) {
        if let Some(probed) = self.members.get(&job.name).filter(|it| it.is_at(job)) {
            let next = probed.next(now);
            self.plan(job.name.clone(), next);
        }
    }

    /// Nobody is at work on what is under way: it is due again.
    pub fn forget_under_way(&mut self, now: Instant) {
        let lost = self.members.iter().filter(|(_, probed)| probed.due.is_none());
        for name in lost.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.plan(name, now);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members that are down, and why.
    pub fn down(&self) -> BTreeMap<Name, String> {
        let down = self.members.iter().filter(|(_, probed)| !probed.member.is_up());
        down.map(|(name, probed)| (name.clone(), probed.why.clone().unwrap_or_default())).collect()
    }

    pub fn standings(&self) -> Standings {
        let standing =
            |it: &Probed| Standing { member: it.member, thresholds: it.target.thresholds() };
        self.members.iter().map(|(name, probed)| (name.clone(), standing(probed))).collect()
    }

    /// For the next start.
    pub fn to_keep(&self) -> Kept {
        let members = self.members.values();
        Kept::of(members.map(|probed| (&probed.target, probed.member, probed.why.clone())))
    }
}

impl Probed {
    /// Of a member that is down, that it is, without what it has passed since.
    fn down(self) -> Option<Known> {
        (!self.member.is_up()).then_some((Member::Down { passed: 0 }, self.why))
    }

    /// Whether this is the probe that it has under way.
    fn is_at(&self, job: &Job) -> bool {
        self.turn == job.turn && self.due.is_none()
    }

    /// A delay after the last, and not before now.
    fn next(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| (last + self.target.delay()).max(now))
    }

    fn note(&mut self, result: Result<(), String>) -> Option<Turned> {
        let was_up = self.member.is_up();
        let thresholds = self.target.thresholds();
        self.member = self.member.after(result.is_ok(), thresholds);
        self.failures = if result.is_ok() { 0 } else { self.failures.saturating_add(1) };
        let up = self.member.is_up();
        if was_up == up {
            return None;
        }
        let why = match result {
            Ok(()) if thresholds.rise == 1 => format!("well at {}", self.target.at),
            Ok(()) => format!("well at {}, {} times in a row", self.target.at, thresholds.rise),
            Err(why) if self.failures == 1 => format!("{why} at {}", self.target.at),
            Err(why) => format!("{why} at {}, {} times in a row", self.target.at, self.failures),
        };
        self.why = (!up).then(|| why.clone());
        let on_marked_down = self.target.monitor.on_marked_down;
        Some(Turned { name: self.target.name.clone(), up, why, on_marked_down })
    }
}

#[cfg(test)]
mod tests;
