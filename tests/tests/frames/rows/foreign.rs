//! Frames for someone else: on to the kernel, untouched.

use super::super::frame::{Body, Frame, TCP, ethernet, say};
use super::super::world::*;
use super::super::{Row, Want, row};
use super::{each, established};
use xdp_lb_ebpf::Reason;

const BROADCAST: [u8; 6] = [0xff; 6];

pub fn rows() -> Vec<Row> {
    let one = flow(V4, TCP, ONE);
    let datagram = one.sent(say("S")).ip();
    let tag = [&[0x00, 0x64, 0x08, 0x00][..], &datagram].concat();
    let two_tags = [&[0x00, 0x64, 0x81, 0x00, 0x00, 0x65, 0x08, 0x00][..], &datagram].concat();
    // Who has 198.51.1.10, says its router.
    let arp =
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &ROUTER, &[198, 51, 1, 254], &[0; 6], &[198, 51, 1, 10]]
            .concat();
    let mut rows = vec![];
    for (what, kind, payload, reason) in [
        ("ARP", 0x0806, &arp, Reason::NotIp),
        ("LLDP", 0x88cc, &vec![2, 7, 4, 1, 2, 3], Reason::NotIp),
        ("MPLS", 0x8847, &datagram, Reason::NotIp),
        ("802.3 with a length", 0x0026, &vec![0x42; 38], Reason::NotIp),
        ("a VLAN", 0x8100, &tag, Reason::Vlan),
        ("a VLAN in a VLAN", 0x88a8, &two_tags, Reason::Vlan),
    ] {
        let bytes = ethernet(ROUTER, BROADCAST, kind, payload);
        rows.push(row(what, [], (WAN, bytes), Want::Pass(reason)));
    }
    for (family, name, proto) in each() {
        let named = |what: &str| format!("{family:?} {name} {what}");
        let unknown = flow(family, proto, UNKNOWN);
        let one = flow(family, proto, ONE);
        let to_us = Frame { dst: family.source(), ..one.sent(one.opening()) };
        let through = Frame { dst: family.stranger(1), ..one.sent(one.opening()) };
        rows.extend(
            [
                (named("to a port without a listener"), vec![], unknown.sent(unknown.opening())),
                (named("to our own address"), vec![], to_us),
                (named("to someone behind us"), vec![], through),
                (
                    named("to our own address from a member"),
                    established(one),
                    one.sport(50000).answered(one.answer()),
                ),
                (
                    named("from an address that answers nothing"),
                    established(one),
                    Frame { src: family.stranger(1), ..one.answered(one.answer()) },
                ),
            ]
            .map(|(name, before, frame)| row(name, before, frame, Want::Pass(Reason::NoListener))),
        );
        // A switch floods: the other amphora has the VIP.
        let middle = if proto == TCP { say("A").data(b"more") } else { one.opening() };
        for (what, to, message) in [
            ("to another machine", member_mac(1), one.opening()),
            ("in mid-stream to another machine", member_mac(1), middle),
            ("to all machines", BROADCAST, one.opening()),
        ] {
            let frame = Frame { to, ..one.sent(message) };
            rows.push(row(named(what), [], frame, Want::Pass(Reason::OtherHost)));
        }
        rows.push(row(
            named("to nobody's listener and another machine"),
            [],
            Frame { to: member_mac(1), ..unknown.sent(unknown.opening()) },
            Want::Pass(Reason::NoListener),
        ));
    }
    for family in FAMILIES {
        let frame = flow(family, TCP, ONE).sent(say("S"));
        for (what, proto) in [
            ("IGMP", 2),
            ("GRE", 47),
            ("ESP", 50),
            ("no next header", 59),
            ("VRRP", 112),
            ("UDP-Lite", 136),
        ] {
            let body = Body::Other { proto, data: vec![0x31; 24] };
            let name = format!("{family:?} {what}");
            rows.push(row(name, [], frame.clone().with(body), Want::Pass(Reason::OtherProtocol)));
        }
    }
    for (_, name, proto) in each().filter(|(family, ..)| *family == V4) {
        let one = flow(V4, proto, ONE);
        let frame = one.sent(one.opening());
        for (what, options) in [
            ("one option", &[1, 1, 1, 0][..]),
            ("router alert", &[148, 4, 0, 0]),
            ("40 bytes", &[1; 40]),
        ] {
            let bytes = frame.with_options(options);
            let want = Want::Pass(Reason::IpOptions);
            rows.push(row(format!("V4 {name} with {what}"), established(one), (WAN, bytes), want));
        }
    }
    for (_, name, proto) in each().filter(|(family, ..)| *family == V6) {
        let one = flow(V6, proto, ONE);
        let frame = one.sent(one.opening());
        for (what, kind) in [
            ("hop-by-hop options", 0),
            ("routing", 43),
            ("authentication", 51),
            ("destination options", 60),
            ("mobility", 135),
        ] {
            let bytes = frame.with_extension(kind);
            let want = Want::Pass(Reason::ExtensionHeader);
            rows.push(row(
                format!("V6 {name} behind {what}"),
                established(one),
                (WAN, bytes),
                want,
            ));
        }
    }
    rows
}
