//! Where heartbeats go.

use std::fmt;

use crate::oslo;

/// One health manager: an item of `controller_ip_port_list`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// An address, or a name to be resolved; without brackets.
    pub host: String,
    /// UDP, not 0.
    pub port: u16,
}

/// An item of `controller_ip_port_list` that is no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[health_manager] controller_ip_port_list: {item:?} is not host:port or [address]:port")]
pub struct BadDestination {
    /// As found; may be empty, between two commas.
    pub item: String,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The destinations of a list, in its order, and the items that are none.
pub fn parse(list: &str) -> (Vec<Destination>, Vec<BadDestination>) {
    let (mut destinations, mut faults) = (Vec::new(), Vec::new());
    for item in oslo::list(list) {
        match destination(item) {
            Some(destination) => destinations.push(destination),
            None => faults.push(BadDestination { item: item.to_owned() }),
        }
    }
    (destinations, faults)
}

/// Splits at the last colon, as `UDPStatusSender` does: the brackets of an address are optional.
fn destination(item: &str) -> Option<Destination> {
    let (host, port) = item.rsplit_once(':')?;
    let within = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = within.unwrap_or(host);
    let port = oslo::integer(port).and_then(|port| u16::try_from(port).ok());
    // Whatever else a host may be, the resolver decides.
    let is_host = !host.is_empty() && !host.contains(['[', ']', '/']) && !host.contains(blank);
    let host = is_host.then(|| host.to_owned())?;
    Some(Destination { host, port: port.filter(|port| *port != 0)? })
}

fn blank(character: char) -> bool {
    character.is_whitespace() || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        type Hosts<'a> = &'a [(&'a str, u16)];
        #[rustfmt::skip]
        let rows: [(&str, Hosts, &[&str]); 22] = [
            ("", &[], &[]),
            ("192.0.2.5:5555", &[("192.0.2.5", 5555)], &[]),
            ("192.0.2.5:5555, 192.0.2.6:5556", &[("192.0.2.5", 5555), ("192.0.2.6", 5556)], &[]),
            ("192.0.2.5:5555,\n192.0.2.6:5556,", &[("192.0.2.5", 5555), ("192.0.2.6", 5556)], &[]),
            ("192.0.2.5:1,192.0.2.5:1", &[("192.0.2.5", 1), ("192.0.2.5", 1)], &[]),
            ("[2001:db8::5]:5555", &[("2001:db8::5", 5555)], &[]),
            ("2001:db8::6:5555", &[("2001:db8::6", 5555)], &[]),
            ("[fe80::1%eth0]:65535", &[("fe80::1%eth0", 65535)], &[]),
            ("manager.example:5555", &[("manager.example", 5555)], &[]),
            ("x, 192.0.2.5:1, y:z, 192.0.2.6:2", &[("192.0.2.5", 1), ("192.0.2.6", 2)], &["x", "y:z"]),
            ("192.0.2.5:1,, 192.0.2.6:2", &[("192.0.2.5", 1), ("192.0.2.6", 2)], &[""]),
            ("192.0.2.5", &[], &["192.0.2.5"]),
            ("192.0.2.5:", &[], &["192.0.2.5:"]),
            (":5555", &[], &[":5555"]),
            ("[]:5555", &[], &["[]:5555"]),
            ("[2001:db8::5]", &[], &["[2001:db8::5]"]),
            ("[2001:db8::5:5555", &[], &["[2001:db8::5:5555"]),
            ("192.0.2.5:0", &[], &["192.0.2.5:0"]),
            ("192.0.2.5:65536", &[], &["192.0.2.5:65536"]),
            ("192.0.2.5:-1", &[], &["192.0.2.5:-1"]),
            ("192.0.2.5:5555 192.0.2.6:5555", &[], &["192.0.2.5:5555 192.0.2.6:5555"]),
            ("udp://192.0.2.5:5555", &[], &["udp://192.0.2.5:5555"]),
        ];
        for (row, hosts, bad) in rows {
            let destination = |&(host, port): &(&str, u16)| Destination { host: host.into(), port };
            let fault = |&item: &&str| BadDestination { item: item.into() };
            let want = (
                hosts.iter().map(destination).collect::<Vec<_>>(),
                bad.iter().map(fault).collect::<Vec<_>>(),
            );
            assert_eq!(parse(row), want, "{row}");
        }
    }

    #[test]
    fn shown() {
        let rows = ["192.0.2.5:5555", "[2001:db8::5]:5555", "manager.example:1"];
        for row in rows {
            let shown = destination(row).map(|it| it.to_string());
            assert_eq!(shown.as_deref(), Some(row));
        }
    }
}
