//! Which member a new flow goes to, and when a flow that is not new goes elsewhere.

use super::super::frame::{SCTP, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Step, Want, goes, row, sent};
use super::{answered, each, established, opened};
use xdp_lb_ebpf::Reason;
use xdp_lb_ebpf::abi::BACKEND_STICKY;

/// Client 7 and client 8 by SOURCE_IP; ports 40000 and 40001 of client 7 by SOURCE_IP_PORT.
const HASHED: [[u8; 4]; 2] = [[4, 3, 3, 4], [2, 3, 1, 3]];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (family, name, proto) in each() {
        let named = |what: String| format!("{family:?} {name} {what}");
        let nth = |port: u16, n: u16, member: u8| {
            flow(family, proto, port).sport(40000 + n).member(member)
        };
        let mut order = |what: &str, port: u16, members: &[u8]| {
            for (n, member) in members.iter().enumerate() {
                let before: Vec<Step> =
                    (0..n).map(|n| nth(port, n as u16, members[n])).flat_map(opened).collect();
                rows.push(opens(
                    named(format!("{what}, flow {n}")),
                    before,
                    nth(port, n as u16, *member),
                ));
            }
        };
        order("in turns", ROUND, &[1, 2, 3, 1]);
        order("in weighted turns", WEIGHTED, &[1, 1, 2, 1, 1]);
        order("least connections", LEAST, &[3, 2, 3, 1]);
        let [client7, client8, port0, port1] = HASHED[family as usize];
        let by_ip = nth(BY_IP, 0, client7);
        let other_port = nth(BY_IP, 1, client7);
        rows.extend([
            opens(named("by address".into()), vec![], by_ip),
            opens(named("by address, another port".into()), opened(by_ip), other_port),
            opens(
                named("by address, another client".into()),
                opened(by_ip),
                by_ip.client(8).member(client8),
            ),
            opens(named("by address and port".into()), vec![], nth(BY_PORT, 0, port0)),
            opens(named("by address and another port".into()), vec![], nth(BY_PORT, 1, port1)),
        ]);
        // After a failover: the member that it has on the other amphora.
        for (what, flow) in [("by address", by_ip), ("by address and port", nth(BY_PORT, 1, port1))]
        {
            let message = flow.confirmation();
            rows.push(row(
                named(format!("{what}, picked up in the middle")),
                [],
                flow.sent(message.clone()),
                goes(flow.taken(message)),
            ));
        }
        rows.extend(sticky(family, name, proto));
        rows.extend(changes(family, name, proto));
    }
    for family in FAMILIES {
        rows.extend(idle(family));
        rows.extend(reselected(family));
    }
    rows
}

fn opens(name: String, before: Vec<Step>, flow: Flow) -> Row {
    row(name, before, flow.sent(flow.opening()), goes(flow.taken(flow.opening())))
}

fn sticky(family: Family, name: &str, proto: u8) -> Vec<Row> {
    let first = flow(family, proto, STICKY);
    let second = first.sport(40001);
    let net = flow(family, proto, STICKY_NET);
    // As the control program has it: who does not take new flows is not in the ring.
    let second_only = |flags, epoch| {
        [opened(first), vec![Step::Member(STICKY, 1, flags, epoch), Step::Ring(STICKY, &[2])]]
            .concat()
    };
    let after = |seconds: u32| [opened(first), vec![Step::After(seconds)]].concat();
    let renewed = [after(50), opened(second), vec![Step::After(100)]].concat();
    [
        ("held", opened(first), second),
        ("held to the last second", after(STICKY_S), second),
        ("held no longer", after(STICKY_S + 1), second.member(2)),
        ("held anew with every flow", renewed, first.sport(40002)),
        ("another client is not held", opened(first), second.client(8).member(2)),
        ("held to a member that drains", second_only(BACKEND_STICKY, 1), second),
        ("drains, another client", second_only(BACKEND_STICKY, 1), second.client(8).member(2)),
        ("not held to a member that is down", second_only(0, 1), second.member(2)),
        ("not held to a successor", second_only(BACKEND_STICKY, 2), second.member(2)),
        ("held with its network", opened(net), net.client(8).sport(40001)),
        ("another network is not held", opened(net), net.client(20).member(2)),
    ]
    .map(|(what, before, flow)| opens(format!("{family:?} {name} sticky: {what}"), before, flow))
    .into()
}

