//! What Octavia says of a network interface that it has put into the amphora.
//!
//! The bodies of `POST /plug/vip/<vip>` and `POST /plug/network` (Octavia
//! `amphora_agent/plug.py`), checked as the stock agent checks them. Keys that nobody knows are ignored:
//! a newer controller may send more.

use std::fmt;
use std::net::{AddrParseError, IpAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

/// The interface of the VIPs, which becomes `eth1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipPlug {
    pub mac: Mac,
    /// Bytes; none leaves the interface as it is.
    pub mtu: Option<u32>,
    /// The amphora's own address on it, which stays when the VIPs move; none asks DHCP and SLAAC.
    pub own: Option<IpAddr>,
    /// The VIP, then the additional ones. Never empty.
    pub vips: Vec<Address>,
    /// A virtual function of the host's NIC: no security group of Neutron is in front of it.
    pub sriov: bool,
}

/// An interface towards members, `eth2` and on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlug {
    pub mac: Mac,
    pub mtu: Option<u32>,
    /// All of its addresses; none asks DHCP and SLAAC.
    pub addresses: Option<Vec<Address>>,
    pub sriov: bool,
    /// The interface is that of the VIPs: some members are in their network.
    pub vip: Option<VipPlug>,
}

/// An address in its subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub address: IpAddr,
    /// Without bits right of the prefix.
    pub subnet: IpNet,
    pub gateway: Option<IpAddr>,
    pub host_routes: Vec<HostRoute>,
}

/// A route of a subnet, beside its gateway (Neutron `host_routes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    pub destination: IpNet,
    #[serde(rename = "nexthop")]
    pub next_hop: IpAddr,
}

/// A MAC address, written `fa:16:3e:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A text that is no [`Mac`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address")]
pub struct BadMac(String);

/// Why a body is refused; each is an answer of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not JSON, not an object, a key that is missing or of another type.
    #[error("{0}")]
    Form(String),
    #[error("{0}")]
    Vip(String),
    #[error("{0}")]
    Vrrp(String),
    #[error("{0}")]
    Port(String),
}

impl VipPlug {
    /// From the body of `POST /plug/vip/<vip>`, and the `vip` of the path.
    pub fn from_json(vip: &str, body: &[u8]) -> Result<Self, Refused> {
        let body: VipBody = form(body)?;
        body.checked(vip)
    }

    /// The same with the additional VIPs that it had before, if it has none now, and as a virtual
    /// function if it was one: the controller leaves both out when it plugs a network of members into the
    /// interface of the VIPs.
    fn remembering(mut self, before: &Self) -> Self {
        self.sriov |= before.sriov;
        if let ([_], [_, additional @ ..]) = (&self.vips[..], &before.vips[..]) {
            self.vips.extend_from_slice(additional);
        }
        self
    }
}

impl NetworkPlug {
    /// From the body of `POST /plug/network`.
    pub fn from_json(body: &[u8]) -> Result<Self, Refused> {
        let body: NetworkBody = form(body)?;
        let addresses = body
            .fixed_ips
            .map(|fixed_ips| fixed_ips.iter().map(AddressBody::checked).collect::<Result<_, _>>());
        Ok(Self {
            mac: body.mac_address,
            mtu: body.mtu,
            addresses: addresses.transpose().map_err(Refused::Port)?,
            sriov: body.is_sriov,
            vip: body.vip_net_info.map(|info| info.body.checked(&info.vip)).transpose()?,
        })
    }

    /// The same with what is known from before of the VIPs, and was left out of the body.
    pub fn remembering(mut self, before: Option<&VipPlug>) -> Self {
        self.vip = match (self.vip, before) {
            (Some(vip), Some(before)) if vip.mac == before.mac => Some(vip.remembering(before)),
            (vip, _) => vip,
        };
        self
    }
}

#[derive(Deserialize)]
struct VipBody {
    subnet_cidr: String,
    // A key that must be there and may be null.
    #[serde(deserialize_with = "Option::deserialize")]
    gateway: Option<String>,
    mac_address: Mac,
    vrrp_ip: Option<String>,
    mtu: Option<u32>,
    #[serde(default, deserialize_with = "or_empty")]
    host_routes: Vec<RouteBody>,
    #[serde(default, deserialize_with = "or_empty")]
    additional_vips: Vec<AddressBody>,
    #[serde(default)]
    is_sriov: bool,
}

