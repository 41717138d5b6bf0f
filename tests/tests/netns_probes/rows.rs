//! The tables: what a member does, and what is seen of it.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use agent_api::{HttpProbe, Probe};
use socket2::{Domain, Protocol, Socket, Type};
use xdp_lb::health::probe::{Failure, Patience, Seen};
use xdp_lb_tests::lab::Family;
use xdp_lb_tests::servers::Server;

use crate::members::*;
use crate::raw::{Responder, crc32c_by_division};
use crate::world::{LONG, Row, SHORT, World};

pub fn http(codes: &[u16]) -> Probe {
    Probe::Http(request("GET", None, None, codes))
}

pub fn https(codes: &[u16]) -> Probe {
    Probe::Https(request("GET", None, None, codes))
}

fn request(method: &str, version: Option<u8>, host: Option<&str>, codes: &[u16]) -> HttpProbe {
    HttpProbe {
        method: method.to_owned(),
        path: "/health?deep=1".to_owned(),
        version,
        host: host.map(str::to_owned),
        codes: codes.iter().copied().collect(),
    }
}

fn late(awaited: &'static str, patience: std::time::Duration) -> Result<(), Failure> {
    Err(Failure::Late { awaited, within: patience })
}

fn garbage(protocol: &'static str, seen: &[u8]) -> Result<(), Failure> {
    Err(Failure::Garbage { protocol, seen: Seen::of(seen) })
}

fn status(code: u16, expected: &[u16]) -> Result<(), Failure> {
    Err(Failure::Status { code, expected: expected.iter().copied().collect() })
}

fn tls_error(words: &str) -> Result<(), Failure> {
    Err(Failure::Tls(words.to_owned()))
}

pub fn tcp() -> Vec<Row> {
    let row = |name, serve| Row { name, probe: Probe::Tcp, patience: LONG, serve, want: Ok(()) };
    vec![
        row("a connection is all", |stream, _| hang(stream)),
        row("closed at once", |stream, _| early(stream, b"")),
        row("a banner", |stream, _| early(stream, b"SSH-2.0-OpenSSH_9.2p1\r\n")),
    ]
}

