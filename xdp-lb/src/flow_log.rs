//! A tenant's log of a connection that is over: the line that HAProxy would write, by the `log-format` that
//! Octavia uploads.

use std::fmt::Write;
use std::net::SocketAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A connection that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub client: SocketAddr,
    pub vip: SocketAddr,
    /// Payload from the client, and to it.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Milliseconds since 1970.
    pub opened_ms: u64,
    pub ended_ms: u64,
    pub end: End,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides have finished.
    Closed,
    ClientReset,
    MemberReset,
    /// The member failed its checks, and its connections were reset.
    TakenOut,
    /// Nothing was said for the idle timeout.
    Idle,
    /// The member refused it.
    Refused,
}

/// Who had it, by their ids.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    pub listener: &'a str,
    pub pool: &'a str,
    pub member: &'a str,
}

/// A format, taken apart once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Is { variable: Variable, quoted: bool },
}

/// What of HAProxy's variables is known of a connection (HAProxy configuration manual, 8.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Frontend,
    Backend,
    Server,
    ClientAddress,
    ClientPort,
    VipAddress,
    VipPort,
    /// Local time, with milliseconds.
    Accepted,
    AcceptedUtc,
    AcceptedLocal,
    AcceptedSeconds,
    Milliseconds,
    BytesOut,
    BytesIn,
    /// Two letters: who ended it, and when.
    Ended,
    /// The same, and what became of its cookie, of which there is none.
    EndedWithCookie,
    /// Of a request, of TLS, or of HAProxy's insides.
    Unknown,
}

/// By their names, which follow the `%`.
#[rustfmt::skip]
static VARIABLES: [(&str, Variable); 18] = [
    ("f", Variable::Frontend), ("ft", Variable::Frontend),
    ("b", Variable::Backend), ("s", Variable::Server),
    ("ci", Variable::ClientAddress), ("cp", Variable::ClientPort),
    ("fi", Variable::VipAddress), ("fp", Variable::VipPort),
    ("t", Variable::Accepted), ("tr", Variable::Accepted),
    ("T", Variable::AcceptedUtc), ("Tl", Variable::AcceptedLocal), ("Ts", Variable::AcceptedSeconds),
    ("Tt", Variable::Milliseconds),
    ("B", Variable::BytesOut), ("U", Variable::BytesIn),
    ("ts", Variable::Ended), ("tsc", Variable::EndedWithCookie),
];

/// Bytes of a line, as of HAProxy's (`log ... len 1024`).
pub const LINE_MAX: usize = 1024;

impl Format {
    /// Of the text behind `log-format`, with its blanks no longer escaped. What is no variable is text.
    pub fn parse(text: &str) -> Self {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (flags, after) = flags(after);
            let (variable, after) = variable(after);
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Is { variable, quoted: flags.contains("+Q") });
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Self(pieces)
    }

    /// The line of a connection, without its end. Times are local ones in this zone.
    pub fn line(&self, finished: &Finished, names: Names<'_>, zone: &TimeZone) -> String {
        let mut line = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Is { variable, quoted } => {
                    let value = value(*variable, finished, names, zone);
                    // An empty one is a dash, unless quotes show that it is empty.
                    let _ = match (value, quoted) {
                        (Some(value), true) => write!(line, "\"{value}\""),
                        (Some(value), false) => write!(line, "{value}"),
                        (None, true) => write!(line, "\"\""),
                        (None, false) => write!(line, "-"),
                    };
                }
            }
        }
        // One line, whatever the format holds.
        line.retain(|character| !character.is_control());
        line.truncate(line.floor_char_boundary(LINE_MAX));
        line
    }
}

/// `{+Q,-X}` before a variable.
fn flags(text: &str) -> (&str, &str) {
    let inside = text.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    inside.unwrap_or(("", text))
}

/// The longest name that fits, or a sample in brackets, of which none is known of packets.
fn variable(text: &str) -> (Variable, &str) {
    if let Some((_, after)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (Variable::Unknown, after);
    }
    let name = text.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(text.len());
    let (name, after) = text.split_at(name);
    let known = VARIABLES.iter().find(|(known, _)| *known == name);
    (known.map_or(Variable::Unknown, |(_, variable)| *variable), after)
}

