//! Lengths and versions that cannot be.

use super::super::frame::{SCTP, TCP, UDP, say};
use super::super::world::*;
use super::super::{Row, Want, row};
use super::established;
use xdp_lb_ebpf::Reason;

/// Where IP and transport headers begin.
const IP: usize = 14;

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        let transport = if family == V4 { 34 } else { 54 };
        let tcp = flow(family, TCP, ONE);
        let udp = flow(family, UDP, ONE);
        let segment = tcp.sent(say("A").data(b"data")).bytes();
        let datagram = udp.sent(udp.opening()).bytes();
        let mut bad = |what: &str, flow: Flow, bytes: &[u8], at: usize, value: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[at..at + value.len()].copy_from_slice(value);
            let name = format!("{family:?} {what}");
            let want = Want::Pass(Reason::BadLength);
            rows.push(row(name, established(flow), (WAN, bytes), want));
        };
        for offset in 0..5u8 {
            bad(
                &format!("tcp header of {offset} words"),
                tcp,
                &segment,
                transport + 12,
                &[offset << 4],
            );
        }
        bad("tcp header beyond the segment", tcp, &segment, transport + 12, &[7 << 4]);
        bad("tcp header of 60 bytes", tcp, &segment, transport + 12, &[15 << 4]);
        for length in [0u16, 1, 7, 17, 0xffff] {
            let what = format!("udp length of {length}");
            bad(&what, udp, &datagram, transport + 4, &length.to_be_bytes());
        }
        let total = |length: u16| length.to_be_bytes();
        if family == V4 {
            for version in [0x00, 0x15, 0x35, 0x44, 0x40, 0x55, 0x60, 0x65, 0xf5] {
                bad(&format!("version and length {version:#x}"), tcp, &segment, IP, &[version]);
            }
            for length in [0, 19, 20, 39, 45, 1500, 0xffff] {
                bad(&format!("total length of {length}"), tcp, &segment, IP + 2, &total(length));
            }
            for length in [20, 27, 37] {
                let what = format!("total length of {length}, udp");
                bad(&what, udp, &datagram, IP + 2, &total(length));
            }
        } else {
            for version in [0x00, 0x40, 0x45, 0x50, 0x70, 0xf0] {
                bad(&format!("version {version:#x}"), tcp, &segment, IP, &[version]);
            }
            for length in [0, 19, 25, 1500, 0xffff] {
                bad(&format!("payload length of {length}"), tcp, &segment, IP + 4, &total(length));
            }
            for length in [0, 7, 15, 17] {
                let what = format!("payload length of {length}, udp");
                bad(&what, udp, &datagram, IP + 4, &total(length));
            }
            let one = flow(V6, SCTP, ONE);
            let mut atomic = one.sent(one.opening()).piece(1, 0..16);
            bad("sctp fragment shorter than its header", one, &atomic.clone(), IP + 4, &total(7));
            atomic.truncate(14 + 40 + 8);
            bad("fragment header and nothing else", one, &atomic, IP + 4, &total(9));
        }
        let sctp = flow(family, SCTP, ONE);
        let bytes = sctp.sent(sctp.opening()).bytes();
        let (at, short) = if family == V4 { (IP + 2, 31) } else { (IP + 4, 11) };
        bad("sctp shorter than its header", sctp, &bytes, at, &total(short));
    }
    rows
}
