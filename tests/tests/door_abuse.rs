//! Whoever is not the controller, or does not behave, is refused or bounded, and keeps nobody waiting.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use openssl::ssl::SslVersion;
use xdp_lb_tests::door::{Process, Response, response};
use xdp_lb_tests::pki::{Authority, Issued, Kind};

const DOOR: &str = env!("CARGO_BIN_EXE_xdp-lb-door");
const MEMORY_MAX_KIB: u64 = 64 << 10;

/// A door, and a certificate that it takes.
fn door() -> (Process, Issued) {
    let process = Process::start(Path::new(DOOR)).unwrap();
    let controller = process.trust.client_ca.issue("controller", Kind::Octavia).unwrap();
    (process, controller)
}

/// The next good request is served, and all before it cost little.
fn still_well(process: &Process, controller: &Issued) {
    let discovery = process.ask(controller, "GET", "//", b"").unwrap();
    assert_eq!((discovery.status, &discovery.body[..]), (200, r#"{"api_version":"1.0"}"#));
    let peak = process.memory_peak_kib().unwrap();
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
}

#[test]
fn certificates() {
    let (process, controller) = door();
    let ours = |kind| process.trust.client_ca.issue("controller", kind).unwrap();
    let stranger = Authority::new("client-ca").unwrap();
    let rows = [
        ("as Octavia makes them", Some(ours(Kind::Octavia)), SslVersion::TLS1_3, true),
        ("by TLS 1.2", Some(ours(Kind::Octavia)), SslVersion::TLS1_2, true),
        ("without extensions", Some(ours(Kind::Version1)), SslVersion::TLS1_3, true),
        ("none", None, SslVersion::TLS1_3, false),
        ("none by TLS 1.2", None, SslVersion::TLS1_2, false),
        (
            "of another CA of that name",
            Some(stranger.issue("controller", Kind::Octavia).unwrap()),
            SslVersion::TLS1_3,
            false,
        ),
        ("expired", Some(ours(Kind::Expired)), SslVersion::TLS1_3, false),
        ("for servers", Some(ours(Kind::ServerOnly)), SslVersion::TLS1_3, false),
        ("by TLS 1.1", Some(ours(Kind::Octavia)), SslVersion::TLS1_1, false),
    ];
    for (row, shown, newest, want) in rows {
        // By TLS 1.3 a client learns of its refusal when it reads.
        let asked = process.connect_up_to(shown.as_ref(), newest).and_then(|mut stream| {
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            response(stream)
        });
        let served = asked.as_ref().is_ok_and(|response| response.status == 200);
        assert_eq!(served, want, "{row}: {asked:?}");
        still_well(&process, &controller);
    }
}

/// Bytes without end, said to be or not, and more than that many at once.
#[test]
fn bodies() {
    let (process, controller) = door();
    let path = "/1.0/loadbalancer/a/40c52c12-68e1-5926-83e7-88107bce47cb/haproxy";
    let piece = vec![b'#'; 1 << 20];
    let said = format!("Content-Length: {}", 1_u64 << 30);
    for (row, length) in [("said", &said[..]), ("chunked", "Transfer-Encoding: chunked")] {
        let mut stream = process.connect(Some(&controller)).unwrap();
        write!(stream, "PUT {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n").unwrap();
        let mut sent = 0;
        while sent < 1 << 30 {
            let chunk = format!("{:x}\r\n", piece.len());
            let mut send = || {
                if length != said {
                    stream.write_all(chunk.as_bytes())?;
                }
                stream.write_all(&piece)?;
                if length == said { Ok(()) } else { stream.write_all(b"\r\n") }
            };
            if send().is_err() {
                break;
            }
            sent += piece.len();
        }
        assert!(sent < 1 << 30, "{row}: all of it was taken");
        still_well(&process, &controller);
    }
}

/// Two that stop within their bodies: others, large and small, are served beside them.
#[test]
fn slow_bodies() {
    let (process, controller) = door();
    let path = "/1.0/loadbalancer/a/40c52c12-68e1-5926-83e7-88107bce47cb/haproxy";
    let half = vec![b'#'; 1 << 20];
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = process.connect(Some(&controller)).unwrap();
            let head =
                format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 2 << 20);
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&half).unwrap();
            stream
        })
        .collect();
    still_well(&process, &controller);
    let large = process.ask(&controller, "PUT", path, &vec![b'\n'; 8 << 20]).unwrap();
    assert_eq!(large.status, 400, "{}", large.body);
    assert!(large.body.contains("it does not say of which load balancer"), "{}", large.body);
    drop(slow);
    still_well(&process, &controller);
}