fn value(
    variable: Variable,
    finished: &Finished,
    names: Names<'_>,
    zone: &TimeZone,
) -> Option<String> {
    let Finished { client, vip, bytes_in, bytes_out, opened_ms, ended_ms, end } = finished;
    let accepted = |form: &str, zone: &TimeZone| {
        let at = Timestamp::from_millisecond(i64::try_from(*opened_ms).ok()?).ok()?;
        Some(at.to_zoned(zone.clone()).strftime(form).to_string())
    };
    match variable {
        Variable::Frontend => Some(names.listener.to_owned()),
        Variable::Backend => Some(format!("{}:{}", names.pool, names.listener)),
        Variable::Server => Some(names.member.to_owned()),
        Variable::ClientAddress => Some(client.ip().to_string()),
        Variable::ClientPort => Some(client.port().to_string()),
        Variable::VipAddress => Some(vip.ip().to_string()),
        Variable::VipPort => Some(vip.port().to_string()),
        Variable::Accepted => accepted("%d/%b/%Y:%H:%M:%S.%3f", zone),
        Variable::AcceptedUtc => accepted("%d/%b/%Y:%H:%M:%S %z", &TimeZone::UTC),
        Variable::AcceptedLocal => accepted("%d/%b/%Y:%H:%M:%S %z", zone),
        Variable::AcceptedSeconds => Some((opened_ms / 1000).to_string()),
        Variable::Milliseconds => Some(ended_ms.saturating_sub(*opened_ms).to_string()),
        Variable::BytesOut => Some(bytes_out.to_string()),
        Variable::BytesIn => Some(bytes_in.to_string()),
        Variable::Ended => Some(end.letters().to_owned()),
        Variable::EndedWithCookie => Some(format!("{}--", end.letters())),
        Variable::Unknown => None,
    }
}

impl End {
    /// HAProxy's words: `C` the client, `S` the server, in small letters their timeouts; `D` while data
    /// passed, `C` while connecting (configuration manual, 8.5). Seen with HAProxy 2.6.
    const fn letters(self) -> &'static str {
        match self {
            Self::Closed => "--",
            Self::ClientReset => "CD",
            Self::MemberReset => "SD",
            // Of two idle sides HAProxy names the client's, whose timeout it looks at first.
            Self::Idle => "cD",
            Self::TakenOut => "DD",
            Self::Refused => "SC",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names { listener: "l", pool: "p", member: "m" };

    fn finished() -> Finished {
        Finished {
            client: "198.51.100.7:4711".parse().unwrap(),
            vip: "[2001:db8::1]:80".parse().unwrap(),
            bytes_in: 5,
            bytes_out: 10,
            opened_ms: 1_795_593_048_279,
            ended_ms: 1_795_593_051_280,
            end: End::Closed,
        }
    }

    #[test]
    fn lines() {
        // As Octavia's `log_format` becomes for TCP; HAProxy 2.6 wrote this of it.
        let stock =
            "proj lb %f %ci %cp %t - - %B %U %[ssl_c_verify] %{+Q}[ssl_c_s_dn] %b %s %Tt %tsc";
        let rows = [
            (
                stock,
                "proj lb l 198.51.100.7 4711 25/Nov/2026:07:50:48.279 - - 10 5 - \"\" p:l m 3001 ----",
            ),
            ("%fi:%fp %Ts %T", "2001:db8::1:80 1795593048 25/Nov/2026:07:50:48 +0000"),
            ("%{+Q}f%{+Q,+X}s", "\"l\"\"m\""),
            ("100%% of %ts", "100% of --"),
            ("%hr %ST %Tq", "- - -"),
            ("%", "-"),
            ("%[unclosed", "-[unclosed"),
            ("a\nb\tc", "abc"),
            ("", ""),
        ];
        for (format, want) in rows {
            let line = Format::parse(format).line(&finished(), NAMES, &TimeZone::UTC);
            assert_eq!(line, want, "{format}");
        }
        let long = Format::parse(&"é".repeat(2000)).line(&finished(), NAMES, &TimeZone::UTC);
        assert_eq!(long.len(), LINE_MAX);
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let local = Format::parse("%t %Tl").line(&finished(), NAMES, &east);
        assert_eq!(local, "25/Nov/2026:09:50:48.279 25/Nov/2026:09:50:48 +0200");
    }

    #[test]
    fn ends() {
        let rows = [
            (End::Closed, "----"),
            (End::ClientReset, "CD--"),
            (End::MemberReset, "SD--"),
            (End::Idle, "cD--"),
            (End::TakenOut, "DD--"),
            (End::Refused, "SC--"),
        ];
        for (end, want) in rows {
            let finished = Finished { end, ..finished() };
            assert_eq!(Format::parse("%tsc").line(&finished, NAMES, &TimeZone::UTC), want);
        }
    }
}
