//! What a client hears when nobody can serve it.

use super::super::frame::{Body, FRAGMENT, Frame, SCTP, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Want, row};
use xdp_lb_ebpf::Reason;

/// The RST that answers `frame`.
pub fn reset(flow: Flow, frame: Frame, flags: &'static str, seq: u32, ack: u32) -> Frame {
    let mut message = say(flags).seq(seq);
    (message.ack, message.window) = (ack, 0);
    turned(frame, 64).with(message.body(TCP, flow.port, flow.sport))
}

/// The ICMP error that answers it.
fn unreachable(frame: Frame) -> Frame {
    let (proto, quoted) = (frame.proto(), frame.ip());
    let (kind, code, rest, header) = match (frame.src.is_ipv4(), proto) {
        (true, SCTP) => (3, 2, [0; 4], 20),
        (true, _) => (3, 3, [0; 4], 20),
        (false, SCTP) => (4, 1, [0, 0, 0, 6], 40),
        (false, _) => (1, 4, [0; 4], 40),
    };
    let quoted = quoted[..header + 8].to_vec();
    turned(frame, 64).with(Body::Icmp { kind, code, rest, quoted })
}

fn turned(frame: Frame, ttl: u8) -> Frame {
    Frame { from: frame.to, to: frame.from, src: frame.dst, dst: frame.src, ttl, ..frame }
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        let tcp = flow(family, TCP, NOBODY);
        for (what, message, flags, seq, ack) in [
            ("SYN", say("S"), "RA", 0, 1001),
            ("SYN with data", say("S").data(b"early"), "RA", 0, 1006),
            ("SYN with options", say("S").options(&[2, 4, 5, 0xb4]), "RA", 0, 1001),
            ("last SYN before the sequence wraps", say("S").seq(u32::MAX), "RA", 0, 0),
            ("ACK", say("A"), "R", 5000, 0),
            ("ACK with data", say("PA").data(b"data"), "R", 5000, 0),
            ("FIN with data", say("F").data(b"data"), "RA", 0, 1005),
            ("FIN+ACK with data", say("FA").data(b"data"), "R", 5000, 0),
            ("no flag at all", say("").data(b"data"), "RA", 0, 1004),
            ("SYN, its TTL at its end", say("S").ttl(1), "RA", 0, 1001),
            ("data of full size", say("A").data(&[7; 1400]), "R", 5000, 0),
        ] {
            let frame = tcp.sent(message);
            let answer = Want::Answer(reset(tcp, frame.clone(), flags, seq, ack));
            rows.push(row(format!("{family:?} tcp to nobody: {what}"), [], frame, answer));
        }
        for (what, flags) in [("RST", "R"), ("RST+ACK", "RA"), ("SYN+ACK", "SA")] {
            let frame = tcp.sent(say(flags));
            let name = format!("{family:?} tcp to nobody: {what}");
            rows.push(row(name, [], frame, Want::Drop(Reason::NotAnOpening)));
        }
        let padded = tcp.sent(say("S"));
        let bytes = [padded.bytes(), vec![0; 6]].concat();
        let answer = Want::Answer(reset(tcp, padded, "RA", 0, 1001));
        let name = format!("{family:?} tcp to nobody: SYN with padding behind it");
        rows.push(row(name, [], (WAN, bytes), answer));

        for (name, proto) in [("udp", UDP), ("sctp", SCTP)] {
            let to = flow(family, proto, NOBODY);
            for (what, data) in
                [("nothing", &[][..]), ("a few bytes", b"question"), ("a lot", &[9; 1400])]
            {
                let frame = to.sent(say("").data(data));
                let answer = Want::Answer(unreachable(frame.clone()));
                rows.push(row(format!("{family:?} {name} to nobody: {what}"), [], frame, answer));
            }
            let frame = to.sent(say("").data(b"x"));
            let bytes = [frame.bytes(), vec![0; 17]].concat();
            let name = format!("{family:?} {name} to nobody, with padding behind it");
            rows.push(row(name, [], (WAN, bytes), Want::Answer(unreachable(frame))));
        }
    }
    let to = flow(V6, UDP, NOBODY);
    assert_eq!(FRAGMENT, 44);
    rows.push(row(
        "V6 udp to nobody, an atomic fragment",
        [],
        (WAN, to.sent(to.opening()).piece(5, 0..16)),
        Want::Drop(Reason::NoMember),
    ));
    rows
}
