//! Clients that block, to be run where their sockets should be: inside [`Netns::enter`].
//!
//! Threads inherit the namespace of the thread that starts them, so the concurrent ones stay in it.
//!
//! [`Netns::enter`]: crate::lab::Netns::enter

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use socket2::{Domain, Protocol, Socket, Type};

use crate::http::{Head, malformed};
use crate::servers::{DATAGRAM_MAX, check_payload, send_payload};

/// How long any single step of a client may take before it counts as failed.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP response of [`Server::http`](crate::servers::Server::http).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub member: String,
    /// The client's address as the member saw it.
    pub peer: SocketAddr,
    pub body: Vec<u8>,
}

/// A datagram or message that came back, and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub member: String,
    pub payload: Vec<u8>,
}

/// A download or an upload whose every byte was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub member: String,
    pub took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Each request on its own: connect, ask, close.
    Fresh,
    /// One for each worker, opened again only after an error.
    Kept,
}

/// What became of many requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub ok: u32,
    pub errors: Vec<String>,
    pub by_member: BTreeMap<String, u32>,
    /// Of the requests that went well, in no order; with [`Connections::Fresh`] the connecting
    /// is part of it.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    /// The latency that `share` (0 to 1) of the good requests kept below; zero when there are none.
    pub fn latency(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * share) as usize;
        sorted.get(index).or(sorted.last()).copied().unwrap_or_default()
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.errors.extend(other.errors);
        for (member, count) in other.by_member {
            *self.by_member.entry(member).or_default() += count;
        }
        self.latencies.extend(other.latencies);
    }
}

/// An HTTP connection that is kept for more than one request.
pub struct Connection {
    stream: BufReader<TcpStream>,
    addr: SocketAddr,
}

impl Connection {
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        Self::on(TcpStream::connect_timeout(&addr, TIMEOUT)?, addr)
    }

    /// From an address of one's own; port 0 lets the kernel choose.
    pub fn open_from(from: SocketAddr, addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&addr.into(), TIMEOUT)?;
        Self::on(socket.into(), addr)
    }

    fn on(stream: TcpStream, addr: SocketAddr) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), addr })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.addr))?;
        self.response()
    }

    fn send(&mut self, head: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(head.as_bytes())
    }

    fn response(&mut self) -> io::Result<Response> {
        let (mut response, length) = self.head()?;
        response.body = vec![0; length as usize];
        self.stream.read_exact(&mut response.body)?;
        Ok(response)
    }

    /// A response that still lacks its body, and the length of that.
    fn head(&mut self) -> io::Result<(Response, u64)> {
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a response");
        let head = Head::read(&mut self.stream)?.ok_or_else(closed)?;
        let read = || {
            let response = Response {
                status: head.word(1).parse().ok()?,
                member: head.header("member")?,
                peer: head.header("peer")?,
                body: Vec::new(),
            };
            Some((response, head.header("content-length")?))
        };
        read().ok_or_else(|| malformed(&head.first))
    }
}

/// One request on a connection of its own.
pub fn http_get(addr: SocketAddr, path: &str) -> io::Result<Response> {
    let mut connection = Connection::open(addr)?;
    connection
        .send(&format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"))?;
    connection.response()
}

/// One request with headers of one's own, whoever answers; the response as it is read.
pub fn http_text(addr: SocketAddr, path: &str, headers: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\n{headers}Connection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

/// One request that is not waited for longer than `moment` at a time.
pub fn knock(addr: SocketAddr, moment: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, moment)?;
    stream.set_read_timeout(Some(moment))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    if said.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(malformed(&said)) }
}

/// The same over TLS, whoever the server is; the response as it is read.
pub fn https_get(addr: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = tls_connect(addr)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    // HAProxy closes without a `close notify`.
    match stream.read_to_end(&mut response) {
        Err(error) if response.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&response).into_owned()),
    }
}

/// The certificate that a server shows, in DER.
pub fn tls_certificate(addr: SocketAddr) -> io::Result<Vec<u8>> {
    let certificate = tls_connect(addr)?.ssl().peer_certificate();
    let certificate = certificate.ok_or_else(|| malformed("no certificate"))?;
    Ok(certificate.to_der()?)
}

fn tls_connect(addr: SocketAddr) -> io::Result<SslStream<TcpStream>> {
    let stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    let connector = builder.build().configure()?.verify_hostname(false);
    connector.connect("any", stream).map_err(io::Error::other)
}

