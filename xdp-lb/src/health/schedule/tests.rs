//! Members, and a clock that the test moves.

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
            &[up(0), up(1), up(2), up(0), up(1), up(2), down(0), down(1), down(0), down(1), up(0)],
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
    let mut bed = Bed::new(&BOTH.replace("fall = 3 }", "fall = 3, on_marked_down = \"reset\" }"));
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
            without("monitor = { type = \"tcp\", delay_s = 6, timeout_s = 4, rise = 2, fall = 3 }"),
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
    for (ends, next) in [(0, 6000), (5999, 6000), (6000, 6000), (9000, 9000), (60_000, 60_000)] {
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
/// down still, begun anew, or not probed.
#[test]
fn other_documents() {
    let moved = BOTH.replace("10.0.1.1", "10.0.1.9");
    let rows: [(&str, String, [Option<Member>; 2]); 11] = [
        ("the same", BOTH.to_owned(), [Some(down(0)), Some(down(0))]),
        ("in another order", swapped(), [Some(down(0)), Some(down(0))]),
        ("elsewhere", moved, [Some(up(2)), Some(up(0))]),
        (
            "probed elsewhere",
            BOTH.replace("\"10.0.1.1\", port = 80", "\"10.0.1.1\", port = 80, monitor_port = 9"),
            [Some(down(0)), Some(down(0))],
        ),
        (
            "another port, probed where it was",
            BOTH.replace("\"10.0.1.1\", port = 80", "\"10.0.1.1\", port = 8080, monitor_port = 80"),
            [Some(down(0)), Some(down(0))],
        ),
        (
            "asked in another way",
            BOTH.replace("type = \"udp_connect\"", "type = \"ping\""),
            [Some(down(0)), Some(down(0))],
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
            [Some(down(0)), Some(down(0))],
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
