//! Local sockets that would answer where the packet path comes first.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Facts, Finding};

/// A socket that waits for whoever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub protocol: Protocol,
    pub at: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

const FILES: [(&str, Protocol); 4] = [
    ("/proc/thread-self/net/tcp", Protocol::Tcp),
    ("/proc/thread-self/net/tcp6", Protocol::Tcp),
    ("/proc/thread-self/net/udp", Protocol::Udp),
    ("/proc/thread-self/net/udp6", Protocol::Udp),
];

/// Of the network namespace of this thread. A file that is not there has no sockets: no IPv6.
pub fn waiting() -> Vec<Waiting> {
    let read = |(path, protocol): (&str, Protocol)| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().skip(1).filter_map(|line| parse(line, protocol)).collect::<Vec<_>>()
    };
    FILES.into_iter().flat_map(read).collect()
}

/// A line of `/proc/net/tcp`: a number, the socket's own address, the other's, the state.
fn parse(line: &str, protocol: Protocol) -> Option<Waiting> {
    let mut words = line.split_whitespace().skip(1);
    let (own, _, state) = (words.next()?, words.next()?, words.next()?);
    // TCP_LISTEN, and TCP_CLOSE, which is that of a datagram socket without a peer.
    let waits = state
        == match protocol {
            Protocol::Tcp => "0A",
            Protocol::Udp => "07",
        };
    let (address, port) = own.split_once(':')?;
    let at = SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?);
    waits.then_some(Waiting { protocol, at })
}

/// Words of 32 bits in hex, each as this machine has it in memory.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (octets, at) in octets.chunks_exact_mut(4).zip((0..).step_by(8)) {
                octets.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

pub fn shadowed(facts: &Facts) -> Vec<Finding> {
    let Ok(network) = &facts.network else { return Vec::new() };
    let listeners = facts.record.iter().flat_map(|record| &record.listeners);
    let listeners = listeners.filter(|listener| listener.number.is_some());
    let mut findings = Vec::new();
    for listener in listeners {
        let answers = |socket: &&Waiting| {
            let is_vip = |vip: &IpAddr| {
                *vip == socket.at.ip()
                    || (socket.at.ip().is_unspecified()
                        && (vip.is_ipv4() == socket.at.is_ipv4() || socket.at.is_ipv6()))
            };
            let protocol = match socket.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            (protocol, socket.at.port()) == (&listener.protocol[..], listener.port)
                && listener.vips.iter().any(is_vip)
        };
        if let Some(socket) = network.waiting.iter().find(answers) {
            let port = listener.port;
            let flag = if socket.protocol == Protocol::Tcp { "t" } else { "u" };
            let found = format!(
                "{} port {port} is listened on here too, and new connections never come there",
                listener.protocol
            );
            let mend = format!("the end of that program: `ss -{flag}lnp sport = :{port}`");
            findings.push(Finding::warning(&format!("listener {}", listener.id), found, mend));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level::Warning;
    use super::super::facts::tests::{inside, said, well};
    use super::*;

    #[test]
    fn lines_of_proc() {
        let tail =
            "00000000:00000000 00:00000000 00000000     0        0 12345 1 0000 100 0 0 10 0";
        let v6 = "000080FE00000000FF005450B6AD1DFE";
        let rows = [
            ("0: 0100007F:1F90 00000000:0000 0A", Protocol::Tcp, Some("127.0.0.1:8080")),
            ("0: 00000000:0050 00000000:0000 0A", Protocol::Tcp, Some("0.0.0.0:80")),
            ("1: 0100007F:1F90 0200007F:0050 01", Protocol::Tcp, None),
            ("2: 00000000:0035 00000000:0000 07", Protocol::Udp, Some("0.0.0.0:53")),
            ("2: 00000000:0035 0200007F:0050 01", Protocol::Udp, None),
            (
                &format!("0: {v6}:0050 {}:0000 0A", "0".repeat(32)),
                Protocol::Tcp,
                Some("[fe80::5054:ff:fe1d:adb6]:80"),
            ),
            (
                &format!("0: 0000000000000000FFFF00000100007F:0050 {}:0000 0A", "0".repeat(32)),
                Protocol::Tcp,
                Some("127.0.0.1:80"),
            ),
            ("torn", Protocol::Tcp, None),
        ];
        for (line, protocol, want) in rows {
            let got = parse(&format!("   {line} {tail}"), protocol).map(|it| it.at.to_string());
            assert_eq!(got.as_deref(), want, "{line}");
        }
    }

    #[test]
    fn who_is_shadowed() {
        // Of the machine that is well: TCP on 192.0.2.10 and 2001:db8::10, port 80.
        let rows = [
            ("another port", "0.0.0.0:81", Protocol::Tcp, false),
            ("another protocol", "0.0.0.0:80", Protocol::Udp, false),
            ("another address", "127.0.0.1:80", Protocol::Tcp, false),
            ("any address", "0.0.0.0:80", Protocol::Tcp, true),
            ("any of both families", "[::]:80", Protocol::Tcp, true),
            ("the VIP", "192.0.2.10:80", Protocol::Tcp, true),
            ("the VIP of IPv6", "[2001:db8::10]:80", Protocol::Tcp, true),
        ];
        for (row, at, protocol, is) in rows {
            let mut facts = well();
            let at = at.parse().unwrap();
            inside(&mut facts).waiting = vec![Waiting { protocol, at }];
            let want = [(Warning, "listener web", "ss -tlnp sport = :80")];
            said(&shadowed(&facts), if is { &want } else { &[] }, row);
        }
    }
}