/// Members that come and go.
fn changes(family: Family, name: &str, proto: u8) -> Vec<Row> {
    let named = |what: &str| format!("{family:?} {name} {what}");
    let one = flow(family, proto, ONE);
    let more = one.confirmation();
    let drained = vec![Step::Member(ONE, 1, BACKEND_STICKY, 1), Step::Ring(ONE, &[4])];
    let down = vec![Step::Member(ONE, 1, 0, 1), Step::Ring(ONE, &[4])];
    vec![
        row(
            named("lives on while its member drains"),
            [established(one), drained.clone()].concat(),
            one.sent(more.clone()),
            goes(one.taken(more.clone())),
        ),
        row(
            named("is answered while its member drains"),
            [established(one), drained.clone()].concat(),
            one.answered(one.answer()),
            goes(one.heard(one.answer())),
        ),
        opens(named("a new flow while a member drains"), drained, one.member(4)),
        opens(named("to a backup member"), down.clone(), one.member(4)),
        row(
            named("is answered by a member that is down"),
            [established(one), down.clone()].concat(),
            one.answered(one.answer()),
            goes(one.heard(one.answer())),
        ),
        opens(
            named("said again to the member that has it"),
            [opened(one), vec![Step::Ring(ONE, &[4])]].concat(),
            one,
        ),
        opens(
            named("said again, its member down"),
            [opened(one), down.clone()].concat(),
            one.member(4),
        ),
        row(
            named("the member after the one that is down answers"),
            [opened(one), down, opened(one.member(4))].concat(),
            one.member(4).answered(one.answer()),
            goes(one.heard(one.answer())),
        ),
    ]
}

/// LEAST_CONNECTIONS counts flows that end.
fn idle(family: Family) -> Vec<Row> {
    let nth = |n: u16, member: u8| flow(family, TCP, LEAST).sport(40000 + n).member(member);
    let four: Vec<Step> =
        [nth(0, 3), nth(1, 2), nth(2, 3), nth(3, 1)].into_iter().flat_map(opened).collect();
    let reset = |flow: Flow| sent(flow.sent(say("R")));
    vec![
        opens(
            format!("{family:?} least connections: member 2 is idle again"),
            [four.clone(), vec![reset(nth(1, 2))]].concat(),
            nth(4, 2),
        ),
        opens(
            format!("{family:?} least connections: member 1 is idle again"),
            [four, vec![reset(nth(3, 1))]].concat(),
            nth(4, 1),
        ),
    ]
}

fn reselected(family: Family) -> Vec<Row> {
    let down = vec![Step::Member(ONE, 1, 0, 1), Step::Ring(ONE, &[4])];
    let nobody = vec![Step::Member(ONE, 1, 0, 1), Step::Ring(ONE, &[])];
    let of = |proto| flow(family, proto, ONE);
    let (tcp, udp, sctp) = (of(TCP), of(UDP), of(SCTP));
    let data = say("PA").data(b"data");
    vec![
        row(
            format!("{family:?} tcp, established, its member down"),
            [established(tcp), down.clone()].concat(),
            tcp.sent(data.clone()),
            goes(tcp.taken(data)),
        ),
        opens(
            format!("{family:?} tcp SYN again after SYN+ACK, its member down"),
            [answered(tcp), down.clone()].concat(),
            tcp.member(4),
        ),
        row(
            format!("{family:?} udp, established, its member down"),
            [established(udp), down.clone()].concat(),
            udp.sent(udp.confirmation()),
            goes(udp.member(4).taken(udp.confirmation())),
        ),
        row(
            format!("{family:?} sctp, established, its member down"),
            [established(sctp), down].concat(),
            sctp.sent(sctp.confirmation()),
            goes(sctp.taken(sctp.confirmation())),
        ),
        row(
            format!("{family:?} tcp SYN again, nobody is left"),
            [opened(tcp), nobody].concat(),
            tcp.sent(say("S")),
            Want::Answer(super::refused::reset(tcp, tcp.sent(say("S")), "RA", 0, 1001)),
        ),
        opens(
            format!("{family:?} tcp SYN again, nobody takes new flows"),
            [opened(tcp), vec![Step::Ring(ONE, &[])]].concat(),
            tcp,
        ),
        row(
            format!("{family:?} tcp SYN of the member on a known flow"),
            opened(tcp),
            tcp.answered(say("S")),
            goes(tcp.heard(say("S"))),
        ),
        row(
            format!("{family:?} tcp late ACK from a member that is not known"),
            [],
            tcp.answered(say("A")),
            Want::Pass(Reason::NoListener),
        ),
    ]
}