/// Asks for `/` from `concurrency` threads for as long as `more` says, which is told the number of
/// the next request: `|request| request < 1000`, or `|_| !stop.load(Ordering::Relaxed)`.
pub fn requests(
    addr: SocketAddr,
    connections: Connections,
    concurrency: usize,
    more: impl Fn(u64) -> bool + Sync,
) -> Outcome {
    let next = AtomicU64::new(0);
    let more = || more(next.fetch_add(1, Ordering::Relaxed));
    let mut outcome = Outcome::default();
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..concurrency).map(|_| scope.spawn(|| worker(addr, connections, more))).collect();
        for worker in workers {
            match worker.join() {
                Ok(own) => outcome.add(own),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    outcome
}

fn worker(addr: SocketAddr, connections: Connections, more: impl Fn() -> bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut kept = None;
    while more() {
        let began = Instant::now();
        let response = match connections {
            Connections::Fresh => http_get(addr, "/"),
            Connections::Kept => get_kept(&mut kept, addr),
        };
        match response {
            Ok(response) if response.status == 200 => {
                outcome.ok += 1;
                outcome.latencies.push(began.elapsed());
                *outcome.by_member.entry(response.member).or_default() += 1;
            }
            Ok(response) => outcome.errors.push(format!("status {}", response.status)),
            Err(error) => outcome.errors.push(error.to_string()),
        }
    }
    outcome
}

/// Leaves `kept` empty after an error, so that the next request connects anew.
fn get_kept(kept: &mut Option<Connection>, addr: SocketAddr) -> io::Result<Response> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(addr)?,
    };
    let response = connection.get("/")?;
    *kept = Some(connection);
    Ok(response)
}

/// Fetches `bytes` bytes and compares each with what the server must have sent.
pub fn download(addr: SocketAddr, bytes: u64) -> io::Result<Transfer> {
    let began = Instant::now();
    let mut connection = Connection::open(addr)?;
    connection.send(&format!(
        "GET /bytes/{bytes} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    ))?;
    let (response, length) = connection.head()?;
    if (response.status, length) != (200, bytes) {
        return Err(malformed(&format!("status {}, {length} bytes", response.status)));
    }
    match check_payload(&mut connection.stream, bytes)? {
        None => Ok(Transfer { member: response.member, took: began.elapsed() }),
        Some(offset) => Err(differs(&offset.to_string())),
    }
}

/// Sends `bytes` bytes, each of which the server compares with what they must be.
pub fn upload(addr: SocketAddr, bytes: u64) -> io::Result<Transfer> {
    let began = Instant::now();
    let mut connection = Connection::open(addr)?;
    connection.send(&format!(
        "POST / HTTP/1.1\r\nHost: {addr}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n"
    ))?;
    send_payload(connection.stream.get_mut(), bytes)?;
    let response = connection.response()?;
    match response.status {
        200 => Ok(Transfer { member: response.member, took: began.elapsed() }),
        _ => Err(differs(&String::from_utf8_lossy(&response.body))),
    }
}

/// Sends one datagram from a port of its own and waits for the answer.
///
/// The name of the member and a space come back before the payload: at most [`DATAGRAM_MAX`] with
/// them. A port that nobody listens on is an error at once if the ICMP error finds its way back.
pub fn udp_ask(addr: SocketAddr, payload: &[u8], timeout: Duration) -> io::Result<Answer> {
    let any = match addr {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(addr)?;
    udp_ask_on(&socket, payload, timeout)
}

/// [`udp_ask`] on a connected socket, again and again from the same port.
pub fn udp_ask_on(socket: &UdpSocket, payload: &[u8], timeout: Duration) -> io::Result<Answer> {
    socket.set_read_timeout(Some(timeout))?;
    socket.send(payload)?;
    let mut datagram = vec![0; DATAGRAM_MAX];
    let length = socket.recv(&mut datagram)?;
    answer(&datagram[..length])
}

/// Opens an SCTP association, sends one message and waits for the answer.
pub fn sctp_ask(addr: SocketAddr, message: &[u8], timeout: Duration) -> io::Result<Answer> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::SCTP))?;
    socket.connect_timeout(&addr.into(), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(message)?;
    let mut bytes = vec![0; DATAGRAM_MAX];
    let length = stream.read(&mut bytes)?;
    answer(&bytes[..length])
}

fn answer(bytes: &[u8]) -> io::Result<Answer> {
    let space = bytes.iter().position(|byte| *byte == b' ');
    let (name, payload) = bytes.split_at(space.ok_or_else(|| malformed("no member's name"))?);
    Ok(Answer { member: String::from_utf8_lossy(name).into_owned(), payload: payload[1..].into() })
}

fn differs(offset: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("wrong byte at {offset}"))
}
