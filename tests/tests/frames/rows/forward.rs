//! There and back.

use super::super::frame::{Frame, Message, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Want, goes, row, sent};
use super::{each, established, opened};
use xdp_lb_ebpf::Reason;

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (family, name, proto) in each() {
        let one = flow(family, proto, ONE);
        let named = |what: &str| format!("{family:?} {name} {what}");
        let (opening, answer, more) = (one.opening(), one.answer(), one.confirmation());
        let there = |flow: Flow| (flow.sent(opening.clone()), goes(flow.taken(opening.clone())));
        let back = |flow: Flow| (flow.answered(answer.clone()), goes(flow.heard(answer.clone())));
        let (arm, same) = (flow(family, proto, ONE_ARM), flow(family, proto, SAME_PORT));
        for (what, flow) in [
            ("", one),
            ("at the second VIP", one.vip(11)),
            ("to a member on the client's side", arm),
            ("with the member's port the listener's", same),
        ] {
            let (frame, want) = there(flow);
            rows.push(row(named(&format!("opens {what}")), [], frame, want));
            let (frame, want) = back(flow);
            rows.push(row(named(&format!("is answered {what}")), opened(flow), frame, want));
        }
        rows.extend([
            row(
                named("goes on"),
                established(one),
                one.sent(more.clone()),
                goes(one.taken(more.clone())),
            ),
            row(
                named("is answered once more"),
                established(one),
                one.answered(answer.clone()),
                goes(one.heard(answer.clone())),
            ),
            row(
                named("with TTL 2"),
                [],
                one.sent(opening.clone().ttl(2)),
                goes(one.taken(opening.clone().ttl(2))),
            ),
            row(
                named("with TTL 1"),
                [],
                one.sent(opening.clone().ttl(1)),
                Want::Drop(Reason::HopLimit),
            ),
            row(
                named("with TTL 0"),
                established(one),
                one.sent(more.clone().ttl(0)),
                Want::Drop(Reason::HopLimit),
            ),
            row(
                named("with TTL 255"),
                [],
                one.sent(opening.clone().ttl(255)),
                goes(one.taken(opening.clone().ttl(255))),
            ),
            row(
                named("is answered with TTL 1"),
                opened(one),
                one.answered(answer.clone().ttl(1)),
                Want::Drop(Reason::HopLimit),
            ),
            row(
                named("behind another router than before"),
                [established(one), vec![sent(one.client_mac(OTHER_ROUTER).sent(more.clone()))]]
                    .concat(),
                one.answered(answer.clone()),
                goes(one.client_mac(OTHER_ROUTER).heard(answer.clone())),
            ),
            row(
                named("by another interface than before"),
                [established(one), vec![sent(moved(one.sent(more.clone())))]].concat(),
                one.answered(answer.clone()),
                goes(Frame { by: LAN, from: LAN_MAC, ..one.heard(answer.clone()) }),
            ),
            row(
                named("to a member whose next hop is not known"),
                [],
                flow(family, proto, LOST).sent(opening.clone()),
                Want::Drop(Reason::NoNextHop),
            ),
            row(
                named("to a member whose interface is gone"),
                [],
                flow(family, proto, CUT_OFF).sent(opening.clone()),
                Want::Drop(Reason::EgressGone),
            ),
            row(
                named("is answered, but the client's interface is gone"),
                [sent(Frame { by: 1, ..one.sent(opening.clone()) })],
                one.answered(answer.clone()),
                Want::Drop(Reason::EgressGone),
            ),
            row(
                named("is answered by the wrong member"),
                opened(one),
                one.member(2).answered(answer.clone()),
                Want::Pass(Reason::NoListener),
            ),
        ]);
    }
    for family in FAMILIES {
        rows.extend(tcp(family));
        rows.extend(udp(family));
        rows.extend([TCP, UDP].into_iter().map(|proto| partial(family, proto)));
    }
    rows
}

fn moved(frame: Frame) -> Frame {
    Frame { by: LAN, to: LAN_MAC, ..frame }
}

