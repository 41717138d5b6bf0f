//! What an interface shall have, of what Octavia says of it.
//!
//! The rules are those of the stock agent's interface files (Octavia
//! `amphorae/backends/utils/interface_file.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_api::config::Topology;
use agent_api::document::Plugs;
use agent_api::plug::{Address, HostRoute, Mac, NetworkPlug, VipPlug};
use ipnet::IpNet;

/// Where the kernel looks first for what the amphora itself sends.
pub const MAIN_TABLE: u32 = 254;
/// Where packets from a VIP go: its own gateway, and the routes of its subnet.
pub const VIP_TABLE: u32 = 1;

/// Addresses and routes of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Bytes; none leaves it.
    pub mtu: Option<u32>,
    /// The amphora's, and where it is alone the VIPs as /32 or /128.
    pub addresses: BTreeSet<IpNet>,
    /// The VIPs of a pair: keepalived adds and removes them, with their rules and their routes in
    /// [`VIP_TABLE`].
    pub shared: BTreeSet<IpAddr>,
    /// One for each table and destination.
    pub routes: BTreeSet<Route>,
    /// Whose packets are routed by [`VIP_TABLE`]. None for an interface of members: rules are of the
    /// namespace, and it has no say in them.
    pub rules: Option<BTreeSet<IpAddr>>,
    /// Ask for an IPv4 address.
    pub dhcp: bool,
    /// Take IPv6 addresses and routes from routers.
    pub slaac: bool,
}

/// A route out of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: u32,
    pub to: IpNet,
    pub way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// On the link whether or not an address of ours says so (`onlink`).
    Gateway(IpAddr),
    /// The neighbours themselves; with the source for packets that have none yet.
    Link { source: Option<IpAddr> },
}

/// An interface that is plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub mac: Mac,
    /// It is that of the VIPs.
    pub vip: bool,
    pub layout: Layout,
}

impl Layout {
    /// The interface of the VIPs.
    pub fn of_vip(plug: &VipPlug, topology: Topology) -> Self {
        Self::of_vip_and(plug, &[], topology).with_mtu(plug.mtu)
    }

    /// An interface towards members, which may be that of the VIPs too.
    pub fn of_network(plug: &NetworkPlug, topology: Topology) -> Self {
        let addresses = plug.addresses.as_deref().unwrap_or_default();
        let layout = match &plug.vip {
            Some(vip) => Self::of_vip_and(vip, addresses, topology),
            None => Self::of_members(addresses),
        };
        layout.with_mtu(plug.mtu)
    }

    /// No addresses at all would be of no use: they ask for some, as the stock agent does.
    fn of_members(addresses: &[Address]) -> Self {
        let host_routes = addresses.iter().flat_map(|address| &address.host_routes);
        let automatic = addresses.is_empty();
        Self {
            addresses: addresses.iter().map(|own| within(own.address, own.subnet)).collect(),
            routes: first(host_routes.map(|route| by_host_route(MAIN_TABLE, route))),
            dhcp: automatic,
            slaac: automatic,
            ..Self::default()
        }
    }

    fn of_vip_and(plug: &VipPlug, others: &[Address], topology: Topology) -> Self {
        let VipPlug { own, vips, .. } = plug;
        let single = topology == Topology::Single;
        let own_address = own.zip(vips.first()).map(|(own, vip)| within(own, vip.subnet));
        let other_addresses = others.iter().map(|other| within(other.address, other.subnet));
        let mut addresses: BTreeSet<_> = own_address.into_iter().chain(other_addresses).collect();
        let vip_addresses: BTreeSet<_> = vips.iter().map(|vip| vip.address).collect();
        if single {
            addresses.extend(vip_addresses.iter().map(|&vip| IpNet::from(vip)));
        }
        // VIPs first: their gateway is the one where another is wanted as well.
        let vip_routes = vips.iter().flat_map(|vip| vip_routes(vip, single));
        let other_routes = others.iter().flat_map(|other| other_routes(other, single));
        let of_family = |v4: bool| vip_addresses.iter().any(|vip| vip.is_ipv4() == v4);
        Self {
            mtu: None,
            addresses,
            routes: first(vip_routes.chain(other_routes)),
            dhcp: own.is_none() && of_family(true),
            slaac: own.is_none() && of_family(false),
            rules: Some(if single { vip_addresses.clone() } else { BTreeSet::new() }),
            shared: if single { BTreeSet::new() } else { vip_addresses },
        }
    }

    fn with_mtu(self, mtu: Option<u32>) -> Self {
        Self { mtu: mtu.filter(|&mtu| mtu > 0), ..self }
    }
}

