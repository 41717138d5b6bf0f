//! Who may reach the VIPs of a virtual function: `PUT /interface/<ip>/rules` (Octavia 19
//! `amphora_agent/rules_schema.py`).
//!
//! Other VIPs have a security group of Neutron in front of them and no rules here.

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

/// Lets in what matches; nothing else comes in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub protocol: Protocol,
    /// Whence; none is from anywhere.
    #[serde(deserialize_with = "network")]
    pub cidr: Option<IpNet>,
    /// 1 to 65535; VRRP has no ports and Octavia says 112.
    #[serde(deserialize_with = "port")]
    pub port: u16,
}

/// As Octavia spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
    #[serde(rename = "vrrp")]
    Vrrp,
}

/// All the rules of an interface, from the body.
pub fn from_json(body: &[u8]) -> Result<Vec<Rule>, serde_json::Error> {
    serde_json::from_slice(body)
}

/// A key that must be there and may be null. Bits right of the prefix mean nothing.
fn network<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpNet>, D::Error> {
    let network: Option<IpNet> = Option::deserialize(from)?;
    Ok(network.map(|network| network.trunc()))
}

fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u16::deserialize(from)? {
        0 => Err(serde::de::Error::custom("port 0 is not a port")),
        port => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let rule = |protocol, cidr: Option<&str>, port| Rule {
            protocol,
            cidr: cidr.map(|cidr| cidr.parse().unwrap()),
            port,
        };
        let one = |protocol: &str, cidr: &str, port: &str| {
            format!(r#"[{{"protocol":{protocol},"cidr":{cidr},"port":{port}}}]"#)
        };
        let rows = [
            ("none", "[]".to_owned(), Ok(vec![])),
            (
                "from anywhere",
                one(r#""TCP""#, "null", "80"),
                Ok(vec![rule(Protocol::Tcp, None, 80)]),
            ),
            (
                "the other amphora",
                one(r#""vrrp""#, r#""10.0.0.12/32""#, "112"),
                Ok(vec![rule(Protocol::Vrrp, Some("10.0.0.12/32"), 112)]),
            ),
            (
                "host bits",
                one(r#""SCTP""#, r#""10.0.0.12/24""#, "1"),
                Ok(vec![rule(Protocol::Sctp, Some("10.0.0.0/24"), 1)]),
            ),
            (
                "IPv6",
                one(r#""UDP""#, r#""2001:db8::/64""#, "65535"),
                Ok(vec![rule(Protocol::Udp, Some("2001:db8::/64"), 65535)]),
            ),
            ("an object", r#"{"a":1}"#.to_owned(), Err("invalid type: map, expected a sequence")),
            ("HTTP", one(r#""HTTP""#, "null", "80"), Err("unknown variant `HTTP`")),
            ("VRRP in capitals", one(r#""VRRP""#, "null", "112"), Err("unknown variant `VRRP`")),
            ("port 0", one(r#""TCP""#, "null", "0"), Err("port 0 is not a port")),
            (
                "no port",
                r#"[{"protocol":"TCP","cidr":null}]"#.to_owned(),
                Err("missing field `port`"),
            ),
            (
                "no network",
                r#"[{"protocol":"TCP","port":1}]"#.to_owned(),
                Err("missing field `cidr`"),
            ),
            (
                "another key",
                r#"[{"protocol":"TCP","cidr":null,"port":1,"x":1}]"#.to_owned(),
                Err("unknown field `x`"),
            ),
        ];
        for (row, body, want) in rows {
            match (from_json(body.as_bytes()), want) {
                (Ok(rules), Ok(want)) => assert_eq!(rules, want, "{row}"),
                (Err(error), Err(want)) => {
                    assert!(error.to_string().starts_with(want), "{row}: {error}");
                }
                (got, want) => panic!("{row}: {got:?}, not {want:?}"),
            }
        }
    }
}
