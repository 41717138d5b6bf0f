//! A listener that comes from HAProxy or goes to it: the connections that a local socket has stay
//! its own, and those of the packet path stay there.

use super::super::frame::{Message, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Step, Want, goes, row, sent};
use super::{established, opened};
use xdp_lb_ebpf::Reason;

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        rows.extend(held(family));
        rows.extend(not_held(family));
        rows.extend(handed_over(family));
    }
    rows
}

/// From a client port that no other row's socket has: what the kernel remembers of one must not be
/// met by the next.
fn apart(family: Family, rows: &[Row]) -> Flow {
    flow(family, TCP, ONE).sport(42000 + rows.len() as u16)
}

fn held(family: Family) -> Vec<Row> {
    let mut rows = Vec::new();
    let data = say("PA").data(b"GET / HTTP/1.1\r\n\r\n");
    for (what, held, message) in [
        ("is established", Held::Established, data.clone()),
        ("is established: ACK", Held::Established, say("A")),
        ("is established: FIN", Held::Established, say("FA")),
        ("is established: RST", Held::Established, say("R")),
        ("is established: RST+ACK", Held::Established, say("RA")),
        ("is established: SYN+ACK again", Held::Established, say("SA")),
        ("is established: no flag at all", Held::Established, say("").data(b"data")),
        ("is requested: ACK", Held::Requested, say("A")),
        ("is requested: data", Held::Requested, data.clone()),
        ("is requested: RST", Held::Requested, say("R")),
        ("is over: FIN again", Held::Finished, say("FA")),
        ("is over: data", Held::Finished, data.clone()),
        ("a local socket asks for: SYN+ACK", Held::Asking, say("SA")),
        ("a local socket asks for: RST+ACK", Held::Asking, say("RA")),
    ] {
        let one = apart(family, &rows);
        rows.push(row(
            format!("{family:?} tcp connection of HAProxy's that {what}"),
            [Step::Socket(one, held)],
            one.sent(message),
            Want::Pass(Reason::LocalSocket),
        ));
    }
    for (what, port) in [
        ("whose listener nobody serves now", NOBODY),
        ("whose listener is at its limit", CLOSED_TO_ALL),
        ("by persistence", STICKY),
    ] {
        let one = Flow { port, ..apart(family, &rows) };
        rows.push(row(
            format!("{family:?} tcp connection of HAProxy's, {what}"),
            [Step::Socket(one, Held::Established)],
            one.sent(data.clone()),
            Want::Pass(Reason::LocalSocket),
        ));
    }
    let stranger = Flow { port: ALLOWED, ..apart(family, &rows) }.stranger(1);
    rows.push(row(
        format!("{family:?} tcp connection of HAProxy's, from a network no longer allowed"),
        [Step::Socket(stranger, Held::Established)],
        stranger.sent(data.clone()),
        Want::Pass(Reason::LocalSocket),
    ));

    for (what, range, reason) in
        [("first", 0..40, Reason::LocalSocket), ("later", 40..80, Reason::FragmentUnknown)]
    {
        let one = apart(family, &rows);
        let long = one.sent(say("A").data(&[7; 60]));
        rows.push(row(
            format!("{family:?} tcp connection of HAProxy's: the {what} fragment"),
            [Step::Socket(one, Held::Established)],
            (long.by, long.piece(9, range)),
            Want::Pass(reason),
        ));
    }
    let one = apart(family, &rows);
    let quoted = one.heard(data).ip();
    let (kind, code) = if family == V4 { (3, 4) } else { (2, 0) };
    rows.push(row(
        format!("{family:?} tcp connection of HAProxy's: ICMP says that a packet is too big"),
        [Step::Socket(one, Held::Established)],
        one.error_from_clients(kind, code, [0, 0, 5, 0], quoted),
        Want::Pass(Reason::Icmp),
    ));
    rows
}

