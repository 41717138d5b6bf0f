//! The tables of frames, on the host; and what holds for any frame.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod frames;
#[path = "frames/host.rs"]
mod host;

use frames::frame::{Message, SCTP, TCP, UDP, checksums_are_right, say};
use frames::world::{
    BY_IP, BY_PORT, FAMILIES, Flow, LAN, Machine, ONE, Outcome, ROUND, Verdict, WAN, build, flow,
};
use host::Host;
use proptest::prelude::*;

#[test]
fn host_rows() {
    frames::run(frames::rows::all(), &mut Host::new());
}

fn host() -> Host {
    let mut host = Host::new();
    build(&mut host);
    host
}

fn flows() -> impl Strategy<Value = Flow> {
    let (family, proto) =
        (prop::sample::select(&FAMILIES[..]), prop::sample::select(&[TCP, UDP, SCTP][..]));
    (family, proto, 1u8.., 1u16.., 10u8..12).prop_map(|(family, proto, client, sport, vip)| {
        flow(family, proto, ONE).client(client).sport(sport).vip(vip)
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let flags = prop::sample::select(&["S", "A", "PA", "FA"][..]);
    let data = prop::collection::vec(any::<u8>(), 0..1400);
    (flags, any::<u32>(), data, 2u8..)
        .prop_map(|(flags, seq, data, ttl)| say(flags).seq(seq).data(&data).ttl(ttl))
}

/// A frame that nobody is meant to get is as it was.
fn left_alone(got: &Outcome, sent: &[u8]) -> bool {
    matches!(got.verdict, Verdict::Tx | Verdict::Redirect(_)) || got.frame == sent
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn host_any_bytes(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in prop::sample::select(&[[0x08, 0x00], [0x86, 0xdd]][..]),
        version in any::<bool>(),
    ) {
        if bytes.len() > 14 {
            bytes[12..14].copy_from_slice(&kind);
            if version {
                bytes[14] = if kind == [0x08, 0x00] { 0x45 } else { 0x60 };
            }
        }
        let got = host().send(WAN, &bytes);
        prop_assert!(left_alone(&got, &bytes), "{:?}", got);
    }

    #[test]
    fn host_nearly_right_bytes(
        flow in flows(),
        message in messages(),
        changes in prop::collection::vec((0usize..80, any::<u8>()), 0..4),
        length in 0usize..200,
        back in any::<bool>(),
    ) {
        let mut host = host();
        prop_assert_eq!(host.send(WAN, &flow.sent(flow.opening()).bytes()).reasons, vec![]);
        let frame = if back { flow.answered(message) } else { flow.sent(message) };
        let mut bytes = frame.bytes();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(length.max(1));
        let got = host.send(frame.by, &bytes);
        prop_assert!(left_alone(&got, &bytes), "{:?}", got);
    }

    /// What the member gets and what the client hears are as etherparse builds them, whatever source
    /// port it was.
    #[test]
    fn host_there_and_back(flow in flows(), there in messages(), back in messages()) {
        let mut host = host();
        let got = host.send(WAN, &flow.sent(there.clone()).bytes());
        let transport = if flow.client.is_ipv4() { 34 } else { 54 };
        let port = u16::from_be_bytes([got.frame[transport], got.frame[transport + 1]]);
        let flow = flow.source_port(port);
        prop_assert_eq!(got.verdict, Verdict::Redirect(LAN));
        prop_assert_eq!(&got.frame, &flow.taken(there).bytes());
        prop_assert!(checksums_are_right(&got.frame));

        let got = host.send(LAN, &flow.answered(back.clone()).bytes());
        prop_assert_eq!(got.verdict, Verdict::Redirect(WAN));
        prop_assert_eq!(&got.frame, &flow.heard(back).bytes());
        prop_assert!(checksums_are_right(&got.frame));
    }

    /// A connection goes on where the VIP moves to: the other amphora of a pair has its own seeds
    /// and its own past, and sends the middle of it to the same member from the same port.
    #[test]
    fn host_the_other_amphora(
        flow in flows(),
        port in prop::sample::select(&[BY_IP, BY_PORT][..]),
        seeds in any::<[u64; 2]>(),
        past in prop::collection::vec((1u8.., 1u16..), 0..8),
        middle in messages(),
    ) {
        let flow = Flow { proto: TCP, port, ..flow };
        let (mut one, mut other) = (host(), host());
        other.0.seeds = seeds;
        for (client, sport) in past {
            // Of another protocol, so that the port is free.
            let flow = Flow { proto: UDP, ..flow }.client(client).sport(sport);
            other.send(WAN, &flow.sent(flow.opening()).bytes());
        }
        let opening = one.send(WAN, &flow.sent(say("S")).bytes());
        prop_assert_eq!(opening.verdict, Verdict::Redirect(LAN));
        let middle = flow.sent(middle).bytes();
        let [one, other] = [&mut one, &mut other].map(|at| at.send(WAN, &middle));
        prop_assert_eq!((other.verdict, other.frame), (one.verdict, one.frame));
    }

    /// The flows of one table do not meet: each hears what its own member says.
    #[test]
    fn host_flows_apart(sports in prop::collection::hash_set(1u16.., 2..12), back in messages()) {
        let mut host = host();
        let mut flows = Vec::new();
        for (n, sport) in sports.into_iter().enumerate() {
            let flow = flow(FAMILIES[n % 2], TCP, ROUND).sport(sport).client(n as u8 / 4 + 1);
            let got = host.send(WAN, &flow.sent(say("S")).bytes());
            let transport = if flow.client.is_ipv4() { 34 } else { 54 };
            let port = u16::from_be_bytes([got.frame[transport], got.frame[transport + 1]]);
            let flow = flow.source_port(port).member(got.frame[5]);
            prop_assert_eq!(&got.frame, &flow.taken(say("S")).bytes());
            host.send(LAN, &flow.answered(flow.answer()).bytes());
            host.send(WAN, &flow.sent(say("A")).bytes());
            flows.push(flow);
        }
        for flow in flows {
            let got = host.send(LAN, &flow.answered(back.clone()).bytes());
            prop_assert_eq!(&got.frame, &flow.heard(back.clone()).bytes());
        }
    }
}
