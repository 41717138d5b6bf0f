//! Why a probe did not pass, in words for an operator at night.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use openssl::error::ErrorStack;
use openssl::ssl;

/// What was seen instead of what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("connection refused")]
    Refused,
    /// By ICMP, or as the routes and neighbours of this machine have it.
    #[error("{0} unreachable")]
    Unreachable(&'static str),
    #[error("administratively prohibited")]
    Prohibited,
    #[error("no {awaited} within {within:?}")]
    Late { awaited: &'static str, within: Duration },
    #[error("the connection was reset after {received} bytes")]
    Reset { received: usize },
    #[error("the connection was closed after {received} bytes")]
    Closed { received: usize },
    #[error("an answer that is no {protocol}: {seen}")]
    Garbage { protocol: &'static str, seen: Seen },
    /// In OpenSSL's words: "wrong version number" is no TLS at all.
    #[error("TLS: {0}")]
    Tls(String),
    #[error("status {code}, and {} expected", any_of(.expected))]
    Status { code: u16, expected: BTreeSet<u16> },
    #[error("SCTP ABORT")]
    Aborted,
    #[error("{0} packets, and none of them the answer")]
    Noise(usize),
    #[error("{call}: {errno}")]
    Network { call: &'static str, errno: Errno },
    /// Nothing was sent, so nothing is known of the member: see [`Failure::is_ours`].
    #[error("this machine cannot probe: {call}: {errno}")]
    Ours { call: &'static str, errno: Errno },
}

/// The first bytes of an answer, printed without what would disturb a terminal.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen(Vec<u8>);

impl Failure {
    /// Whether it says something of this machine only: no descriptor, no memory, no right. HAProxy
    /// does not count such a check (`HCHK_STATUS_SOCKERR` is `CHK_RES_UNKNOWN`).
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Ours { .. })
    }

    pub(super) fn garbage(protocol: &'static str, answer: &[u8]) -> Self {
        Self::Garbage { protocol, seen: Seen::of(answer) }
    }

    /// Of a stream, of which so many bytes had come before it.
    pub(super) fn after(self, bytes: usize) -> Self {
        match self {
            Self::Reset { .. } => Self::Reset { received: bytes },
            Self::Closed { .. } => Self::Closed { received: bytes },
            other => other,
        }
    }

    /// A socket that could not be made.
    pub(super) fn ours(call: &'static str, error: &io::Error) -> Self {
        Self::Ours { call, errno: errno(error) }
    }

    pub(super) fn tls(errors: &ErrorStack) -> Self {
        let reason = errors.errors().iter().find_map(|error| error.reason());
        Self::Tls(reason.unwrap_or("an error without a reason").to_owned())
    }

    /// What a connection, or a datagram on its way, met.
    pub(super) fn met(call: &'static str, error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ssl::Error>());
        if let Some(inner) = inner {
            // Without errors, it is the end of the connection that was not expected.
            return inner.ssl_error().map_or(Self::Closed { received: 0 }, Self::tls);
        }
        match errno(error) {
            Errno::ECONNREFUSED => Self::Refused,
            Errno::ECONNRESET | Errno::EPIPE => Self::Reset { received: 0 },
            Errno::EHOSTUNREACH => Self::Unreachable("host"),
            Errno::ENETUNREACH => Self::Unreachable("network"),
            Errno::EACCES => Self::Prohibited,
            // As ICMP and as ICMPv6 have it.
            Errno::ENOPROTOOPT | Errno::EPROTO => Self::Unreachable("protocol"),
            // The last two: no source port is left, which HAProxy's own connections use too.
            errno @ (Errno::EAGAIN
            | Errno::ENOBUFS
            | Errno::ENOMEM
            | Errno::EADDRNOTAVAIL
            | Errno::EADDRINUSE) => Self::Ours { call, errno },
            errno => Self::Network { call, errno },
        }
    }
}

impl Seen {
    /// Enough for a banner.
    const BYTES_MAX: usize = 32;

    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes[..bytes.len().min(Self::BYTES_MAX)].to_vec())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.0.len() == Self::BYTES_MAX { "..." } else { "" };
        write!(f, "\"{}{more}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// "200 is", "200 or 204 are", "200, 201 or 204 are".
fn any_of(codes: &BTreeSet<u16>) -> String {
    let words: Vec<String> = codes.iter().map(u16::to_string).collect();
    match &words[..] {
        [] => "none is".to_owned(),
        [one] => format!("{one} is"),
        [most @ .., last] => format!("{} or {last} are", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let status = |codes: &[u16]| Failure::Status {
            code: 500,
            expected: codes.iter().copied().collect(),
        };
        let rows = [
            (Failure::Unreachable("port"), "port unreachable"),
            (
                Failure::Late { awaited: "answer", within: Duration::from_secs(5) },
                "no answer within 5s",
            ),
            (Failure::Reset { received: 12 }, "the connection was reset after 12 bytes"),
            (
                Failure::garbage("HTTP", b"SSH-2.0-OpenSSH\r\n\x1b[2J"),
                r#"an answer that is no HTTP: "SSH-2.0-OpenSSH\r\n\x1b[2J""#,
            ),
            (
                Failure::garbage("HTTP", &[b'a'; 100]),
                r#"an answer that is no HTTP: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...""#,
            ),
            (status(&[200]), "status 500, and 200 is expected"),
            (status(&[200, 204]), "status 500, and 200 or 204 are expected"),
            (status(&[200, 201, 204]), "status 500, and 200, 201 or 204 are expected"),
            (
                Failure::ours("socket", &io::Error::from_raw_os_error(24)),
                "this machine cannot probe: socket: EMFILE: Too many open files",
            ),
        ];
        for (failure, words) in rows {
            assert_eq!(failure.to_string(), words);
        }
    }
}
