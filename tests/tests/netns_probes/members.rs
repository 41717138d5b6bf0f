//! What members do with a connection, well and badly.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use socket2::SockRef;
use xdp_lb_tests::pki::{Authority, Issued, Kind};

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nbody";

/// Says nothing until the other side ends it.
pub fn hang(mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// Reads a request and says this.
pub fn answer(mut stream: TcpStream, text: &[u8]) -> io::Result<()> {
    read_request(&mut stream)?;
    stream.write_all(text)?;
    hang(stream)
}

/// Says this, and nothing more, after the request has come.
pub fn then_close(mut stream: TcpStream, text: &[u8]) -> io::Result<()> {
    read_some(&mut stream)?;
    stream.write_all(text)
}

pub fn then_reset(mut stream: TcpStream, text: &[u8]) -> io::Result<()> {
    read_some(&mut stream)?;
    stream.write_all(text)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// Without a look at what is asked.
pub fn early(mut stream: TcpStream, text: &[u8]) -> io::Result<()> {
    stream.write_all(text)
}

/// After a request, a byte a segment.
pub fn slowly(mut stream: TcpStream, text: &[u8]) -> io::Result<()> {
    read_request(&mut stream)?;
    dripping(stream, text)
}

/// A byte a segment.
pub fn dripping(mut stream: TcpStream, text: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for byte in text {
        stream.write_all(&[*byte])?;
        std::thread::sleep(Duration::from_millis(5));
    }
    hang(stream)
}

/// For as long as it is listened to.
pub fn endlessly(mut stream: TcpStream, first: &[u8]) -> io::Result<()> {
    stream.write_all(first)?;
    loop {
        stream.write_all(&[b'a'; 4096])?;
    }
}

/// 200 for this request, to the byte, and 400 for any other.
pub fn expect(mut stream: TcpStream, request: &str) -> io::Result<()> {
    let well = read_request(&mut stream)? == request.as_bytes();
    let status = if well { "200 OK" } else { "400 Bad Request" };
    stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())?;
    hang(stream)
}

/// The same over TLS, with a certificate that nobody would trust and that has expired.
pub fn secure(stream: TcpStream, text: &[u8]) -> io::Result<()> {
    let mut stream = handshake(stream, |_| Ok(()))?;
    read_request(&mut stream)?;
    stream.write_all(text)?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// Closes after the handshake.
pub fn secure_but_silent(stream: TcpStream) -> io::Result<()> {
    let mut stream = handshake(stream, |_| Ok(()))?;
    read_request(&mut stream)?;
    stream.shutdown().map(drop).map_err(io::Error::other)
}

/// As a server of twenty years ago, which knows TLS 1.0 and SHA-1.
pub fn old(stream: TcpStream, text: &[u8]) -> io::Result<()> {
    let mut stream = handshake(stream, |builder| {
        builder.set_min_proto_version(None)?;
        builder.set_max_proto_version(Some(SslVersion::TLS1))?;
        builder.set_cipher_list("AES128-SHA:@SECLEVEL=0")
    })?;
    read_request(&mut stream)?;
    stream.write_all(text)?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// Wants a certificate of its client, who has none.
pub fn mutual(stream: TcpStream) -> io::Result<()> {
    let mut stream = handshake(stream, |builder| {
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        Ok(())
    })?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn handshake(
    stream: TcpStream,
    change: impl FnOnce(&mut SslContextBuilder) -> Result<(), openssl::error::ErrorStack>,
) -> io::Result<SslStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let issued = issued();
    let mut builder = SslContext::builder(SslMethod::tls_server())?;
    builder.set_certificate(&issued.certificate)?;
    builder.set_private_key(&issued.key)?;
    change(&mut builder)?;
    let ssl = Ssl::new(&builder.build())?;
    ssl.accept(stream).map_err(|error| io::Error::other(error.to_string()))
}

fn issued() -> &'static Issued {
    static ISSUED: OnceLock<Issued> = OnceLock::new();
    ISSUED.get_or_init(|| {
        let authority = Authority::new("nobody knows").unwrap();
        authority.issue("another.example", Kind::Expired).unwrap()
    })
}

/// Up to the empty line.
fn read_request(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    Ok(request)
}

/// All that comes at once, so that a close with unread bytes is no reset.
fn read_some(stream: &mut TcpStream) -> io::Result<()> {
    stream.read(&mut [0; 4096]).map(drop)
}