impl Port {
    /// All that is plugged, the interface of the VIPs first.
    pub fn all(plugs: &Plugs, topology: Topology) -> Vec<Self> {
        let vip = plugs.vip.as_ref().map(|vip| {
            let layout = match plugs.networks.get(&vip.mac) {
                Some(network) => {
                    let network = NetworkPlug { vip: Some(vip.clone()), ..network.clone() };
                    Layout::of_network(&network, topology)
                }
                None => Layout::of_vip(vip, topology),
            };
            Self { mac: vip.mac, vip: true, layout }
        });
        let vip_mac = plugs.vip.as_ref().map(|vip| vip.mac);
        let others = plugs.networks.values().filter(|network| Some(network.mac) != vip_mac);
        let others = others.map(|network| {
            let layout = Layout::of_network(network, topology);
            Self { mac: network.mac, vip: network.vip.is_some(), layout }
        });
        vip.into_iter().chain(others).collect()
    }
}

/// The routes of a VIP. Those of its subnet are also in [`VIP_TABLE`]; keepalived adds them there for a
/// pair, other than host routes, whose lines in its configuration it does not understand.
fn vip_routes(vip: &Address, single: bool) -> Vec<Route> {
    let link = |table, source| Route { table, to: vip.subnet, way: Way::Link { source } };
    let mut routes = default_routes(vip, single);
    routes.push(link(MAIN_TABLE, None));
    if single {
        routes.push(link(VIP_TABLE, Some(vip.address)));
    }
    for table in [MAIN_TABLE, VIP_TABLE] {
        routes.extend(vip.host_routes.iter().map(|route| by_host_route(table, route)));
    }
    routes
}

/// The routes of another address of the interface of the VIPs.
fn other_routes(other: &Address, single: bool) -> Vec<Route> {
    let mut routes = default_routes(other, single);
    routes.extend(other.host_routes.iter().map(|route| by_host_route(MAIN_TABLE, route)));
    routes
}

fn default_routes(of: &Address, single: bool) -> Vec<Route> {
    let tables = if single { &[MAIN_TABLE, VIP_TABLE][..] } else { &[MAIN_TABLE] };
    let gateways = of.gateway.into_iter();
    let by = |gateway: IpAddr| {
        tables.iter().map(move |&table| Route {
            table,
            to: everywhere(gateway),
            way: Way::Gateway(gateway),
        })
    };
    gateways.flat_map(by).collect()
}

fn by_host_route(table: u32, route: &HostRoute) -> Route {
    Route { table, to: route.destination, way: Way::Gateway(route.next_hop) }
}

/// The kernel has one route for a table and a destination (more would be `EEXIST` in IPv4, and spread
/// over all of them in IPv6): the first that is wanted.
fn first(routes: impl Iterator<Item = Route>) -> BTreeSet<Route> {
    let mut kept = BTreeMap::new();
    for route in routes {
        kept.entry((route.table, route.to)).or_insert(route);
    }
    kept.into_values().collect()
}

/// An address with the length of its subnet.
fn within(address: IpAddr, subnet: IpNet) -> IpNet {
    // Not of one family: the address is alone.
    IpNet::new(address, subnet.prefix_len()).unwrap_or(address.into())
}

