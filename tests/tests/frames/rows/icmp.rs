//! ICMP errors, translated both ways; and ICMP that is none of ours.

use super::super::frame::{Body, Frame, SCTP, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Want, goes, row};
use super::established;
use xdp_lb_ebpf::Reason;

/// Kind, code and the rest of the header.
type Error = (&'static str, u8, u8, [u8; 4]);

const ERRORS4: [Error; 7] = [
    ("host unreachable", 3, 1, [0; 4]),
    ("port unreachable", 3, 3, [0; 4]),
    ("fragmentation needed", 3, 4, [0, 0, 0x05, 0x00]),
    ("prohibited", 3, 13, [0; 4]),
    ("time exceeded", 11, 0, [0; 4]),
    ("reassembly time exceeded", 11, 1, [0; 4]),
    ("parameter problem", 12, 0, [20, 0, 0, 0]),
];
const ERRORS6: [Error; 5] = [
    ("no route", 1, 0, [0; 4]),
    ("port unreachable", 1, 4, [0; 4]),
    ("too big", 2, 0, [0, 0, 0x05, 0x00]),
    ("time exceeded", 3, 0, [0; 4]),
    ("parameter problem", 4, 1, [0, 0, 0, 40]),
];

fn errors(family: Family) -> &'static [Error] {
    match family {
        V4 => &ERRORS4,
        V6 => &ERRORS6,
    }
}

fn header(family: Family) -> usize {
    match family {
        V4 => 20,
        V6 => 40,
    }
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        let tcp = flow(family, TCP, ONE);
        let data = say("PA").data(&[0x41; 101]);
        for (what, kind, code, rest) in errors(family) {
            let name = format!("{family:?} {what} about");
            rows.extend(both(&name, tcp, (*kind, *code, *rest), data.clone(), 8));
        }
        let big = if family == V4 { ERRORS4[2] } else { ERRORS6[2] };
        let (_, kind, code, rest) = big;
        let quotes = [
            ("tcp, checksum and all,", TCP, data.clone(), 20),
            ("tcp, up to its checksum,", TCP, data.clone(), 18),
            ("tcp, half its checksum,", TCP, data.clone(), 17),
            ("tcp, its sequence and no more,", TCP, data.clone(), 12),
            ("tcp, whole,", TCP, data.clone(), 121),
            ("tcp with options,", TCP, say("A").options(&[1, 1, 1, 0]).data(b"data"), 28),
            ("udp", UDP, say("").data(b"question"), 8),
            ("udp, whole,", UDP, say("").data(b"question"), 16),
            ("sctp", SCTP, say("").data(&[0, 3, 0, 4]), 8),
        ];
        for (what, proto, message, length) in quotes {
            let name = format!("{family:?} too big, about {what}");
            let flow = flow(family, proto, ONE);
            rows.extend(both(&name, flow, (kind, code, rest), message, length));
        }
        if family == V4 {
            let message = say("").data(b"unchecked").unchecked();
            let flow = flow(family, UDP, ONE);
            let name = "V4 too big, about udp without a checksum,";
            rows.extend(both(name, flow, (kind, code, rest), message, 8));
        }
        for (what, flow) in [
            ("a flow of the second VIP", tcp.vip(11)),
            ("a flow on one arm", flow(family, TCP, ONE_ARM)),
        ] {
            let name = format!("{family:?} too big, about {what}");
            rows.extend(both(&name, flow, (kind, code, rest), data.clone(), 20));
        }
        rows.extend(not_ours(family, (kind, code, rest)));
    }
    rows
}