pub fn http_rows() -> Vec<Row> {
    let row = |name, serve, want| Row { name, probe: http(&[200]), patience: LONG, serve, want };
    let asking = |row: Row, probe| Row { probe, ..row };
    let short = |row: Row| Row { patience: SHORT, ..row };
    let closed = |received| Err(Failure::Closed { received });
    let reset = |received| Err(Failure::Reset { received });
    let of = |method, version, host| Probe::Http(request(method, version, host, &[200]));
    vec![
        row("passes", |stream, _| answer(stream, OK), Ok(())),
        row("passes without a reason", |stream, _| answer(stream, b"HTTP/1.0 200\r\n"), Ok(())),
        asking(
            row("any of the codes", |stream, _| answer(stream, b"HTTP/1.1 204 \r\n\r\n"), Ok(())),
            http(&[200, 201, 204]),
        ),
        asking(
            row("none of the codes", |stream, _| answer(stream, OK), status(200, &[201, 204])),
            http(&[201, 204]),
        ),
        row("fails", |stream, _| answer(stream, b"HTTP/1.1 503 No\r\n\r\n"), status(503, &[200])),
        row(
            "1xx first",
            |stream, _| answer(stream, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
            status(100, &[200]),
        ),
        row("answers early and closes", |stream, _| early(stream, OK), Ok(())),
        row("answers and resets", |stream, _| then_reset(stream, OK), Ok(())),
        row("a byte a segment", |stream, _| slowly(stream, b"HTTP/1.1 200 OK\r\n"), Ok(())),
        short(row("hangs", |stream, _| hang(stream), late("answer", SHORT.read))),
        short(row(
            "answers in part",
            |stream, _| answer(stream, b"HTTP/1.1 200 O"),
            late("whole answer", SHORT.read),
        )),
        row("closes", |stream, _| then_close(stream, b""), closed(0)),
        row("closes in the middle", |stream, _| then_close(stream, b"HTTP/1.1 200"), closed(12)),
        row("resets", |stream, _| then_reset(stream, b""), reset(0)),
        row("resets in the middle", |stream, _| then_reset(stream, b"HTTP/1.1 200"), reset(12)),
        row(
            "another protocol",
            |stream, _| early(stream, b"SSH-2.0-OpenSSH_9.2p1\r\n"),
            garbage("HTTP", b"SSH-2.0-OpenSSH_9.2p1\r\n"),
        ),
        row(
            "HTTP/0.9",
            |stream, _| answer(stream, b"<html></html>\n"),
            garbage("HTTP", b"<html></html>\n"),
        ),
        row(
            "a line without an end",
            |stream, _| endlessly(stream, b"HTTP/1.1 200 "),
            garbage("HTTP", b"HTTP/1.1 200 aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ),
        row(
            "noise without an end",
            |stream, _| endlessly(stream, &[0; 40]),
            garbage("HTTP", &[0; 32]),
        ),
        asking(
            row(
                "HTTP/1.0 without a Host",
                |stream, _| expect(stream, "GET /health?deep=1 HTTP/1.0\r\n\r\n"),
                Ok(()),
            ),
            of("GET", None, None),
        ),
        asking(
            row(
                "HTTP/1.1 with one",
                |stream, _| {
                    let request = "HEAD /health?deep=1 HTTP/1.1\r\nHost: example.org\r\n\
                                   Connection: close\r\n\r\n";
                    expect(stream, request)
                },
                Ok(()),
            ),
            of("HEAD", Some(1), Some("example.org")),
        ),
    ]
}

pub fn tls() -> Vec<Row> {
    let row = |name, probe, serve, want| Row { name, probe, patience: LONG, serve, want };
    let short = |row: Row| Row { patience: SHORT, ..row };
    let hello = || Probe::TlsHello;
    let https = || https(&[200]);
    let reset = |received| Err(Failure::Reset { received });
    let closed = |received| Err(Failure::Closed { received });
    const NO: &[u8] = b"HTTP/1.1 500 No\r\n\r\n";
    const ALERT: &[u8] = b"\x15\x03\x01\x00\x02\x02\x28";
    vec![
        row("any certificate", https(), |stream, _| secure(stream, OK), Ok(())),
        row("TLS 1.0 with SHA-1", https(), |stream, _| old(stream, OK), Ok(())),
        row("fails", https(), |stream, _| secure(stream, NO), status(500, &[200])),
        row("closes after it", https(), |stream, _| secure_but_silent(stream), closed(0)),
        row(
            "wants a certificate",
            https(),
            |stream, _| mutual(stream),
            tls_error("tlsv13 alert certificate required"),
        ),
        row(
            "objects",
            https(),
            |stream, _| then_close(stream, ALERT),
            tls_error("sslv3 alert handshake failure"),
        ),
        row(
            "no TLS",
            https(),
            |stream, _| then_close(stream, NO),
            tls_error("wrong version number"),
        ),
        row("resets", https(), |stream, _| then_reset(stream, b""), reset(0)),
        row("closes", https(), |stream, _| then_close(stream, b""), closed(0)),
        short(row(
            "hangs",
            https(),
            |stream, _| hang(stream),
            late("TLS handshake", SHORT.connect),
        )),
        row("a hello", hello(), |stream, _| secure(stream, OK), Ok(())),
        row("an old hello", hello(), |stream, _| old(stream, OK), Ok(())),
        row("an alert, and a close", hello(), |stream, _| early(stream, ALERT), Ok(())),
        row("a hello, slowly", hello(), |stream, _| dripping(stream, ALERT), Ok(())),
        row("no TLS", hello(), |stream, _| then_close(stream, NO), garbage("TLS", b"HTTP/")),
        row(
            "SSL 2",
            hello(),
            |stream, _| early(stream, b"\x16\x02\x00\x00\x00"),
            garbage("TLS", b"\x16\x02\0\0\0"),
        ),
        row(
            "noise without an end",
            hello(),
            |stream, _| endlessly(stream, b""),
            garbage("TLS", b"aaaaa"),
        ),
        short(row("hangs", hello(), |stream, _| hang(stream), late("answer", SHORT.read))),
        row("resets", hello(), |stream, _| then_reset(stream, b""), reset(0)),
        row("resets in the middle", hello(), |stream, _| then_reset(stream, b"\x16\x03"), reset(2)),
        row(
            "closes in the middle",
            hello(),
            |stream, _| then_close(stream, b"\x16\x03"),
            closed(2),
        ),
    ]
}

/// What stops a connection on its way: the same for all that connect.
pub fn tcp_without_a_server(world: &World) {
    let member = world.member();
    let refused = |_| Err(Failure::Refused);
    for probe in [Probe::Tcp, Probe::TlsHello, http(&[200]), https(&[200])] {
        world.each("nobody listens", &probe, |family| member.addr(family, 1), LONG, refused);
    }

    let [nowhere, forbidden] = [3, 4].map(|host| far(world, host));
    let no_network = |_| Err(Failure::Unreachable("network"));
    world.each("the router has no route", &Probe::Tcp, nowhere, LONG, no_network);
    world.each("the router forbids it", &Probe::Tcp, forbidden, LONG, prohibited);
    world.each("nobody has the address", &Probe::Tcp, nobody, SHORT, |_| {
        late("connection", SHORT.connect)
    });

    // The queue of connections that nobody accepts has room for one.
    let full = member.netns.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        TcpListener::from(socket)
    });
    let at = |family| member.addr(family, full.local_addr().unwrap().port());
    let _first = world.lab.amphora.netns.enter(|| TcpStream::connect(at(Family::V4)).unwrap());
    let hung = |_| late("connection", SHORT.connect);
    world.each("a full queue", &Probe::Tcp, at, SHORT, hung);
}

/// ICMP has one errno for it, ICMPv6 another.
fn prohibited(family: Family) -> Result<(), Failure> {
    match family {
        Family::V4 => Err(Failure::Unreachable("host")),
        Family::V6 => Err(Failure::Prohibited),
    }
}

/// An address behind the router: of a net that it has no route to, but that it forbids one address.
fn far(world: &World, host: u8) -> impl Fn(Family) -> SocketAddr + use<> {
    let lines = [
        "route replace prohibit 203.0.113.4".to_owned(),
        "route replace prohibit 2001:db8:2::4".to_owned(),
    ];
    world.lab.router.netns.ip(&lines).unwrap();
    move |family| {
        let ip: IpAddr = match family {
            Family::V4 => [203, 0, 113, host].into(),
            Family::V6 => [0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(host)].into(),
        };
        SocketAddr::new(ip, 80)
    }
}

/// An address on the members' own net.
fn nobody(family: Family) -> SocketAddr {
    match family {
        Family::V4 => ([192, 0, 2, 250], 80).into(),
        Family::V6 => ([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfa], 80).into(),
    }
}

pub fn udp(world: &World) {
    let member = world.member();
    let server = Server::udp(member, 0).unwrap();
    let silent = member.netns.enter(|| UdpSocket::bind("[::]:0").unwrap());
    let silent = silent.local_addr().unwrap().port();
    let probe = Probe::UdpConnect;
    let rows: [(_, &dyn Fn(Family) -> SocketAddr, Patience, _); 5] = [
        ("answers", &|family| member.addr(family, server.port), LONG, Ok(())),
        ("is silent", &|family| member.addr(family, silent), SHORT, Ok(())),
        (
            "nobody listens",
            &|family| member.addr(family, 1),
            LONG,
            Err(Failure::Unreachable("port")),
        ),
        ("nobody has the address", &nobody, SHORT, Ok(())),
        ("the router has no route", &far(world, 3), SHORT, Ok(())),
    ];
    for (name, at, patience, want) in rows {
        world.each(name, &probe, at, patience, |_| want.clone());
    }
}

pub fn ping(world: &World) {
    let member = world.member();
    let probe = Probe::Ping;
    let at = |family| member.addr(family, 0);
    world.each("answers", &probe, at, LONG, |_| Ok(()));
    world.each("itself", &probe, |family| world.lab.amphora.addr(family, 0), LONG, |_| Ok(()));
    world.each("nobody has the address", &probe, nobody, SHORT, |_| late("answer", SHORT.read));
    let no_network = |_| Err(Failure::Unreachable("network"));
    world.each("the router has no route", &probe, far(world, 3), LONG, no_network);
    world.each("the router forbids it", &probe, far(world, 4), LONG, prohibited);

    for key in ["ipv4/icmp_echo_ignore_all", "ipv6/icmp/echo_ignore_all"] {
        member.netns.sysctl(key, "1").unwrap();
    }
    world.each("is silent", &probe, at, SHORT, |_| late("answer", SHORT.read));
    let rows: [(_, crate::raw::Answer, _, _); 3] = [
        ("answers what was not asked", |echo| vec![wrong(echo)], SHORT, late("answer", SHORT.read)),
        ("answers that too", |echo| vec![wrong(echo), reply(echo, 0)], LONG, Ok(())),
        ("floods", |echo| vec![wrong(echo); 400], LONG, Err(Failure::Noise(256))),
    ];
    for (name, answer, patience, want) in rows {
        for (family, protocol) in [(Family::V4, Protocol::ICMPV4), (Family::V6, Protocol::ICMPV6)] {
            let _responder = Responder::start(member, family, protocol, answer);
            world.one(name, &probe, at(family), patience, want.clone());
        }
    }
}

/// To an echo, in part what it said; nothing to all else that ICMPv6 is about.
fn reply(echo: &[u8], change: u8) -> Vec<u8> {
    let mut reply = echo.to_vec();
    reply[0] = match echo[0] {
        8 => 0,
        128 => 129,
        // One that nobody looks at.
        _ => 255,
    };
    reply[8] ^= change;
    reply
}

fn wrong(echo: &[u8]) -> Vec<u8> {
    reply(echo, 1)
}

/// Where the kernel knows no SCTP, and so does not answer INITs itself.
pub fn sctp_by_hand(world: &World) {
    let member = world.member();
    let at = |family| member.addr(family, 5060);
    let no_protocol = |_| Err(Failure::Unreachable("protocol"));
    world.each("no SCTP", &Probe::Sctp, at, LONG, no_protocol);
    world.each("the router forbids it", &Probe::Sctp, far(world, 4), LONG, prohibited);
    world.each("nobody has the address", &Probe::Sctp, nobody, SHORT, |_| {
        late("answer", SHORT.read)
    });
    let odd = b"\x09\0\0\x08\0\x03\0\x04";
    let rows: [(_, crate::raw::Answer, _, _); 6] = [
        ("an INIT ACK", |init| vec![sctp(init, 0, &INIT_ACK)], LONG, Ok(())),
        ("an ABORT", |init| vec![sctp(init, 0, &[6, 0, 0, 4])], LONG, Err(Failure::Aborted)),
        (
            "an ERROR",
            |init| vec![sctp(init, 0, b"\x09\0\0\x08\0\x03\0\x04")],
            LONG,
            garbage("SCTP INIT ACK", odd),
        ),
        ("nothing", |_| vec![], SHORT, late("answer", SHORT.read)),
        ("another's tag", |init| vec![sctp(init, 1, &INIT_ACK)], SHORT, late("answer", SHORT.read)),
        ("a flood", |init| vec![sctp(init, 1, &INIT_ACK); 400], LONG, Err(Failure::Noise(256))),
    ];
    for (name, answer, patience, want) in rows {
        for family in [Family::V4, Family::V6] {
            let responder = Responder::start(member, family, Protocol::SCTP, answer);
            world.one(name, &Probe::Sctp, at(family), patience, want.clone());
            let passed = want.is_ok();
            let init = responder.heard.recv_timeout(LONG.read).unwrap();
            check_sctp(&init, 32);
            assert_eq!(init[4..8], [0; 4], "an INIT has no tag");
            if passed {
                let abort = responder.heard.recv_timeout(LONG.read).unwrap();
                check_sctp(&abort, 16);
                assert_eq!(abort[..4], init[..4], "the ports");
                assert_eq!(abort[4..], [&INIT_ACK[4..8], &abort[8..12], &[6, 0, 0, 4]].concat());
            }
        }
    }
}

/// Where it does.
pub fn sctp_by_the_kernel(world: &World) {
    let member = world.member();
    let server = Server::sctp(member, 0).unwrap();
    world.each(
        "listens",
        &Probe::Sctp,
        |family| member.addr(family, server.port),
        LONG,
        |_| Ok(()),
    );
    world.each(
        "nobody does",
        &Probe::Sctp,
        |family| member.addr(family, 1),
        LONG,
        |_| Err(Failure::Aborted),
    );
}

/// Its tag is `0xdecade`.
const INIT_ACK: [u8; 20] = [2, 0, 0, 20, 0, 0xde, 0xca, 0xde, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1];

/// An answer to an INIT, with its tag; nothing to an ABORT, which is none.
fn sctp(init: &[u8], change: u8, chunk: &[u8]) -> Vec<u8> {
    let tag = init.get(16..20).unwrap_or(&[0; 4]);
    let tag = [tag[0], tag[1], tag[2], tag[3] ^ change];
    let mut packet = [&init[2..4], &init[..2], &tag, &[0; 4], chunk].concat();
    let check = crc32c_by_division(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&check);
    packet
}

fn check_sctp(packet: &[u8], length: usize) {
    assert_eq!(packet.len(), length);
    let without = [&packet[..8], &[0; 4], &packet[12..]].concat();
    assert_eq!(packet[8..12], crc32c_by_division(&without).to_le_bytes(), "the checksum");
}