/// A socket is there, but not of this connection.
fn not_held(family: Family) -> Vec<Row> {
    let one = flow(family, TCP, ONE).sport(43000);
    let listening = [Step::Socket(one, Held::Listening)];
    let nth = |n: u16| one.sport(43001 + n);
    let established_at = |flow: Flow| [Step::Socket(flow, Held::Established)];
    let named = |what: &str| format!("{family:?} tcp beside HAProxy: {what}");
    let taken =
        |flow: Flow, message: Message| (flow.sent(message.clone()), goes(flow.taken(message)));
    let refused = |flow: Flow, flags| (flow.sent(say(flags)), Want::Drop(Reason::NotAnOpening));
    let mut rows = Vec::new();
    let mut add = |what: &str, before: &[Step], (frame, want)| {
        rows.push(row(named(what), before.to_vec(), frame, want));
    };
    add("it only listens, SYN", &listening, taken(one, say("S")));
    add("it only listens, ACK", &listening, taken(one, say("A").data(b"still here")));
    add("it only listens, FIN", &listening, taken(one, say("FA")));
    add("it only listens, RST", &listening, refused(one, "R"));
    add("it only listens, SYN+ACK", &listening, refused(one, "SA"));
    // A SYN is nobody's yet: the kernel is not asked.
    add("SYN of a connection", &established_at(nth(0)), taken(nth(0), say("S")));
    add("SYN again of one requested", &[Step::Socket(nth(1), Held::Requested)], {
        taken(nth(1), say("S"))
    });
    let (other_port, other_vip) = (nth(2).sport(43100), nth(3).vip(11));
    let (other_client, other_listener) = (nth(4).client(8), Flow { port: TWIN, ..nth(5) });
    add("another port of the client", &established_at(nth(2)), taken(other_port, say("A")));
    add("another VIP", &established_at(nth(3)), taken(other_vip, say("A")));
    add("another client", &established_at(nth(4)), taken(other_client, say("A")));
    add("another listener", &established_at(nth(5)), taken(other_listener, say("A")));
    let ours = [established(nth(6)), established_at(nth(6)).into()].concat();
    add("a flow comes before a socket", &ours, taken(nth(6), say("PA").data(b"data")));
    let udp = Flow { proto: UDP, ..nth(7) };
    add("udp of the same ports", &established_at(nth(7)), taken(udp, udp.opening()));
    rows
}

/// The listener goes to HAProxy.
fn handed_over(family: Family) -> Vec<Row> {
    let one = flow(family, TCP, ONE);
    let named = |what: &str| format!("{family:?} tcp, its listener now HAProxy's: {what}");
    let gone = vec![Step::Withdrawn(ONE)];
    let over = [
        established(one),
        vec![sent(one.sent(say("FA"))), sent(one.answered(say("FA")))],
        gone.clone(),
    ]
    .concat();
    let anew = [over.clone(), vec![Step::Lost(one.sent(say("S").seq(77)).into())]].concat();
    let data = say("PA").data(b"data");
    let passes = || Want::Pass(Reason::NoListener);
    vec![
        row(
            named("it goes on"),
            [established(one), gone.clone()].concat(),
            one.sent(data.clone()),
            goes(one.taken(data.clone())),
        ),
        row(
            named("it is answered"),
            [established(one), gone.clone()].concat(),
            one.answered(data.clone()),
            goes(one.heard(data.clone())),
        ),
        row(
            named("SYN again"),
            [opened(one), gone.clone()].concat(),
            one.sent(say("S")),
            goes(one.taken(say("S"))),
        ),
        row(named("a new one"), gone, one.sent(say("S")), passes()),
        row(
            named("the last ACK"),
            over.clone(),
            one.sent(say("A").seq(1001)),
            goes(one.taken(say("A").seq(1001))),
        ),
        row(named("a new one of the same ports"), over, one.sent(say("S").seq(77)), passes()),
        row(named("that goes on"), anew.clone(), one.sent(say("A").seq(78)), passes()),
        row(named("that goes on, and the old member speaks"), anew, one.answered(data), passes()),
    ]
}
