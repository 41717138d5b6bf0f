//! Which member is probed when, and what its results make of it. Knows no clock: `now` comes in.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use agent_api::{Desired, Monitor, OnMarkedDown};

use super::kept::{Kept, KeptMember};
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
    /// rhythm. The first probes of new ones are spread over their delay, those of all pools together
    /// (HAProxy `check.c`, `start_checks`; keepalived begins at random within `delay_loop`).
    pub fn set(&mut self, desired: &Desired, now: Instant) {
        let mut before = std::mem::take(&mut self.members);
        self.due.clear();
        let mut new = Vec::new();
        for target in targets(desired) {
            match before.remove(&target.name) {
                Some(probed) if probed.target.is_same(&target) => self.keep(probed, target, now),
                Some(_) | None => new.push(target),
            }
        }
        let kept = if new.is_empty() { Kept::default() } else { std::mem::take(&mut self.kept) };
        let count = u32::try_from(new.len()).unwrap_or(u32::MAX).max(1);
        for (place, target) in (0..).zip(new) {
            let at = now + target.delay() / count * place;
            self.begin(target, &kept, at);
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

    fn begin(&mut self, target: Target, kept: &Kept, at: Instant) {
        let name = target.name.clone();
        let (member, why) = match kept.find(&target) {
            Some(KeptMember { member, why, .. }) => {
                (member.within(target.thresholds()), why.clone())
            }
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
mod tests {
    use std::time::Duration;

    use agent_api::Probe;

    use super::*;

    const OK: bool = true;
    const BAD: bool = false;

    /// Two pools of three members, of a listener of TCP and one of UDP; the rows change this.
    const BOTH: &str = r#"name = "a"
[[listener]]
id = "web"
vips = ["10.0.0.1"]
port = 80
protocol = "tcp"
pool = "tcp"
[[listener]]
id = "dns"
vips = ["10.0.0.1"]
port = 53
protocol = "udp"
pool = "udp"
[[pool]]
id = "tcp"
algorithm = "round_robin"
monitor = { type = "tcp", delay_s = 6, timeout_s = 4, rise = 2, fall = 3 }
member = [
    { id = "t1", address = "10.0.1.1", port = 80 },
    { id = "t2", address = "10.0.1.2", port = 80, weight = 0, monitor_port = 81 },
    { id = "t3", address = "10.0.1.3", port = 80, backup = true },
]
[[pool]]
id = "udp"
algorithm = "round_robin"
monitor = { type = "udp_connect", delay_s = 6, timeout_s = 4, rise = 2, fall = 3 }
member = [
    { id = "u1", address = "10.0.1.1", port = 53 },
    { id = "u2", address = "10.0.1.2", port = 53 },
    { id = "u3", address = "10.0.1.3", port = 53 },
]
"#;

    /// A clock that the test moves, and what is probed by it.
    struct Bed {
        start: Instant,
        schedule: Schedule,
    }

    impl Bed {
        fn new(text: &str) -> Self {
            let mut bed = Self { start: Instant::now(), schedule: Schedule::default() };
            bed.set(0, text);
            bed
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn set(&mut self, ms: u64, text: &str) {
            self.schedule.set(&Desired::from_toml(text).unwrap(), self.at(ms));
        }

        /// The next probe, and when it is due.
        fn next(&mut self) -> (u64, Job) {
            let next = self.schedule.next().expect("somebody is probed");
            let job = self.schedule.due(next).expect("it is due");
            (u64::try_from((next - self.start).as_millis()).unwrap(), job)
        }

        /// Whose turn it is until then, and when; each probe passes at once.
        fn turns(&mut self, until_ms: u64) -> Vec<(String, u64)> {
            let mut turns = Vec::new();
            while self.schedule.next().is_some_and(|next| next < self.at(until_ms)) {
                let (at, job) = self.next();
                self.schedule.result(&job, Ok(()), self.at(at));
                turns.push((job.name.1, at));
            }
            turns
        }

        /// The results of a member's next probes, one after the other, and where it stands after each.
        fn results(&mut self, member: &str, results: &[bool]) -> Vec<Member> {
            let mut stands = Vec::new();
            for ok in results {
                loop {
                    let (at, job) = self.next();
                    let (at, is_it) = (self.at(at), job.name.1 == member);
                    let result = if *ok || !is_it { Ok(()) } else { Err("refused".to_owned()) };
                    self.schedule.result(&job, result, at);
                    if is_it {
                        break;
                    }
                }
                stands.push(self.member(member));
            }
            stands
        }

        fn member(&self, member: &str) -> Member {
            let standings = self.schedule.standings();
            standings.into_iter().find(|((_, id), _)| id == member).expect("it is probed").1.member
        }
    }

    fn up(failed: u16) -> Member {
        Member::Up { failed }
    }

    fn down(passed: u16) -> Member {
        Member::Down { passed }
    }

    #[test]
    fn edge_27_results_turn_members() {
        // Rise 2, fall 3.
        type Row<'a> = (&'a str, &'a str, &'a [bool], Member, &'a [Member]);
        let rows: [Row<'_>; 8] = [
            ("TCP: the first failure", "t1", &[BAD], up(2), &[down(0)]),
            ("TCP: the first success", "t1", &[OK], up(2), &[up(0)]),
            ("TCP: of weight 0", "t2", &[BAD, OK], up(2), &[down(0), down(1)]),
            (
                "TCP: down and up",
                "t3",
                &[OK, BAD, BAD, BAD, OK, OK],
                up(2),
                &[up(0), up(1), up(2), down(0), down(1), up(0)],
            ),
            (
                "TCP: in a row",
                "t1",
                &[OK, BAD, BAD, OK, BAD, BAD, BAD, OK, BAD, OK, OK],
                up(2),
                &[
                    up(0),
                    up(1),
                    up(2),
                    up(0),
                    up(1),
                    up(2),
                    down(0),
                    down(1),
                    down(0),
                    down(1),
                    up(0),
                ],
            ),
            (
                "UDP: three more after the first failure, also at the start",
                "u1",
                &[BAD, BAD, BAD, BAD, BAD, OK],
                up(0),
                &[up(1), up(2), up(3), down(0), down(0), up(0)],
            ),
            (
                "UDP: in a row",
                "u2",
                &[BAD, BAD, BAD, OK, BAD],
                up(0),
                &[up(1), up(2), up(3), up(0), up(1)],
            ),
            ("UDP: well", "u3", &[OK, OK], up(0), &[up(0), up(0)]),
        ];
        for (row, member, results, begins, want) in rows {
            let mut bed = Bed::new(BOTH);
            assert_eq!(bed.member(member), begins, "{row}");
            assert_eq!(bed.results(member, results), want, "{row}");
        }
    }

    #[test]
    fn why_a_member_turned() {
        let mut bed =
            Bed::new(&BOTH.replace("fall = 3 }", "fall = 3, on_marked_down = \"reset\" }"));
        let mut turned = Vec::new();
        for ok in [BAD, OK, OK, BAD, BAD, BAD] {
            let (at, job) = bed.next();
            let result = if ok { Ok(()) } else { Err("refused".to_owned()) };
            let at = bed.at(at);
            if let Changed::Turned(it) = bed.schedule.result(&job, result, at) {
                assert_eq!(it.name, ("tcp".to_owned(), "t1".to_owned()));
                assert_eq!(it.on_marked_down, OnMarkedDown::Reset);
                let down = bed.schedule.down();
                assert_eq!(down.get(&it.name), (!it.up).then_some(&it.why));
                turned.push((it.up, it.why));
            }
            while bed.schedule.next().is_some_and(|next| next < at + Duration::from_secs(6)) {
                let (at, job) = bed.next();
                bed.schedule.result(&job, Ok(()), bed.at(at));
            }
        }
        let want = [
            (false, "refused at 10.0.1.1:80"),
            (true, "well at 10.0.1.1:80, 2 times in a row"),
            (false, "refused at 10.0.1.1:80, 3 times in a row"),
        ];
        assert_eq!(turned, want.map(|(up, why)| (up, why.to_owned())));
    }

    /// A row is what differs of the document, and who is probed when in the first 13 s.
    #[test]
    fn who_is_probed_when() {
        let all: &[(&str, u64)] = &[
            ("t1", 0),
            ("t2", 1000),
            ("t3", 2000),
            ("u1", 3000),
            ("u2", 4000),
            ("u3", 5000),
            ("t1", 6000),
            ("t2", 7000),
            ("t3", 8000),
            ("u1", 9000),
            ("u2", 10_000),
            ("u3", 11_000),
            ("t1", 12_000),
        ];
        let three = |ids: [&'static str; 3]| {
            let times = [0, 2000, 4000, 6000, 8000, 10_000, 12_000];
            times.into_iter().enumerate().map(|(n, at)| (ids[n % 3], at)).collect::<Vec<_>>()
        };
        let without = |text: &str| BOTH.replace(text, "");
        let sharing = "[[pool]]\nid = \"udp\"";
        let second = "[[listener]]\nid = \"web2\"\nvips = [\"10.0.0.1\"]\nport = 81\n\
                      protocol = \"tcp\"\npool = \"tcp\"\n";
        let rows = [
            ("all", BOTH.to_owned(), all.to_vec()),
            (
                "a pool that two listeners share",
                BOTH.replace(sharing, &format!("{second}{sharing}")),
                all.to_vec(),
            ),
            (
                "a pool without a monitor",
                without(
                    "monitor = { type = \"tcp\", delay_s = 6, timeout_s = 4, rise = 2, fall = 3 }",
                ),
                three(["u1", "u2", "u3"]),
            ),
            (
                "a pool that is disabled",
                BOTH.replace("id = \"udp\"", "id = \"udp\"\nenabled = false"),
                three(["t1", "t2", "t3"]),
            ),
            (
                "a listener that is disabled",
                BOTH.replace("protocol = \"udp\"", "protocol = \"udp\"\nenabled = false"),
                three(["t1", "t2", "t3"]),
            ),
            ("a pool of no listener", without("pool = \"tcp\"\n"), three(["u1", "u2", "u3"])),
            (
                "a member that is disabled",
                BOTH.replace("\"10.0.1.2\", port = 53", "\"10.0.1.2\", port = 53, enabled = false")
                    .replace("protocol = \"tcp\"", "protocol = \"tcp\"\nenabled = false"),
                [0, 3000, 6000, 9000, 12_000]
                    .into_iter()
                    .zip(["u1", "u3", "u1", "u3", "u1"])
                    .map(|(at, id)| (id, at))
                    .collect(),
            ),
        ];
        for (row, text, want) in rows {
            let want: Vec<_> = want.iter().map(|(id, at)| ((*id).to_owned(), *at)).collect();
            assert_eq!(Bed::new(&text).turns(13_000), want, "{row}");
        }
    }

    #[test]
    fn what_a_probe_is_told() {
        let mut bed = Bed::new(BOTH);
        let ten = Bed::new(&BOTH.replace("delay_s = 6", "delay_s = 4"));
        let seconds = |connect, read| Patience {
            connect: Duration::from_secs(connect),
            read: Duration::from_secs(read),
        };
        let rows = [
            ("t1", "10.0.1.1:80", Probe::Tcp, seconds(5, 4)),
            ("t2", "10.0.1.2:81", Probe::Tcp, seconds(5, 4)),
            ("t3", "10.0.1.3:80", Probe::Tcp, seconds(5, 4)),
            ("u1", "10.0.1.1:53", Probe::UdpConnect, seconds(4, 4)),
        ];
        for (member, at, probe, patience) in rows {
            let (_, job) = bed.next();
            let got = (&job.name.1[..], job.at.to_string(), &job.monitor.probe, job.patience);
            assert_eq!(got, (member, at.to_owned(), &probe, patience));
        }
        let (_, job) = { ten }.next();
        assert_eq!(job.patience, seconds(4, 4), "no longer than the delay");
    }

    /// A probe that takes its time is followed by the next at once, and never by one beside it.
    #[test]
    fn slow_probes() {
        let text = BOTH.replace("protocol = \"udp\"", "protocol = \"udp\"\nenabled = false");
        // When the result of the first probe comes, and when the member is probed next.
        for (ends, next) in [(0, 6000), (5999, 6000), (6000, 6000), (9000, 9000), (60_000, 60_000)]
        {
            let mut bed = Bed::new(&text);
            let (_, slow) = bed.next();
            for (_, at) in bed.turns(ends) {
                assert!(at % 6000 != 0, "{ends}: again at {at}");
            }
            bed.schedule.result(&slow, Ok(()), bed.at(ends));
            let turns = bed.turns(next + 1);
            let own = turns.iter().find(|(id, _)| id == "t1");
            assert_eq!(own, Some(&("t1".to_owned(), next)), "{ends}");
        }
    }

    /// Who is late keeps his place, unless he is late by a whole round.
    #[test]
    fn late_probes() {
        let text = BOTH.replace("protocol = \"udp\"", "protocol = \"udp\"\nenabled = false");
        for (now, next) in [(5900, 6000), (6100, 12_100)] {
            let mut bed = Bed::new(&text);
            let job = bed.schedule.due(bed.at(now)).expect("it is due");
            bed.schedule.result(&job, Ok(()), bed.at(now));
            let turns = bed.turns(20_000);
            assert!(turns.contains(&("t1".to_owned(), next)), "{now}: {turns:?}");
        }
    }

    /// A row is what becomes of the document once all are down, and where `t1` and `u1` stand then:
    /// down as they were, begun anew, or not probed.
    #[test]
    fn other_documents() {
        let moved = BOTH.replace("10.0.1.1", "10.0.1.9");
        let rows: [(&str, String, [Option<Member>; 2]); 11] = [
            ("the same", BOTH.to_owned(), [Some(down(0)), Some(down(0))]),
            ("in another order", swapped(), [Some(down(0)), Some(down(0))]),
            ("elsewhere", moved, [Some(up(2)), Some(up(0))]),
            (
                "probed elsewhere",
                BOTH.replace(
                    "\"10.0.1.1\", port = 80",
                    "\"10.0.1.1\", port = 80, monitor_port = 9",
                ),
                [Some(up(2)), Some(down(0))],
            ),
            (
                "another port, probed where it was",
                BOTH.replace(
                    "\"10.0.1.1\", port = 80",
                    "\"10.0.1.1\", port = 8080, monitor_port = 80",
                ),
                [Some(down(0)), Some(down(0))],
            ),
            (
                "asked in another way",
                BOTH.replace("type = \"udp_connect\"", "type = \"ping\""),
                [Some(down(0)), Some(up(0))],
            ),
            (
                "other weights and numbers",
                BOTH.replace("port = 80 }", "port = 80, weight = 7 }")
                    .replace("delay_s = 6", "delay_s = 60")
                    .replace("rise = 2", "rise = 1"),
                [Some(down(0)), Some(down(0))],
            ),
            (
                "by the rules of the other",
                BOTH.replace("protocol = \"udp\"", "protocol = \"tcp\""),
                [Some(down(0)), Some(up(2))],
            ),
            ("gone", BOTH.replace("\"t1\"", "\"t9\""), [None, Some(down(0))]),
            (
                "without a monitor",
                BOTH.replace(
                    "monitor = { type = \"tcp\", delay_s = 6, timeout_s = 4, rise = 2, fall = 3 }",
                    "",
                ),
                [None, Some(down(0))],
            ),
            ("nothing", "name = \"a\"".to_owned(), [None, None]),
        ];
        for (row, text, want) in rows {
            let mut bed = Bed::new(BOTH);
            while bed.schedule.next().is_some_and(|next| next < bed.at(25_000)) {
                let (at, job) = bed.next();
                bed.schedule.result(&job, Err("refused".to_owned()), bed.at(at));
            }
            let kept = bed.schedule.to_keep();
            bed.set(25_000, &text);
            let stand = |schedule: &Schedule| {
                let standings = schedule.standings();
                [("tcp", "t1"), ("udp", "u1")].map(|(pool, id)| {
                    standings.get(&(pool.to_owned(), id.to_owned())).map(|it| it.member)
                })
            };
            assert_eq!(stand(&bed.schedule), want, "{row}");

            let json = serde_json::to_string(&kept).unwrap();
            let mut after = Schedule::after(serde_json::from_str(&json).unwrap());
            after.set(&Desired::from_toml("name = \"a\"").unwrap(), bed.at(0));
            after.set(&Desired::from_toml(&text).unwrap(), bed.at(0));
            assert_eq!(stand(&after), want, "{row}, after a restart");
            let whys = |schedule: &Schedule| schedule.down().into_values().collect::<Vec<_>>();
            assert_eq!(whys(&after), whys(&bed.schedule), "{row}");
        }
    }

    /// The pools the other way round.
    fn swapped() -> String {
        let mut parts = BOTH.split("[[pool]]");
        let (head, tcp, udp) = (parts.next(), parts.next(), parts.next());
        [head, udp, tcp].map(|part| part.expect("three parts")).join("[[pool]]")
    }

    #[test]
    fn thresholds_that_change() {
        let text = |rise: u16, fall: u16| {
            BOTH.replace("rise = 2, fall = 3", &format!("rise = {rise}, fall = {fall}"))
        };
        // Rise and fall, results, rise and fall from then on, where it stands, and after a failure and
        // after a success.
        type Row<'a> = ((u16, u16), &'a [bool], (u16, u16), Member, Member, Member);
        let rows: [Row<'_>; 5] = [
            ((2, 5), &[OK, BAD, BAD, BAD, BAD], (2, 2), up(1), down(0), up(0)),
            ((2, 5), &[OK, BAD], (2, 9), up(1), up(2), up(0)),
            ((9, 3), &[BAD, OK, OK, OK], (2, 3), down(1), down(0), up(0)),
            ((3, 3), &[BAD, OK, OK], (5, 3), down(2), down(0), down(3)),
            ((2, 3), &[OK, BAD, BAD], (1, 1), up(0), down(0), up(0)),
        ];
        for ((rise, fall), results, (new_rise, new_fall), want, bad, ok) in rows {
            let row = format!("{rise} {fall} {results:?} {new_rise} {new_fall}");
            for (result, then) in [(BAD, bad), (OK, ok)] {
                let mut bed = Bed::new(&text(rise, fall));
                bed.results("t1", results);
                bed.set(30_000, &text(new_rise, new_fall));
                assert_eq!(bed.member("t1"), want, "{row}");
                assert_eq!(bed.results("t1", &[result]), [then], "{row}");
            }
        }
    }

    #[test]
    fn members_that_stay_keep_their_rhythm() {
        let more = BOTH.replace(
            "    { id = \"u1\"",
            "    { id = \"u0\", address = \"10.0.1.9\", port = 53 },\n    { id = \"u1\"",
        );
        let mut bed = Bed::new(BOTH);
        bed.turns(2500);
        bed.set(2500, &more);
        let want = [("u0", 2500), ("u1", 3000), ("u2", 4000), ("u3", 5000), ("t1", 6000)];
        assert_eq!(bed.turns(7000), want.map(|(id, at)| (id.to_owned(), at)));

        // One with a shorter delay is due at once.
        bed.set(9000, &more.replace("delay_s = 6", "delay_s = 1"));
        let turns = bed.turns(9001);
        assert_eq!(turns.len(), 7, "{turns:?}");
    }

    /// What was begun for a member that is no more, or is another by now, changes nothing.
    #[test]
    fn results_that_come_too_late() {
        let elsewhere = BOTH.replace("10.0.1.1", "10.0.1.9");
        let gone = BOTH.replace("\"t1\"", "\"t9\"");
        let failed = || Err("refused".to_owned());
        for (row, texts, want) in [
            ("it stays", vec![BOTH], Some(down(0))),
            ("elsewhere", vec![&elsewhere[..]], Some(up(2))),
            ("gone", vec![&gone], None),
            ("gone and back", vec![&gone, BOTH], Some(up(2))),
        ] {
            let mut bed = Bed::new(BOTH);
            let (_, job) = bed.next();
            for text in texts {
                bed.set(1, text);
            }
            bed.schedule.result(&job, failed(), bed.at(2));
            let again = bed.schedule.result(&job, failed(), bed.at(2));
            assert_eq!(again, Changed::Nothing, "{row}: a second time");
            let standings = bed.schedule.standings();
            let stands = standings.get(&job.name).map(|standing| standing.member);
            assert_eq!(stands, want, "{row}");
        }
    }

    #[test]
    fn probes_that_could_not_be_made() {
        let mut bed = Bed::new(BOTH);
        let (_, job) = bed.next();
        bed.schedule.missed(&job, bed.at(1));
        bed.schedule.missed(&job, bed.at(1));
        assert_eq!(bed.member("t1"), up(2), "as before");
        let turns = bed.turns(6001);
        assert_eq!(
            turns.iter().filter(|(id, _)| id == "t1").collect::<Vec<_>>(),
            [&("t1".to_owned(), 6000)]
        );
    }

    #[test]
    fn what_nobody_is_at_work_on_is_due_again() {
        let mut bed = Bed::new(BOTH);
        let (_, job) = bed.next();
        bed.schedule.forget_under_way(bed.at(500));
        bed.schedule.result(&job, Err("refused".to_owned()), bed.at(600));
        assert_eq!(bed.member("t1"), up(2), "it was given up");
        assert_eq!(bed.turns(1000), [("t1".to_owned(), 500)]);
    }

    /// 16,384 members, and no second has more than its share.
    #[test]
    fn many_members() {
        let member = |n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            format!("    {{ id = \"m{n}\", address = \"10.{a}.{b}.{c}\", port = 9 }},\n")
        };
        let members: String = (256..256 + 16_378).map(member).collect();
        let mut bed =
            Bed::new(&BOTH.replace("    { id = \"u1\"", &format!("{members}    {{ id = \"u1\"")));
        let turns = bed.turns(12_000);
        assert_eq!(turns.len(), 2 * 16_384);
        for second in 0..12 {
            let share = turns.iter().filter(|(_, at)| at / 1000 == second).count();
            assert!((2700..2760).contains(&share), "{share} in second {second}");
        }
    }
}
