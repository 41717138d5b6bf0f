//! Frames that end early, at every byte.

use super::super::frame::{Frame, SCTP, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Want, row};
use super::established;
use xdp_lb_ebpf::Reason;

/// A frame of this length is the shortest a test run in the kernel takes.
const ETHERNET: usize = 14;

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        let tcp = flow(family, TCP, ONE);
        let quoted = tcp.taken(say("A")).ip();
        for (name, flow, frame) in [
            ("tcp", tcp, tcp.sent(say("PA").data(b"data"))),
            ("tcp answer", tcp, tcp.answered(say("PA").data(b"data"))),
            ("udp", flow(family, UDP, ONE), flow(family, UDP, ONE).sent(say("").data(b"data"))),
            ("sctp", flow(family, SCTP, ONE), flow(family, SCTP, ONE).sent(say("").data(b"data"))),
            (
                "icmp error",
                tcp,
                tcp.error_from_members(if family == V4 { 3 } else { 1 }, 1, [0; 4], quoted),
            ),
        ] {
            rows.extend(cut(&format!("{family:?} {name}"), flow, &frame));
            rows.extend(shortened(&format!("{family:?} {name}"), flow, &frame));
        }
    }
    rows
}

fn headers(frame: &Frame) -> usize {
    ETHERNET + if frame.src.is_ipv4() { 20 } else { 40 }
}

/// The wire lost the end: the IP header promises more than there is.
fn cut(name: &str, flow: Flow, frame: &Frame) -> Vec<Row> {
    let bytes = frame.bytes();
    (ETHERNET..bytes.len())
        .map(|length| {
            let reason =
                if length < headers(frame) { Reason::Truncated } else { Reason::BadLength };
            let bytes = bytes[..length].to_vec();
            let name = format!("{name} cut at {length}");
            row(name, established(flow), (frame.by, bytes), Want::Pass(reason))
        })
        .collect()
}

/// The IP header promises no more than there is, but the transport header needs more.
fn shortened(name: &str, flow: Flow, frame: &Frame) -> Vec<Row> {
    let bytes = frame.bytes();
    let (start, v4) = (headers(frame), frame.src.is_ipv4());
    let needed = match frame.proto() {
        TCP => 20,
        UDP => 8,
        SCTP => 12,
        _ => 8,
    };
    (0..needed)
        .map(|length: usize| {
            let mut bytes = bytes[..start + length].to_vec();
            if v4 {
                bytes[16..18].copy_from_slice(&(20 + length as u16).to_be_bytes());
            } else {
                bytes[18..20].copy_from_slice(&(length as u16).to_be_bytes());
            }
            let name = format!("{name} of {length} bytes behind the IP header");
            row(name, established(flow), (frame.by, bytes), Want::Pass(Reason::Truncated))
        })
        .collect()
}
