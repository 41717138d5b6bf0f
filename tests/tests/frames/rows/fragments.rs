//! Fragments: the first finds the flow, the rest follow it.

use super::super::frame::{Body, Frame, SCTP, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Step, Want, Wire, goes, row, sent};
use super::{established, opened};
use xdp_lb_ebpf::Reason;

const ID: u32 = 0x1234;
/// Where the datagrams of the rows are cut.
const CUT: usize = 1400;

fn first(frame: &Frame, id: u32) -> Wire {
    (frame.by, frame.piece(id, 0..CUT)).into()
}

fn rest(frame: &Frame, id: u32) -> Wire {
    (frame.by, frame.piece(id, CUT..frame.body().len())).into()
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        for (name, proto) in [("udp", UDP), ("tcp", TCP)] {
            rows.extend(followed(family, name, proto));
        }
        rows.extend(lost(family));
        rows.push(three(family));
    }
    rows.extend(atomic());
    rows
}

fn followed(family: Family, name: &str, proto: u8) -> Vec<Row> {
    let named = |what: &str| format!("{family:?} {name} fragments: {what}");
    let one = flow(family, proto, ONE);
    let long = say("A").data(&[0x77; 2001]);
    let (from, to) = (one.sent(long.clone()), one.taken(long.clone()));
    let (answered, heard) = (one.answered(long.clone()), one.heard(long.clone()));
    let other = one.client(8).sport(41000);
    let (other_from, other_to) = (other.sent(long.clone()), other.taken(long));
    // Ours count from 0.
    vec![
        row(named("the first opens"), [], first(&from, ID), goes(first(&to, 0))),
        row(
            named("the rest follows"),
            [sent(first(&from, ID))],
            rest(&from, ID),
            goes(rest(&to, 0)),
        ),
        row(named("the first goes on"), established(one), first(&from, ID), goes(first(&to, 0))),
        row(
            named("the first of an answer"),
            opened(one),
            first(&answered, ID),
            goes(first(&heard, 0)),
        ),
        row(
            named("the rest of an answer"),
            [opened(one), vec![sent(first(&answered, ID))]].concat(),
            rest(&answered, ID),
            goes(rest(&heard, 0)),
        ),
        row(
            named("a second datagram"),
            [sent(first(&from, ID)), sent(rest(&from, ID)), sent(first(&from, ID + 1))],
            rest(&from, ID + 1),
            goes(rest(&to, 1)),
        ),
        row(
            named("a second client, the same identification"),
            [sent(first(&from, ID))],
            first(&other_from, ID),
            goes(first(&other_to, 1)),
        ),
        row(
            named("the rest of the first of two clients"),
            [sent(first(&from, ID)), sent(first(&other_from, ID))],
            rest(&from, ID),
            goes(rest(&to, 0)),
        ),
        row(
            named("the rest of the second of two clients"),
            [sent(first(&from, ID)), sent(first(&other_from, ID))],
            rest(&other_from, ID),
            goes(rest(&other_to, 1)),
        ),
        row(
            named("the rest with TTL 1"),
            [sent(first(&from, ID))],
            rest(&from.clone().ttl(1), ID),
            Want::Drop(Reason::HopLimit),
        ),
        row(
            named("the first with TTL 1"),
            established(one),
            first(&from.clone().ttl(1), ID),
            Want::Drop(Reason::HopLimit),
        ),
        row(
            named("the rest without the first"),
            established(one),
            rest(&from, ID),
            Want::Pass(Reason::FragmentUnknown),
        ),
        row(
            named("the rest of another identification"),
            [sent(first(&from, ID))],
            rest(&from, ID + 1),
            Want::Pass(Reason::FragmentUnknown),
        ),
        row(
            named("the first with half a header"),
            established(one),
            (WAN, from.piece(ID, 0..if proto == TCP { 16 } else { 0 })),
            Want::Pass(Reason::Truncated),
        ),
    ]
}

/// A middle one has neither the ports nor the end.
fn three(family: Family) -> Row {
    let one = flow(family, UDP, ONE);
    let long = say("").data(&[0x33; 3992]);
    let (from, to) = (one.sent(long.clone()), one.taken(long));
    let middle = |frame: &Frame, id| (frame.by, frame.piece(id, CUT..2 * CUT));
    row(
        format!("{family:?} udp fragments: the middle of three"),
        [sent(first(&from, ID))],
        middle(&from, ID),
        goes(middle(&to, 0)),
    )
}

/// Fragments that are not ours.
fn lost(family: Family) -> Vec<Row> {
    let named = |what: &str| format!("{family:?} fragments: {what}");
    let long = say("").data(&[0x11; 2000]);
    let sctp = flow(family, SCTP, ONE).sent(long.clone());
    let unknown = flow(family, UDP, UNKNOWN).sent(long.clone());
    let ping = unknown.clone().with(Body::Icmp {
        kind: if family == V4 { 8 } else { 128 },
        code: 0,
        rest: [0; 4],
        quoted: vec![0; 2000],
    });
    let lost = |frame: &Frame| [Step::Lost(first(frame, ID))];
    let pass = Want::Pass;
    vec![
        row(named("of sctp"), [], first(&sctp, ID), Want::Drop(Reason::SctpFragment)),
        row(named("for nobody"), [], first(&unknown, ID), pass(Reason::NoListener)),
        row(
            named("the rest for nobody"),
            lost(&unknown),
            rest(&unknown, ID),
            pass(Reason::FragmentUnknown),
        ),
        row(named("of a ping"), [], first(&ping, ID), pass(Reason::OtherProtocol)),
        row(
            named("the rest of a ping"),
            lost(&ping),
            rest(&ping, ID),
            pass(Reason::FragmentUnknown),
        ),
    ]
}

/// One fragment that is the whole datagram.
fn atomic() -> Vec<Row> {
    let mut rows = Vec::new();
    for (family, name, proto) in super::each() {
        let one = flow(family, proto, ONE);
        let (from, to) = (one.sent(one.opening()), one.taken(one.opening()));
        let (answered, heard) = (one.answered(one.answer()), one.heard(one.answer()));
        let whole = |frame: &Frame| (frame.by, frame.piece(ID, 0..frame.body().len()));
        rows.push(row(
            format!("{family:?} {name} one fragment is all"),
            [],
            whole(&from),
            goes(whole(&to)),
        ));
        rows.push(row(
            format!("{family:?} {name} answer, one fragment is all"),
            opened(one),
            whole(&answered),
            goes(whole(&heard)),
        ));
    }
    rows
}