/// A 400 would be final to the controller; a connection that ends is tried again.
#[test]
fn a_body_that_stops_has_no_answer() {
    let (process, controller) = door();
    let mut stream = process.connect(Some(&controller)).unwrap();
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "PUT /1.0/config HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n[").unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).map_err(|error| error.kind());
    assert!(!matches!(end, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "it still listens");
    assert_eq!(answer, b"");
    still_well(&process, &controller);
}

#[test]
fn a_large_body_is_answered() {
    let (process, controller) = door();
    let body = vec![b'\n'; (16 << 20) + 1];
    let path = "/1.0/loadbalancer/a/40c52c12-68e1-5926-83e7-88107bce47cb/haproxy";
    let Response { status, body } = process.ask(&controller, "PUT", path, &body).unwrap();
    let want =
        r#"{"details":"the body holds more than 16777216 bytes","message":"Invalid request"}"#;
    assert_eq!((status, &body[..]), (400, want));
    still_well(&process, &controller);
}

/// One header line after the other, for as long as somebody listens.
#[test]
fn slow_headers() {
    let (process, controller) = door();
    let mut stream = process.connect(Some(&controller)).unwrap();
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    let mut closed = false;
    for line in 0..60 {
        still_well(&process, &controller);
        // A second without a word from the other side, or its end.
        let mut byte = [0];
        closed = match stream.read(&mut byte) {
            Ok(count) => count == 0 || line > 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        if closed || write!(stream, "X-{line}: y\r\n").is_err() {
            closed = true;
            break;
        }
    }
    assert!(closed, "it listened for a minute");
    still_well(&process, &controller);
}

/// More silent connections than there may be handshakes.
#[test]
fn silence() {
    let (process, controller) = door();
    let mut silent: Vec<_> = (0..300).map(|_| process.dial().unwrap()).collect();
    still_well(&process, &controller);
    // The first had to go.
    let mut byte = [0];
    assert!(matches!(silent[0].read(&mut byte), Ok(0) | Err(_)));
    still_well(&process, &controller);
}

/// Whatever the driver calls the amphora: by IPv6, with a zone, or by what there was before it.
#[test]
fn hosts() {
    let (process, controller) = door();
    for host in [
        "127.0.0.1:9443",
        "[fe80::1%25eth0]:9443",
        "[fe80::1%eth0]:9443",
        "",
        "a b",
        "x".repeat(300).as_str(),
    ] {
        let mut stream = process.connect(Some(&controller)).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        assert_eq!(response(stream).unwrap().status, 200, "{host:?}");
    }
}

/// Not TLS, and not HTTP.
#[test]
fn garbage() {
    let (process, controller) = door();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0x16, 3, 1, 0xff, 0xff]] {
        let mut stream = process.dial().unwrap();
        stream.write_all(bytes).unwrap();
        // It may have hung up already.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        // Whatever comes, it ends.
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    for head in ["\r\n\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = process.connect(Some(&controller)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let answer = response(stream);
        assert!(answer.as_ref().map_or(true, |it| it.status == 400), "{head:?}: {answer:?}");
    }
    let mut stream = process.connect(Some(&controller)).unwrap();
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(1 << 20));
    let _ = stream.write_all(endless.as_bytes());
    let answer = response(stream);
    assert!(answer.as_ref().map_or(true, |it| it.status == 431), "{answer:?}");
    still_well(&process, &controller);
}