#[derive(Deserialize)]
struct NetworkBody {
    mac_address: Mac,
    fixed_ips: Option<Vec<AddressBody>>,
    mtu: Option<u32>,
    #[serde(default)]
    is_sriov: bool,
    vip_net_info: Option<VipInfo>,
}

#[derive(Deserialize)]
struct VipInfo {
    vip: String,
    // Octavia leaves the address of the interface to the port around it.
    #[serde(flatten)]
    body: VipBody,
}

#[derive(Deserialize)]
struct AddressBody {
    ip_address: String,
    subnet_cidr: String,
    gateway: Option<String>,
    #[serde(default, deserialize_with = "or_empty")]
    host_routes: Vec<RouteBody>,
}

#[derive(Clone, Deserialize)]
struct RouteBody {
    destination: String,
    nexthop: String,
}

impl VipBody {
    fn checked(self, vip: &str) -> Result<VipPlug, Refused> {
        let primary = AddressBody {
            ip_address: vip.to_owned(),
            subnet_cidr: self.subnet_cidr,
            gateway: self.gateway,
            host_routes: self.host_routes,
        };
        let vips = std::iter::once(&primary).chain(&self.additional_vips);
        let vips = vips.map(AddressBody::checked).collect::<Result<_, _>>();
        let own = self.vrrp_ip.as_deref().map(address).transpose();
        Ok(VipPlug {
            mac: self.mac_address,
            mtu: self.mtu,
            vips: vips.map_err(Refused::Vip)?,
            own: own.map_err(Refused::Vrrp)?,
            sriov: self.is_sriov,
        })
    }
}

impl AddressBody {
    fn checked(&self) -> Result<Address, String> {
        Ok(Address {
            address: address(&self.ip_address)?,
            subnet: network(&self.subnet_cidr)?,
            gateway: self.gateway.as_deref().map(address).transpose()?,
            host_routes: self
                .host_routes
                .iter()
                .map(RouteBody::checked)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl RouteBody {
    fn checked(&self) -> Result<HostRoute, String> {
        Ok(HostRoute {
            destination: network(&self.destination)?,
            next_hop: address(&self.nexthop)?,
        })
    }
}

fn form<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::Form(error.to_string()))
}

/// In the words of Python's `ipaddress`, which operators know from the stock agent's log.
fn address(text: &str) -> Result<IpAddr, String> {
    let unlike =
        |_: AddrParseError| format!("'{text}' does not appear to be an IPv4 or IPv6 address");
    text.parse().map_err(unlike)
}

/// A single address is a network of one, as in Python.
fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    let parsed = text.parse::<IpNet>().or_else(|_| single());
    let unlike =
        |_: AddrParseError| format!("'{text}' does not appear to be an IPv4 or IPv6 network");
    let network = parsed.map_err(unlike)?;
    if network == network.trunc() { Ok(network) } else { Err(format!("{text} has host bits set")) }
}

/// A list that may also be null.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2);
            let part = part.filter(|part| part.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let parsed = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            *byte = parsed.ok_or_else(|| BadMac(text.to_owned()))?;
        }
        if parts.next().is_none() { Ok(Self(mac)) } else { Err(BadMac(text.to_owned())) }
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A plug that is nothing but this long.
#[cfg(test)]
pub fn of_mtu(mtu: u32) -> VipPlug {
    VipPlug {
        mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 1]),
        mtu: Some(mtu),
        own: None,
        vips: vec![],
        sriov: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: &str =
        r#"{"subnet_cidr":"10.0.0.0/24","gateway":"10.0.0.1","mac_address":"fa:16:3e:00:00:01"}"#;