fn tcp(family: Family) -> Vec<Row> {
    let one = flow(family, TCP, ONE);
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let both = |what: &str, message: Message| {
        [
            row(
                format!("{family:?} tcp {what}"),
                established(one),
                one.sent(message.clone()),
                goes(one.taken(message.clone())),
            ),
            row(
                format!("{family:?} tcp {what}, from the member"),
                established(one),
                one.answered(message.clone()),
                goes(one.heard(message)),
            ),
        ]
    };
    let mut rows = [
        both("with data", say("PA").data(b"GET / HTTP/1.1\r\n\r\n")),
        both("with an odd byte", say("A").data(b"odd")),
        both("with options", say("A").options(&timestamps).data(b"data")),
        both("of full size", say("A").data(&[0x5a; 1440])),
        both("finishes", say("FA")),
        both("resets", say("R")),
        both("urgent bytes of zeros", say("A").data(&[0; 64])),
    ]
    .concat_rows();
    rows.extend([
        row(
            format!("{family:?} tcp picked up in the middle"),
            [],
            one.sent(say("A").data(b"still here")),
            goes(one.taken(say("A").data(b"still here"))),
        ),
        row(
            format!("{family:?} tcp FIN picked up"),
            [],
            one.sent(say("FA")),
            goes(one.taken(say("FA"))),
        ),
        row(
            format!("{family:?} tcp SYN on an established connection"),
            established(one),
            one.sent(say("S").seq(77)),
            goes(one.taken(say("S").seq(77))),
        ),
        row(
            format!("{family:?} tcp RST without a connection"),
            [],
            one.sent(say("R")),
            Want::Drop(Reason::NotAnOpening),
        ),
        row(
            format!("{family:?} tcp SYN+ACK without a connection"),
            [],
            one.sent(say("SA")),
            Want::Drop(Reason::NotAnOpening),
        ),
        row(
            format!("{family:?} tcp last ACK after both FINs"),
            [established(one), vec![sent(one.sent(say("FA"))), sent(one.answered(say("FA")))]]
                .concat(),
            one.sent(say("A").seq(1001)),
            goes(one.taken(say("A").seq(1001))),
        ),
    ]);
    rows
}

trait Concat {
    fn concat_rows(self) -> Vec<Row>;
}
impl<const N: usize> Concat for [[Row; 2]; N] {
    fn concat_rows(self) -> Vec<Row> {
        self.into_iter().flatten().collect()
    }
}

fn udp(family: Family) -> Vec<Row> {
    let one = flow(family, UDP, ONE);
    let zeroed = |there: fn(&Flow, Message) -> Frame| {
        let checks = (0..=u16::MAX).map(|n| say("").data(&n.to_be_bytes()));
        let mut fit =
            checks.filter(|message| there(&one, message.clone()).body()[6..8] == [0xff; 2]);
        fit.next().expect("one in 65536")
    };
    let (to_member, to_client) = (zeroed(Flow::taken), zeroed(Flow::heard));
    let padded = |frame: Frame| {
        let mut bytes = frame.bytes();
        bytes.extend([0xee; 18]);
        (frame.by, bytes)
    };
    let mut rows = vec![
        row(
            format!("{family:?} udp without data"),
            [],
            one.sent(say("")),
            goes(one.taken(say(""))),
        ),
        row(
            format!("{family:?} udp, a checksum of zero is sent as ones"),
            [],
            one.sent(to_member.clone()),
            goes(one.taken(to_member)),
        ),
        row(
            format!("{family:?} udp answer, a checksum of zero is sent as ones"),
            opened(one),
            one.answered(to_client.clone()),
            goes(one.heard(to_client)),
        ),
        row(
            format!("{family:?} udp with padding behind it"),
            [],
            padded(one.sent(say("").data(b"x"))),
            goes(padded(one.taken(say("").data(b"x")))),
        ),
        row(
            format!("{family:?} udp answer with padding behind it"),
            opened(one),
            padded(one.answered(say("").data(b"x"))),
            goes(padded(one.heard(say("").data(b"x")))),
        ),
    ];
    if family == V4 {
        let without = say("").data(b"unchecked").unchecked();
        rows.extend([
            row(
                "V4 udp without a checksum",
                [],
                one.sent(without.clone()),
                goes(one.taken(without.clone())),
            ),
            row(
                "V4 udp answer without a checksum",
                opened(one),
                one.answered(without.clone()),
                goes(one.heard(without)),
            ),
        ]);
    }
    rows
}

/// A sender that leaves the checksum to hardware writes the sum of the pseudo header. What becomes of
/// it follows RFC 1624 and is of no use to anybody; the counter says so.
fn partial(family: Family, proto: u8) -> Row {
    let one = flow(family, proto, ONE);
    let (from, to) = (one.sent(one.opening()), one.taken(one.opening()));
    let (addresses, check_at) = match family {
        V4 => (26..34, 34 + if proto == TCP { 16 } else { 6 }),
        V6 => (22..54, 54 + if proto == TCP { 16 } else { 6 }),
    };
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum()
    };
    let fold = |mut sum: u32| {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    };
    let (mut before, mut after) = (from.bytes(), to.bytes());
    let ports = addresses.end..addresses.end + 4;
    let length = from.body().len() as u32;
    let sum = fold(words(&before[addresses.clone()]) + u32::from(proto) + length);
    before[check_at..check_at + 2].copy_from_slice(&sum.to_be_bytes());
    let changed = |bytes: &[u8]| words(&bytes[addresses.clone()]) + words(&bytes[ports.clone()]);
    let new = fold(u32::from(!sum) + changed(&after) + u32::from(!fold(changed(&before))));
    after[check_at..check_at + 2].copy_from_slice(&(!new).to_be_bytes());
    row(
        format!("{family:?} {proto} with a partial checksum"),
        [],
        (from.by, before),
        Want::Counted(Reason::PartialChecksum, (to.by, after).into()),
    )
}