/// An error from the member's side and one from the client's, quoting `length` bytes of a transport
/// header and what follows.
fn both(
    name: &str,
    flow: Flow,
    (kind, code, rest): (u8, u8, [u8; 4]),
    message: super::super::frame::Message,
    length: usize,
) -> [Row; 2] {
    let quote = |frame: Frame| {
        let mut ip = frame.ttl(33).ip();
        ip.truncate(header(flow.family) + length);
        ip
    };
    let (sent, taken) = (quote(flow.sent(message.clone())), quote(flow.taken(message.clone())));
    let (answered, heard) = (quote(flow.answered(message.clone())), quote(flow.heard(message)));
    // One byte of a checksum cannot be mended.
    let torn = |mut mended: Vec<u8>, quoted: &[u8]| {
        if flow.proto == TCP && length == 17 {
            let last = mended.len() - 1;
            mended[last] = quoted[last];
        }
        mended
    };
    let (sent, answered) = (torn(sent, &taken), torn(answered, &heard));
    [
        row(
            format!("{name} to the client"),
            established(flow),
            flow.error_from_members(kind, code, rest, taken),
            goes(flow.error_heard(kind, code, rest, sent)),
        ),
        row(
            format!("{name} to the member"),
            established(flow),
            flow.error_from_clients(kind, code, rest, heard),
            goes(flow.error_taken(kind, code, rest, answered)),
        ),
    ]
}

/// Passed to the kernel.
fn not_ours(family: Family, (kind, code, rest): (u8, u8, [u8; 4])) -> Vec<Row> {
    let tcp = flow(family, TCP, ONE);
    let head = header(family);
    let taken = |flow: Flow, length: usize| flow.taken(say("A")).ip()[..head + length].to_vec();
    let about = |quoted: Vec<u8>| tcp.error_from_members(kind, code, rest, quoted);
    let is = |kind: u8, code: u8, data: &[u8]| {
        let body = Body::Icmp { kind, code, rest: [0, 1, 0, 2], quoted: data.to_vec() };
        tcp.sent(say("")).with(body)
    };
    let mut vrrp = taken(tcp, 8);
    vrrp[if family == V4 { 9 } else { 6 }] = 112;
    let (request, reply) = if family == V4 { (8, 0) } else { (128, 129) };
    let mut cases = vec![
        ("an error about a flow that is not known", about(taken(tcp.sport(41000), 8))),
        ("an error about VRRP", about(vrrp)),
        ("an error that quotes seven bytes", about(taken(tcp, 7))),
        ("an error that quotes a header only", about(taken(tcp, 0))),
        ("an error that quotes half a header", about(taken(tcp, 0)[..head / 2].to_vec())),
        ("an error that quotes nothing", about(vec![])),
        ("echo request", is(request, 0, b"ping")),
        ("echo reply", is(reply, 0, b"ping")),
        ("a type nobody knows", is(200, 0, &taken(tcp, 8))),
        // About what the client sent, to the member: nobody translated that.
        (
            "an error about the client's own frame",
            about(tcp.sent(say("A")).ip()[..head + 8].into()),
        ),
    ];
    if family == V4 {
        let mut options = taken(tcp, 12);
        options[0] = 0x46;
        cases.push(("an error that quotes options", about(options)));
        let mut piece = taken(tcp, 8);
        piece[6..8].copy_from_slice(&[0, 100]);
        cases.push(("an error that quotes a later fragment", about(piece)));
        cases.push(("redirect", is(5, 1, &taken(tcp, 8))));
        cases.push(("timestamp", is(13, 0, &[0; 12])));
    } else {
        for (what, kind) in [
            ("router solicitation", 133),
            ("router advertisement", 134),
            ("neighbour solicitation", 135),
            ("neighbour advertisement", 136),
            ("multicast listener report", 143),
        ] {
            cases.push((what, is(kind, 0, &[0; 16])));
        }
    }
    let mut rows: Vec<Row> = cases
        .into_iter()
        .map(|(what, frame)| {
            row(
                format!("{family:?} icmp: {what}"),
                established(tcp),
                frame,
                Want::Pass(Reason::Icmp),
            )
        })
        .collect();
    rows.push(row(
        format!("{family:?} icmp: an error with TTL 1"),
        established(tcp),
        about(taken(tcp, 8)).ttl(1),
        Want::Drop(Reason::HopLimit),
    ));
    let padded = |frame: Frame| (frame.by, [frame.bytes(), vec![0; 9]].concat());
    let sent = tcp.sent(say("A")).ttl(63).ip()[..head + 8].to_vec();
    rows.push(row(
        format!("{family:?} icmp: an error with padding behind it"),
        established(tcp),
        padded(about(taken(tcp, 8))),
        goes(padded(tcp.error_heard(kind, code, rest, sent))),
    ));
    rows
}