    #[test]
    fn refused_vips() {
        let with = |key: &str, value: &str| {
            let mut body: serde_json::Value = serde_json::from_str(VIP).unwrap();
            body[key] = serde_json::from_str(value).unwrap();
            body.to_string()
        };
        let second = |address: &str| {
            with(
                "additional_vips",
                &format!(r#"[{{"ip_address":{address},"subnet_cidr":"10.9.0.0/24"}}]"#),
            )
        };
        let form = |text: &str| Refused::Form(text.to_owned());
        let vip = |text: &str| Refused::Vip(text.to_owned());
        let not_an_address = "'banana' does not appear to be an IPv4 or IPv6 address";
        let rows = [
            ("no JSON", "x".to_owned(), form("expected value")),
            ("a list", "[1]".to_owned(), form("invalid type: integer `1`, expected a string")),
            ("no keys", "{}".to_owned(), form("missing field `subnet_cidr`")),
            ("no gateway", VIP.replace("gateway", "gate"), form("missing field `gateway`")),
            ("no MAC", with("mac_address", "null"), form("invalid type: null, expected a string")),
            (
                "half a MAC",
                with("mac_address", r#""fa:16""#),
                form("\"fa:16\" is not a MAC address"),
            ),
            (
                "host bits",
                with("subnet_cidr", r#""10.0.0.1/24""#),
                vip("10.0.0.1/24 has host bits set"),
            ),
            (
                "no subnet",
                with("subnet_cidr", r#""10.0.0.0/33""#),
                vip("'10.0.0.0/33' does not appear to be an IPv4 or IPv6 network"),
            ),
            (
                "no address of its own",
                with("vrrp_ip", r#""banana""#),
                Refused::Vrrp(not_an_address.to_owned()),
            ),
            ("a gateway", with("gateway", r#""banana""#), vip(not_an_address)),
            ("an additional VIP", second(r#""banana""#), vip(not_an_address)),
            (
                "a route",
                with("host_routes", r#"[{"destination":"10.0.0.0/8","nexthop":"banana"}]"#),
                vip(not_an_address),
            ),
        ];
        for (row, body, want) in rows {
            assert_eq!(
                VipPlug::from_json("10.0.0.10", body.as_bytes()).map_err(bare),
                Err(want),
                "{row}"
            );
        }
        let want = vip("'banana' does not appear to be an IPv4 or IPv6 address");
        assert_eq!(VipPlug::from_json("banana", VIP.as_bytes()), Err(want));
    }

    /// Without the place in the JSON.
    fn bare(refused: Refused) -> Refused {
        match refused {
            Refused::Form(text) => {
                let (text, _) = text.split_once(" at line").unwrap_or((&text, ""));
                Refused::Form(text.to_owned())
            }
            other => other,
        }
    }

    #[test]
    fn vips() {
        let least = VipPlug {
            mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 1]),
            mtu: None,
            own: None,
            vips: vec![Address {
                address: "10.0.0.10".parse().unwrap(),
                subnet: "10.0.0.0/24".parse().unwrap(),
                gateway: Some("10.0.0.1".parse().unwrap()),
                host_routes: vec![],
            }],
            sriov: false,
        };
        assert_eq!(VipPlug::from_json("10.0.0.10", VIP.as_bytes()), Ok(least.clone()));

        let all = r#"{"subnet_cidr":"10.0.0.0/24","gateway":null,"mac_address":"FA:16:3E:00:00:01",
            "vrrp_ip":"10.0.0.11","mtu":1450,"is_sriov":true,"unheard":"of",
            "host_routes":[{"destination":"172.16.0.0/12","nexthop":"10.0.0.254"}],
            "additional_vips":[{"ip_address":"2001:db8::10","subnet_cidr":"2001:db8::/64",
                "gateway":"2001:db8::1","host_routes":null}]}"#;
        let mut want = VipPlug {
            mtu: Some(1450),
            own: Some("10.0.0.11".parse().unwrap()),
            sriov: true,
            ..least.clone()
        };
        want.vips[0].gateway = None;
        want.vips[0].host_routes = vec![HostRoute {
            destination: "172.16.0.0/12".parse().unwrap(),
            next_hop: "10.0.0.254".parse().unwrap(),
        }];
        want.vips.push(Address {
            address: "2001:db8::10".parse().unwrap(),
            subnet: "2001:db8::/64".parse().unwrap(),
            gateway: Some("2001:db8::1".parse().unwrap()),
            host_routes: vec![],
        });
        assert_eq!(VipPlug::from_json("10.0.0.10", all.as_bytes()), Ok(want.clone()));

        let json = serde_json::to_string(&want).unwrap();
        assert_eq!(serde_json::from_str::<VipPlug>(&json).unwrap(), want, "kept on disk");
    }

    #[test]
    fn networks() {
        let least = NetworkPlug {
            mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 2]),
            mtu: None,
            addresses: None,
            sriov: false,
            vip: None,
        };
        let address = Address {
            address: "10.1.0.5".parse().unwrap(),
            subnet: "10.1.0.0/24".parse().unwrap(),
            gateway: None,
            host_routes: vec![],
        };
        let body = |rest: &str| format!(r#"{{"mac_address":"fa:16:3e:00:00:02"{rest}}}"#);
        let fixed = |address: &str, subnet: &str| {
            body(&format!(
                r#","fixed_ips":[{{"ip_address":"{address}","subnet_cidr":"{subnet}"}}]"#
            ))
        };
        let rows = [
            ("a MAC alone", body(""), Ok(least.clone())),
            ("null", body(r#","fixed_ips":null,"mtu":null"#), Ok(least.clone())),
            (
                "an address",
                fixed("10.1.0.5", "10.1.0.0/24"),
                Ok(NetworkPlug { addresses: Some(vec![address]), ..least.clone() }),
            ),
            (
                "no addresses at all",
                body(r#","fixed_ips":[]"#),
                Ok(NetworkPlug { addresses: Some(vec![]), ..least }),
            ),
            (
                "no address",
                fixed("banana", "10.1.0.0/24"),
                Err(Refused::Port("'banana' does not appear to be an IPv4 or IPv6 address".into())),
            ),
            ("no MAC", "{}".to_owned(), Err(Refused::Form("missing field `mac_address`".into()))),
        ];
        for (row, body, want) in rows {
            assert_eq!(NetworkPlug::from_json(body.as_bytes()).map_err(bare), want, "{row}");
        }
    }

    /// The controller forgets additional VIPs, and that a port is a virtual function.
    #[test]
    fn remembers() {
        let plug = |vips: &[&str], sriov| VipPlug {
            mac: Mac([1; 6]),
            mtu: None,
            own: None,
            vips: vips
                .iter()
                .map(|vip| Address {
                    address: vip.parse().unwrap(),
                    subnet: "10.0.0.0/8".parse().unwrap(),
                    gateway: None,
                    host_routes: vec![],
                })
                .collect(),
            sriov,
        };
        let other = VipPlug { mac: Mac([2; 6]), ..plug(&["10.0.0.1", "10.0.0.2"], true) };
        let rows = [
            ("nothing was plugged", plug(&["10.0.0.1"], false), None, plug(&["10.0.0.1"], false)),
            (
                "left out",
                plug(&["10.0.0.1"], false),
                Some(plug(&["10.0.0.1", "10.0.0.2"], true)),
                plug(&["10.0.0.1", "10.0.0.2"], true),
            ),
            (
                "not left out",
                plug(&["10.0.0.1", "10.0.0.3"], false),
                Some(plug(&["10.0.0.1", "10.0.0.2"], false)),
                plug(&["10.0.0.1", "10.0.0.3"], false),
            ),
            (
                "another interface",
                plug(&["10.0.0.1"], false),
                Some(other),
                plug(&["10.0.0.1"], false),
            ),
        ];
        for (row, told, before, want) in rows {
            let network = NetworkPlug {
                mac: told.mac,
                mtu: None,
                addresses: None,
                sriov: false,
                vip: Some(told),
            };
            assert_eq!(network.remembering(before.as_ref()).vip, Some(want), "{row}");
        }
    }

    #[test]
    fn macs() {
        let rows = [
            ("lower", "fa:16:3e:00:00:0a", Some("fa:16:3e:00:00:0a")),
            ("upper", "FA:16:3E:00:00:0A", Some("fa:16:3e:00:00:0a")),
            ("short", "fa:16:3e:00:00", None),
            ("long", "fa:16:3e:00:00:0a:0b", None),
            ("a sign", "fa:16:3e:00:00:+a", None),
            ("one digit", "fa:16:3e:0:00:0a", None),
            ("empty", "", None),
        ];
        for (row, text, want) in rows {
            let mac = text.parse::<Mac>().ok().map(|mac| mac.to_string());
            assert_eq!(mac.as_deref(), want, "{row}");
        }
    }
}
