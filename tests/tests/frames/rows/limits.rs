//! Connection limits and allowed networks.

use super::super::frame::{TCP, say};
use super::super::world::*;
use super::super::{Row, Step, Want, goes, row, sent};
use super::{each, established, opened};
use xdp_lb_ebpf::Reason;

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (family, name, proto) in each() {
        let named = |what: &str| format!("{family:?} {name} {what}");
        let nth = |n: u16| flow(family, proto, LIMITED).sport(40000 + n);
        let two = [opened(nth(0)), opened(nth(1))].concat();
        let third = nth(2);
        let other = match family {
            V4 => flow(V6, proto, LIMITED),
            V6 => flow(V4, proto, LIMITED),
        };
        let closed = flow(family, proto, CLOSED_TO_ALL);
        rows.extend([
            opens(named("second of two"), opened(nth(0)), nth(1)),
            refused(named("third of two"), two.clone(), third, Reason::LimitReached),
            opens(named("second of two said again"), two.clone(), nth(1)),
            refused(
                named("third of two, one of the other family"),
                [opened(nth(0)), opened(other)].concat(),
                third,
                Reason::LimitReached,
            ),
            refused(named("no connection at all"), vec![], closed, Reason::LimitReached),
        ]);

        let to = flow(family, proto, ALLOWED);
        rows.extend([
            opens(named("from a network that is allowed"), vec![], to),
            opens(named("from its last address"), vec![], to.client(15)),
            opens(named("from an address that is allowed"), vec![], to.stranger(9)),
        ]);
        for (what, flow) in [
            ("from beside the network", to.client(16)),
            ("from beside the address", to.stranger(8)),
        ] {
            rows.push(refused(named(what), vec![], flow, Reason::NetworkRefused));
        }
    }
    for family in FAMILIES {
        rows.extend(freed(family));
        rows.extend(full(family));
    }
    rows
}

fn opens(name: String, before: Vec<Step>, flow: Flow) -> Row {
    row(name, before, flow.sent(flow.opening()), goes(flow.taken(flow.opening())))
}

fn refused(name: String, before: Vec<Step>, flow: Flow, reason: Reason) -> Row {
    row(name, before, flow.sent(flow.opening()), Want::Drop(reason))
}

/// What makes room under the limit, and what does not.
fn freed(family: Family) -> Vec<Row> {
    let nth = |n: u16| flow(family, TCP, LIMITED).sport(40000 + n);
    let first = nth(0);
    let after = |steps: Vec<Step>| [established(first), opened(nth(1)), steps].concat();
    let (there, back) =
        (|flags| sent(first.sent(say(flags))), |flags| sent(first.answered(say(flags))));
    let enough = [
        ("a RST of the client", vec![there("R")]),
        ("a RST of the member", vec![back("R")]),
        ("a RST+ACK of the member", vec![back("RA")]),
        ("both FINs", vec![there("FA"), back("FA")]),
        ("both FINs, the member's first", vec![back("FA"), there("FA")]),
    ];
    let too_little = [
        ("the client's FIN", vec![there("FA")]),
        ("the client's FIN twice", vec![there("FA"), there("FA")]),
        ("the member's FIN", vec![back("FA")]),
        ("data", vec![there("PA")]),
    ];
    let mut rows: Vec<Row> = enough
        .iter()
        .map(|(what, steps)| {
            opens(format!("{family:?} {what} frees"), after(steps.clone()), nth(2))
        })
        .collect();
    rows.extend(enough.iter().map(|(what, steps)| {
        refused(
            format!("{family:?} {what} frees one only"),
            [after(steps.clone()), opened(nth(2))].concat(),
            nth(3),
            Reason::LimitReached,
        )
    }));
    rows.extend(enough.iter().map(|(what, steps)| {
        opens(format!("{family:?} SYN again after {what}"), after(steps.clone()), first)
    }));
    rows.extend(enough.iter().map(|(what, steps)| {
        refused(
            format!("{family:?} counted once, {what} and all said again"),
            [after([&steps[..], steps].concat()), opened(nth(2))].concat(),
            nth(3),
            Reason::LimitReached,
        )
    }));
    rows.extend(too_little.map(|(what, steps)| {
        let name = format!("{family:?} {what} does not free");
        refused(name, after(steps), nth(2), Reason::LimitReached)
    }));
    rows
}

/// Established flows stay; those that nobody answered make room.
fn full(family: Family) -> Vec<Row> {
    // Ports whose flows fill the table to the last slot: of its 64, a flow may live in 56.
    let nth = |n: u16| flow(family, TCP, ONE).sport(40040 + n);
    let flows = (FLOWS / 2) as u16;
    let all: Vec<Step> = (0..flows).flat_map(|n| established(nth(n))).collect();
    let closed = [all.clone(), vec![sent(nth(5).sent(say("R")))]].concat();
    let last = [(1..flows).flat_map(|n| established(nth(n))).collect(), opened(nth(0))].concat();
    let next = nth(flows);
    let refused_one = [all.clone(), vec![Step::Lost(next.sent(say("S")).into())]].concat();
    let data = say("A").data(b"data");
    vec![
        refused(format!("{family:?} no slot is left"), all, next, Reason::TableFull),
        row(
            format!("{family:?} established, and no slot is left for others"),
            refused_one,
            nth(0).sent(data.clone()),
            goes(nth(0).taken(data)),
        ),
        opens(format!("{family:?} in the slots of a flow that is closed"), closed, next),
        opens(format!("{family:?} in the slots of a flow nobody answered"), last, next),
    ]
}
