//! Source ports towards members: the client's own where it can be had, else one that follows from the
//! client's address and port, the same on every amphora.

use super::super::world::*;
use super::super::{Row, goes, row};
use super::{each, opened};

/// What follows from the clients of the rows below.
struct Follows {
    /// Client 7's port 80 and port 61000, both outside the range.
    low: u16,
    high: u16,
    /// Client 8's port 40000, once client 7 has it.
    other_client: u16,
    /// Client 7's port 40000, once it has it through another listener.
    other_listener: u16,
}

const FOLLOWS: [Follows; 2] = [
    Follows { low: 31549, high: 14386, other_client: 1380, other_listener: 56583 },
    Follows { low: 48983, high: 32029, other_client: 35133, other_listener: 42796 },
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (family, name, proto) in each() {
        let one = flow(family, proto, ONE);
        let follows = &FOLLOWS[family as usize];
        let other_client = one.client(8).source_port(follows.other_client);
        let other_listener = flow(family, proto, TWIN).source_port(follows.other_listener);
        for (what, before, flow) in [
            ("the first of the range", vec![], one.sport(1024)),
            ("the last of the range", vec![], one.sport(60999)),
            ("below the range", vec![], one.sport(80).source_port(follows.low)),
            ("above the range", vec![], one.sport(61000).source_port(follows.high)),
            ("taken by another client", opened(one), other_client),
            ("taken by another listener", opened(one), other_listener),
            ("taken at another member only", opened(flow(family, proto, ROUND)), {
                flow(family, proto, ROUND).client(8).member(2)
            }),
        ] {
            rows.push(row(
                format!("{family:?} {name}, the client's port is {what}"),
                before.clone(),
                flow.sent(flow.opening()),
                goes(flow.taken(flow.opening())),
            ));
            rows.push(row(
                format!("{family:?} {name} picked up in the middle, the client's port is {what}"),
                before.clone(),
                flow.sent(flow.confirmation()),
                goes(flow.taken(flow.confirmation())),
            ));
            rows.push(row(
                format!("{family:?} {name} answer, the client's port is {what}"),
                [before, opened(flow)].concat(),
                flow.answered(flow.answer()),
                goes(flow.heard(flow.answer())),
            ));
        }
    }
    rows
}