/// The destination of a default route of the family of an address.
fn everywhere(of: IpAddr) -> IpNet {
    let any = match of {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new_assert(any, 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/interfaces");

    fn read(file: &str) -> Value {
        let text = fs::read(format!("{VECTORS}/{file}")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// What the stock agent's interface file says.
    fn stock(file: &Value) -> Layout {
        let list = |key: &str| file[key].as_array().unwrap().iter();
        let ip = |value: &Value| value.as_str().map(|text| text.parse::<IpAddr>().unwrap());
        let vip = file["if_type"] == "vip";
        let mut layout = Layout {
            mtu: file["mtu"].as_u64().map(|mtu| mtu as u32),
            rules: vip.then(BTreeSet::new),
            ..Layout::default()
        };
        for address in list("addresses") {
            layout.dhcp |= address["dhcp"] == true;
            layout.slaac |= address["ipv6auto"] == true;
            let Some(ip) = ip(&address["address"]) else { continue };
            if address["octavia_owned"] == false {
                layout.shared.insert(ip);
            } else {
                let prefix = address["prefixlen"].as_u64().unwrap();
                layout.addresses.insert(IpNet::new(ip, prefix as u8).unwrap());
            }
        }
        layout.routes = first(list("routes").map(|route| {
            let way = match ip(&route["gateway"]) {
                Some(gateway) => {
                    assert_eq!(route["flags"], serde_json::json!(["onlink"]));
                    Way::Gateway(gateway)
                }
                None => {
                    assert_eq!(route["scope"], "link");
                    Way::Link { source: ip(&route["prefsrc"]) }
                }
            };
            let to = route["dst"].as_str().unwrap().parse().unwrap();
            let table = route["table"].as_u64().map_or(MAIN_TABLE, |table| table as u32);
            Route { table, to, way }
        }));
        for rule in list("rules") {
            let source = ip(&rule["src"]).unwrap();
            assert_eq!(rule["src_len"], IpNet::from(source).prefix_len());
            assert_eq!(rule["table"], VIP_TABLE);
            layout.rules.as_mut().unwrap().insert(source);
        }
        layout
    }

    fn ours(request: &Value, topology: Topology) -> Layout {
        let body = request["json"].to_string();
        let path = request["path"].as_str().unwrap();
        match path.strip_prefix("/1.0/plug/vip/") {
            Some(vip) => {
                Layout::of_vip(&VipPlug::from_json(vip, body.as_bytes()).unwrap(), topology)
            }
            None => Layout::of_network(&NetworkPlug::from_json(body.as_bytes()).unwrap(), topology),
        }
    }

    #[test]
    fn edge_42_45_46_as_the_stock_agent() {
        let mut seen = 0;
        for entry in fs::read_dir(VECTORS).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let sidecar = read(&name);
            let Some(file) = sidecar["file"].as_str() else { continue };
            let topology = match sidecar["topology"].as_str() {
                Some("ACTIVE_STANDBY") => Topology::ActiveStandby,
                Some("SINGLE") | None => Topology::Single,
                Some(other) => panic!("{name}: {other}"),
            };
            assert_eq!(ours(&sidecar["request"], topology), stock(&read(file)), "{name}");
            seen += 1;
        }
        assert_eq!(seen, 22);
    }

    #[test]
    fn automatic() {
        let vip = |own: Option<&str>, vips: &[&str]| VipPlug {
            mac: Mac([2; 6]),
            mtu: Some(0),
            own: own.map(|own| own.parse().unwrap()),
            vips: vips
                .iter()
                .map(|text| {
                    let address = text.parse().unwrap();
                    let subnet = IpNet::from(address);
                    Address { address, subnet, gateway: None, host_routes: vec![] }
                })
                .collect(),
            sriov: false,
        };
        let rows = [
            ("an address", vip(Some("10.0.0.2"), &["10.0.0.1", "2001:db8::1"]), (false, false)),
            ("IPv4", vip(None, &["10.0.0.1"]), (true, false)),
            ("IPv6", vip(None, &["2001:db8::1"]), (false, true)),
            ("both", vip(None, &["10.0.0.1", "2001:db8::1"]), (true, true)),
        ];
        for (row, plug, want) in rows {
            let layout = Layout::of_vip(&plug, Topology::ActiveStandby);
            assert_eq!((layout.dhcp, layout.slaac), want, "{row}");
            assert_eq!(layout.mtu, None, "an MTU of 0 is none");
        }
    }

    #[test]
    fn a_port_that_is_plugged_twice() {
        let sidecar = read("network_on_vip_port_SINGLE.json");
        let body = sidecar["request"]["json"].to_string();
        let network = NetworkPlug::from_json(body.as_bytes()).unwrap();
        let mut other = network.clone();
        other.mac = Mac([2; 6]);
        other.vip = None;
        let vip = network.vip.clone().unwrap();
        let whole = Port {
            mac: vip.mac,
            vip: true,
            layout: Layout::of_network(&network, Topology::Single),
        };
        let alone = Port { layout: Layout::of_vip(&vip, Topology::Single), ..whole.clone() };
        let members = Port {
            mac: other.mac,
            vip: false,
            layout: Layout::of_network(&other, Topology::Single),
        };
        let untold = NetworkPlug { vip: None, ..network.clone() };
        let rows = [
            ("the VIPs alone", vec![], vec![alone]),
            ("and members", vec![&network, &other], vec![whole.clone(), members]),
            ("not called the port of the VIPs", vec![&untold], vec![whole]),
        ];
        for (row, networks, want) in rows {
            let plugs = Plugs {
                vip: Some(vip.clone()),
                networks: networks.into_iter().map(|plug| (plug.mac, plug.clone())).collect(),
                rules: None,
            };
            assert_eq!(Port::all(&plugs, Topology::Single), want, "{row}");
        }
    }
}
