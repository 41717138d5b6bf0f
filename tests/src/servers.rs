//! Real servers that run as threads of this process, on sockets made in a namespace of the lab.
//!
//! A server listens before its constructor returns, and dropping it closes its connections and
//! ends its threads; so does the drop of a member that "dies" in a test.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::http::{Head, malformed};
use crate::lab::Host;
use crate::payload;

/// The most a UDP datagram can carry over IPv6; over IPv4 it is 20 bytes less.
pub const DATAGRAM_MAX: usize = 65_527;

/// Connections waiting to be accepted; the benchmark opens many at once.
const BACKLOG: i32 = 4096;
const CHUNK: usize = 64 * 1024;

/// A server on every address of its host, IPv4 and IPv6, until dropped.
pub struct Server {
    pub port: u16,
    stop: Arc<Stop>,
    socket: Socket,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// HTTP/1.1 with keep-alive. Each response names the member (`Member`), the address its request
    /// came from (`Peer`), and for whom it says to be (`Forwarded-For`).
    ///
    /// `GET /bytes/N` answers N bytes of the [`payload`] of seed N; a `POST` of N bytes of that
    /// payload is answered 200, or 422 and the offset of the first wrong byte; all else is
    /// answered with the member's name. A line of the PROXY protocol before the first request is
    /// passed over.
    pub fn http(host: &Host, port: u16) -> io::Result<Self> {
        Self::tcp(host, port, serve_http)
    }

    /// Does with each connection what `serve` does, which is also told the member's name. A connection
    /// is closed when it returns.
    pub fn tcp(
        host: &Host,
        port: u16,
        serve: fn(TcpStream, &str) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (socket, port) = bind(host, Type::STREAM, Protocol::TCP, port)?;
        let listener = TcpListener::from(socket.try_clone()?);
        Self::accepting(host, port, socket, listener, serve)
    }

    /// Answers each datagram with the member's name, a space, and the datagram.
    pub fn udp(host: &Host, port: u16) -> io::Result<Self> {
        let (socket, port) = bind(host, Type::DGRAM, Protocol::UDP, port)?;
        let stop = Arc::new(Stop::default());
        let (stopped, served) = (stop.clone(), UdpSocket::from(socket.try_clone()?));
        let name = host.name.clone();
        let thread = thread::Builder::new()
            .name(format!("{name} udp"))
            .spawn(move || serve_udp(&served, &name, &stopped))?;
        Ok(Self { port, stop, socket, thread: Some(thread) })
    }

    /// Answers each message of an association with the member's name, a space, and the message.
    ///
    /// Fails on a kernel without SCTP: ask [`sctp_missing`] first.
    pub fn sctp(host: &Host, port: u16) -> io::Result<Self> {
        let (socket, port) = bind(host, Type::STREAM, Protocol::SCTP, port)?;
        // One-to-one SCTP sockets have the calls of TCP ones (RFC 6458, section 4).
        let listener = TcpListener::from(socket.try_clone()?);
        Self::accepting(host, port, socket, listener, serve_messages)
    }

