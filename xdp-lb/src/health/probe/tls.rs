//! TLS towards a member: a whole handshake for HTTPS, the first answer for TLS-HELLO.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod, SslVerifyMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, join, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_openssl::SslStream;

use super::failure::Failure;
use super::tcp;

/// All that OpenSSL still knows, of servers that nobody updates, but for Diffie-Hellman of the
/// server's own making: 10,000 bits, which is what OpenSSL accepts, keep a core busy for almost
/// half a second.
const CIPHERS: &str = "ALL:!kDHE:@SECLEVEL=0";
/// Those that a server may choose, for the same reason.
const GROUPS: &str = "X25519:P-256:P-384:P-521";

/// What is read of a server, which could go on with session tickets for ever: chains of
/// certificates may have 100 KiB with OpenSSL.
const BYTES_MAX: u64 = 256 << 10;

pub struct Tls {
    context: SslContext,
    /// A ClientHello, the same for every TLS-HELLO: no handshake is ever made of it. HAProxy's is a
    /// constant too.
    hello: Vec<u8>,
}

impl Tls {
    pub fn new() -> io::Result<Self> {
        let context = context()?;
        let hello = client_hello(&context)?;
        Ok(Self { context, hello })
    }

    /// Connects, shakes hands, and takes any certificate. `patience` is for both, as with HAProxy
    /// 2.6 (seen: a silent server is "Layer6 timeout" after `timeout connect`). No SNI, as without
    /// `check-sni`.
    pub async fn connect(
        &self,
        at: SocketAddr,
        patience: Duration,
    ) -> Result<SslStream<impl AsyncRead + AsyncWrite + Unpin>, Failure> {
        let deadline = Instant::now() + patience;
        let stream = tcp::connect(at, patience).await?;
        // Else the request waits until the handshake's last message is acknowledged.
        stream.set_nodelay(true).map_err(|error| Failure::ours("TCP_NODELAY", &error))?;
        let (from, to) = split(stream);
        let bounded = join(from.take(BYTES_MAX), to);
        let made = Ssl::new(&self.context).and_then(|ssl| SslStream::new(ssl, bounded));
        let mut stream = made.map_err(|errors| Failure::tls(&errors))?;
        match timeout_at(deadline, Pin::new(&mut stream).connect()).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => {
                let error = error.into_io_error().unwrap_or_else(io::Error::other);
                Err(Failure::met("TLS handshake", &error))
            }
            Err(_) => Err(Failure::Late { awaited: "TLS handshake", within: patience }),
        }
    }

    /// Sends a ClientHello, and passes with any handshake message or alert: a server that objects
    /// to the hello speaks TLS. (HAProxy `tcpcheck.c`, `proxy_parse_ssl_hello_chk_opt`: 5 bytes, of
    /// which the first is 0x15 or 0x16. The second is here as well: there is no TLS but of major
    /// version 3.)
    pub async fn hello(&self, mut stream: TcpStream, patience: Duration) -> Result<(), Failure> {
        let mut header = [0; 5];
        let mut received = 0;
        let asked = async {
            // As for HTTP: what was said before a close is read.
            let sent = stream.write_all(&self.hello).await;
            while received < header.len() {
                match stream.read(&mut header[received..]).await {
                    Ok(0) if sent.is_err() => return Err(Failure::Reset { received }),
                    Ok(0) => return Err(Failure::Closed { received }),
                    Ok(more) => received += more,
                    Err(error) => return Err(Failure::met("read", &error).after(received)),
                }
            }
            Ok(())
        };
        let answered = timeout(patience, asked).await;
        answered.map_err(|_| Failure::Late { awaited: "answer", within: patience })??;
        match header {
            [0x15 | 0x16, 3, ..] => Ok(()),
            _ => Err(Failure::garbage("TLS", &header)),
        }
    }
}

fn context() -> Result<SslContext, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_min_proto_version(None)?;
    builder.set_cipher_list(CIPHERS)?;
    builder.set_groups_list(GROUPS)?;
    Ok(builder.build())
}

/// What OpenSSL says first, to nobody.
fn client_hello(context: &SslContext) -> io::Result<Vec<u8>> {
    #[derive(Debug)]
    struct Nobody(Vec<u8>);
    impl Read for Nobody {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Nobody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    match Ssl::new(context)?.connect(Nobody(Vec::new())) {
        Err(HandshakeError::WouldBlock(waiting)) => Ok(waiting.get_ref().0.clone()),
        Err(error) => Err(io::Error::other(error)),
        Ok(_) => Err(io::Error::other("a TLS handshake without a server")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_is_one_record_of_a_handshake() {
        let hello = Tls::new().unwrap().hello;
        assert_eq!(hello[0], 0x16);
        assert_eq!(usize::from(u16::from_be_bytes([hello[3], hello[4]])), hello.len() - 5);
        assert_eq!(hello[5], 1, "a ClientHello");
    }
}
