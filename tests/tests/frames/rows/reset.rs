//! What becomes of flows that the control program ends, since their member was taken out.

use super::super::frame::{Frame, SCTP, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Step, Want, goes, row};
use super::refused::reset;
use super::{answered, each, established, opened};
use xdp_lb_ebpf::Reason;

/// Member 1 of a service is taken out, and another takes what is new.
fn taken_out(port: u16) -> Vec<Step> {
    vec![Step::Ring(port, &[2]), Step::Member(port, 1, 0, 1), Step::Reset(port, 1)]
}

/// The RST that the member hears.
fn reset_of_member(flow: Flow, frame: Frame) -> Frame {
    let mut message = say("R").seq(5000);
    (message.ack, message.window) = (0, 0);
    let turned =
        Frame { from: frame.to, to: frame.from, src: frame.dst, dst: frame.src, ttl: 64, ..frame };
    turned.with(message.body(TCP, flow.source_port, 8080))
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        let tcp = flow(family, TCP, ROUND);
        let named = |what: &str| format!("{family:?} tcp, its member taken out: {what}");
        let after = |before: Vec<Step>| [before, taken_out(ROUND)].concat();
        for (what, message) in [
            ("data", say("PA").data(b"data")),
            ("an acknowledgement", say("A")),
            ("its end", say("FA")),
        ] {
            let frame = tcp.sent(message.clone());
            let answer = Want::Answer(reset(tcp, frame.clone(), "R", 5000, 0));
            rows.push(row(named(what), after(established(tcp)), frame, answer));
            let frame = tcp.answered(message);
            let answer = Want::Answer(reset_of_member(tcp, frame.clone()));
            rows.push(row(
                named(&format!("the member's {what}")),
                after(established(tcp)),
                frame,
                answer,
            ));
        }
        let sent = |flags| tcp.sent(say(flags));
        let dropped = || Want::Drop(Reason::NotAnOpening);
        let other = tcp.member(2);
        let anew = |flow: Flow| goes(flow.taken(say("S")));
        let closed = [established(tcp), vec![Step::Sent(sent("RA").into())]].concat();
        rows.extend([
            row(named("RST"), after(established(tcp)), sent("RA"), dropped()),
            row(
                named("a member's RST"),
                after(established(tcp)),
                tcp.answered(say("R")),
                dropped(),
            ),
            row(named("SYN from the same port"), after(established(tcp)), sent("S"), anew(other)),
            row(
                named("SYN again, nobody had answered"),
                after(opened(tcp)),
                sent("S"),
                anew(other),
            ),
            row(named("SYN again, it was answered"), after(answered(tcp)), sent("S"), anew(other)),
            row(
                named("it was over already, and goes to its end"),
                after(closed),
                sent("A"),
                goes(tcp.taken(say("A"))),
            ),
            row(
                named("another member's connection"),
                [established(tcp), vec![Step::Reset(ROUND, 2), Step::Reset(ONE, 1)]].concat(),
                sent("A"),
                goes(tcp.taken(say("A"))),
            ),
        ]);
    }
    for (family, name, proto) in each().filter(|(_, _, proto)| [UDP, SCTP].contains(proto)) {
        let flow = flow(family, proto, ROUND);
        rows.push(row(
            format!("{family:?} {name}, its member taken out: it goes to another"),
            [established(flow), taken_out(ROUND)].concat(),
            flow.sent(flow.confirmation()),
            goes(flow.member(2).taken(flow.confirmation())),
        ));
    }
    rows
}