    fn accepting(
        host: &Host,
        port: u16,
        socket: Socket,
        listener: TcpListener,
        serve: fn(TcpStream, &str) -> io::Result<()>,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let (stopped, name) = (stop.clone(), host.name.clone());
        let thread = thread::Builder::new()
            .name(format!("{name} accept"))
            .spawn(move || accept(&listener, &name, &stopped, serve))?;
        Ok(Self { port, stop, socket, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.now.store(true, Ordering::SeqCst);
        // Wakes the thread out of `accept` or `recv`; the error of a UDP socket, which has no
        // connection to shut down, comes after it has been woken.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        for stream in self.stop.streams().values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Why SCTP cannot be tried here, if it cannot.
pub fn sctp_missing() -> Option<String> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::SCTP));
    socket.err().map(|error| format!("this kernel has no SCTP: {error}"))
}

#[derive(Default)]
struct Stop {
    now: AtomicBool,
    streams: Mutex<HashMap<u64, TcpStream>>,
}

impl Stop {
    fn streams(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a handle by which `drop` can end the connection; `None` when it is too late.
    fn keep(&self, id: u64, stream: &TcpStream) -> Option<()> {
        let mut streams = self.streams();
        if self.now.load(Ordering::SeqCst) {
            return None;
        }
        streams.insert(id, stream.try_clone().ok()?);
        Some(())
    }
}

/// A socket bound in the namespace of `host`, and listening if it can. Port 0 lets the kernel
/// choose.
fn bind(host: &Host, kind: Type, protocol: Protocol, port: u16) -> io::Result<(Socket, u16)> {
    host.netns.enter(|| {
        let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
        socket.set_only_v6(false)?;
        // The one before it on this port may live on for a moment in a child that is being started.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        if kind == Type::STREAM {
            socket.listen(BACKLOG)?;
        }
        let bound = socket.local_addr()?.as_socket();
        Ok((socket, bound.map_or(port, |bound| bound.port())))
    })
}

fn accept(
    listener: &TcpListener,
    name: &str,
    stop: &Stop,
    serve: fn(TcpStream, &str) -> io::Result<()>,
) {
    thread::scope(|connections| {
        for id in 0.. {
            let accepted = listener.accept();
            if stop.now.load(Ordering::SeqCst) {
                return;
            }
            // A client that gave up before it was accepted is no reason to stop.
            let Ok((stream, _)) = accepted else { continue };
            if stop.keep(id, &stream).is_none() {
                continue;
            }
            connections.spawn(move || {
                // The client sees how a connection ends; there is nobody else to tell.
                let _ = serve(stream, name);
                stop.streams().remove(&id);
            });
        }
    });
}

fn serve_http(stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let mut from = BufReader::new(&stream);
    if from.fill_buf()?.starts_with(b"PROXY ") {
        from.read_line(&mut String::new())?;
    }
    while let Some(head) = Head::read(&mut from)? {
        let forwarded = head.header::<String>("x-forwarded-for");
        let forwarded = forwarded.map(|it| format!("Forwarded-For: {it}\r\n")).unwrap_or_default();
        let answer = |status: &str, length: u64| {
            format!(
                "HTTP/1.1 {status}\r\nMember: {name}\r\nPeer: {peer}\r\n{forwarded}\
                 Content-Length: {length}\r\n\r\n"
            )
        };
        let whole = |status: &str, body: &str| answer(status, body.len() as u64) + body;
        let mut to = &stream;
        match (head.word(0), head.word(1).strip_prefix("/bytes/")) {
            ("GET", Some(length)) => {
                let length: u64 = length.parse().map_err(|_| malformed(&head.first))?;
                to.write_all(answer("200 OK", length).as_bytes())?;
                send_payload(to, length)?;
            }
            ("GET", None) => to.write_all(whole("200 OK", name).as_bytes())?,
            ("POST", _) => {
                let length = head.header("content-length").ok_or_else(|| malformed(&head.first))?;
                let said = match check_payload(&mut from, length)? {
                    None => whole("200 OK", name),
                    Some(offset) => whole("422 Unprocessable Content", &offset.to_string()),
                };
                to.write_all(said.as_bytes())?;
            }
            _ => return Err(malformed(&head.first)),
        }
        if head.header::<String>("connection").is_some_and(|value| value == "close") {
            break;
        }
    }
    Ok(())
}

/// Writes `length` bytes of the payload whose seed is `length`.
pub(crate) fn send_payload(mut to: impl Write, length: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut sent = 0;
    while sent < length {
        let size = (length - sent).min(CHUNK as u64) as usize;
        payload::fill(length, sent, &mut chunk[..size]);
        to.write_all(&chunk[..size])?;
        sent += size as u64;
    }
    Ok(())
}

/// Reads `length` bytes; the offset of the first that is not of the payload of seed `length`.
pub(crate) fn check_payload(mut from: impl Read, length: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; CHUNK];
    let (mut seen, mut wrong) = (0, None);
    while seen < length {
        let size = (length - seen).min(CHUNK as u64) as usize;
        let got = match from.read(&mut chunk[..size])? {
            0 => {
                let what = format!("closed after {seen} of {length} bytes");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
            got => got,
        };
        wrong = wrong.or_else(|| payload::difference(length, seen, &chunk[..got]));
        seen += got as u64;
    }
    Ok(wrong)
}

fn serve_udp(socket: &UdpSocket, name: &str, stop: &Stop) {
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        // Not `recv_from`: the standard library panics where a shutdown wakes it without a sender.
        let sender = SockRef::from(socket).peek_sender();
        if stop.now.load(Ordering::SeqCst) {
            return;
        }
        // An error here is the report of an earlier answer that found nobody.
        let Some(from) = sender.ok().and_then(|sender| sender.as_socket()) else {
            continue;
        };
        let Ok(length) = socket.recv(&mut datagram) else {
            continue;
        };
        let _ = socket.send_to(&named(name, &datagram[..length]), from);
    }
}

fn serve_messages(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let mut message = vec![0; CHUNK];
    loop {
        match stream.read(&mut message)? {
            0 => return Ok(()),
            length => stream.write_all(&named(name, &message[..length]))?,
        }
    }
}

fn named(name: &str, message: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b" ", message].concat()
}
