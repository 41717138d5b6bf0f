//! What the network looks like at one moment, and the way to a member through it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::kernel::Mode;
use crate::tables::Hop;

pub type Mac = [u8; 6];

/// Links, addresses, routes of the main table and neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
    pub neighbours: BTreeMap<NextHop, Neighbour>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    /// None where it is not Ethernet.
    pub mac: Option<Mac>,
    pub up: bool,
    /// How an XDP program is attached, whoever's.
    pub xdp: Option<Mode>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ifindex: u32,
    pub network: IpNet,
    /// May stand as the source of a packet: global, not tentative, not deprecated.
    pub usable: bool,
    pub secondary: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: IpNet,
    pub metric: u32,
    pub way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The first of the route's next hops that is not dead.
    Out { ifindex: u32, gateway: Option<IpAddr> },
    /// `blackhole`, `unreachable`, `prohibit`.
    Nowhere,
}

/// An address on the link of an interface; key of the neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    pub ifindex: u32,
    pub addr: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// `fresh`: confirmed a moment ago, or to be confirmed by the kernel soon without our doing.
    Known { mac: Mac, fresh: bool },
    /// Set by hand, never asked for: to ask would undo that.
    Fixed { mac: Mac },
    /// Asked for, no answer yet.
    Asked,
    /// It did not answer.
    Silent,
}

/// What of the network is ours.
#[derive(Clone, Copy, Debug)]
pub struct Ours<'a> {
    /// Interfaces the program runs on. Replies must come in through one of them.
    pub attached: &'a BTreeSet<u32>,
    /// The interface of the VIPs, also while another amphora holds them.
    pub vip_interface: Option<u32>,
    pub vips: &'a [IpAddr],
}

/// Why a member cannot be reached, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreachable {
    NoRoute,
    Forbidden,
    LinkGone { ifindex: u32 },
    LinkDown { interface: String },
    NotAttached { interface: String },
    NotEthernet { interface: String },
    NoSource { interface: String },
    Unresolved { next_hop: IpAddr, interface: String },
    Silent { next_hop: IpAddr, interface: String },
}

impl Topology {
    pub fn ifindex(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(&ifindex, _)| ifindex)
    }

    /// Where packets to `member` go next: the longest prefix decides, then the lowest metric.
    pub fn next_hop(&self, member: IpAddr) -> Result<NextHop, Unreachable> {
        let fits = |route: &&Route| route.to.contains(&member);
        let better = |route: &&Route| (route.to.prefix_len(), u32::MAX - route.metric);
        let route =
            self.routes.iter().filter(fits).max_by_key(better).ok_or(Unreachable::NoRoute)?;
        match route.way {
            Way::Out { ifindex, gateway } => {
                Ok(NextHop { ifindex, addr: gateway.unwrap_or(member) })
            }
            Way::Nowhere => Err(Unreachable::Forbidden),
        }
    }

    /// The whole way to `member`, or what is missing of it.
    pub fn hop(&self, member: IpAddr, ours: Ours<'_>) -> Result<Hop, Unreachable> {
        let next = self.next_hop(member)?;
        let ifindex = next.ifindex;
        let link = self.links.get(&ifindex).ok_or(Unreachable::LinkGone { ifindex })?;
        let interface = || link.name.clone();
        if !link.up {
            return Err(Unreachable::LinkDown { interface: interface() });
        }
        if !ours.attached.contains(&ifindex) {
            return Err(Unreachable::NotAttached { interface: interface() });
        }
        let own_mac =
            link.mac.ok_or_else(|| Unreachable::NotEthernet { interface: interface() })?;
        let source = if self.carries_vip(ifindex, ours) {
            None
        } else {
            let own = self.source(next, member, ours.vips);
            Some(own.ok_or_else(|| Unreachable::NoSource { interface: interface() })?)
        };
        let next_hop = next.addr;
        let mac = match self.neighbours.get(&next) {
            Some(&(Neighbour::Known { mac, .. } | Neighbour::Fixed { mac })) => mac,
            Some(Neighbour::Silent) => {
                return Err(Unreachable::Silent { next_hop, interface: interface() });
            }
            Some(Neighbour::Asked) | None => {
                return Err(Unreachable::Unresolved { next_hop, interface: interface() });
            }
        };
        Ok(Hop { ifindex, mac, own_mac, source })
    }

    /// Whether someone must ask for this neighbour, or ask again.
    pub fn wants_asking(&self, next: NextHop) -> bool {
        match self.neighbours.get(&next) {
            Some(Neighbour::Fixed { .. } | Neighbour::Known { fresh: true, .. }) => false,
            Some(Neighbour::Known { fresh: false, .. } | Neighbour::Asked | Neighbour::Silent)
            | None => true,
        }
    }

    /// Whether nobody has asked for this neighbour, or it has not answered yet.
    pub fn is_unmet(&self, next: NextHop) -> bool {
        matches!(self.neighbours.get(&next), None | Some(Neighbour::Asked))
    }

    /// Whether a neighbour was set by hand.
    pub fn is_fixed(&self, next: NextHop) -> bool {
        matches!(self.neighbours.get(&next), Some(Neighbour::Fixed { .. }))
    }

    fn carries_vip(&self, ifindex: u32, ours: Ours<'_>) -> bool {
        let is_vip = |address: &Address| {
            address.ifindex == ifindex && ours.vips.contains(&address.network.addr())
        };
        ours.vip_interface == Some(ifindex) || self.addresses.iter().any(is_vip)
    }

    /// The interface's own address of the member's family: one of the next hop's network if there
    /// is one, else the first that is not secondary.
    fn source(&self, next: NextHop, member: IpAddr, vips: &[IpAddr]) -> Option<IpAddr> {
        let fits = |address: &&Address| {
            address.ifindex == next.ifindex
                && address.usable
                && address.network.addr().is_ipv4() == member.is_ipv4()
                && !vips.contains(&address.network.addr())
        };
        let worse = |address: &&Address| (!address.network.contains(&next.addr), address.secondary);
        let best = self.addresses.iter().filter(fits).min_by_key(worse)?;
        Some(best.network.addr())
    }
}

impl Unreachable {
    /// What would make the way, by its Neutron or Octavia name or as a command.
    pub fn mend(&self) -> String {
        match self {
            Self::NoRoute => "a route to it: the member's subnet_id in Octavia, or a router or a \
                              host route of the subnet in Neutron"
                .to_owned(),
            Self::Forbidden => {
                "no route of type blackhole, unreachable or prohibit (`ip route show`)".to_owned()
            }
            Self::LinkGone { .. } => {
                "the interface plugged again: `openstack loadbalancer failover`".to_owned()
            }
            Self::LinkDown { interface } => {
                format!("`ip link set {interface} up`, or admin_state_up of its Neutron port")
            }
            Self::NotAttached { interface } => format!(
                "the program on it: `xdp-lb run --interface {interface}`, or, in an amphora, \
                 what `xdp-lb doctor` tells of it"
            ),
            Self::NotEthernet { .. } => "a way through an Ethernet interface".to_owned(),
            Self::NoSource { interface } => format!(
                "an address of the member's family on {interface}: a fixed IP of its Neutron port"
            ),
            Self::Unresolved { .. } => "a moment: the daemon has the kernel ask".to_owned(),
            Self::Silent { next_hop, .. } => format!(
                "{next_hop} started, or its Neutron port mended: status, MAC address, network, \
                 allowed address pairs"
            ),
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => write!(f, "no route"),
            Self::Forbidden => write!(f, "the route forbids it"),
            Self::LinkGone { ifindex } => write!(f, "interface {ifindex} is gone"),
            Self::LinkDown { interface } => write!(f, "{interface} is down"),
            Self::NotAttached { interface } => {
                write!(
                    f,
                    "reached through {interface}, where the program does not run (--interface)"
                )
            }
            Self::NotEthernet { interface } => write!(f, "{interface} is not Ethernet"),
            Self::NoSource { interface } => write!(f, "{interface} has no address of its family"),
            Self::Unresolved { next_hop, interface } => {
                write!(f, "MAC of {next_hop} on {interface} is not known yet")
            }
            Self::Silent { next_hop, interface } => {
                write!(f, "{next_hop} on {interface} does not answer for its MAC")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: &str = "10.0.0.10";
    const OWN1: Mac = [2, 0, 0, 0, 0, 1];
    const OWN2: Mac = [2, 0, 0, 0, 0, 2];
    const ROUTER: Mac = [2, 0, 0, 0, 0, 0xfe];
    const SERVER: Mac = [2, 0, 0, 0, 0, 0x11];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn link(name: &str, mac: Option<Mac>, up: bool) -> Link {
        Link { name: name.to_owned(), mac, up, xdp: None }
    }

    fn address(ifindex: u32, network: &str) -> Address {
        let network = network.parse().unwrap();
        Address { ifindex, network, usable: true, secondary: false }
    }

    fn route(to: &str, metric: u32, ifindex: u32, gateway: Option<&str>) -> Route {
        let way = Way::Out { ifindex, gateway: gateway.map(ip) };
        Route { to: to.parse().unwrap(), metric, way }
    }

    fn known(mac: Mac) -> Neighbour {
        Neighbour::Known { mac, fresh: true }
    }

    /// eth1 with the VIP and a router, eth2 with servers, eth3 down, eth4 not attached.
    fn network() -> Topology {
        let neighbour = |ifindex, addr, neighbour| (NextHop { ifindex, addr: ip(addr) }, neighbour);
        Topology {
            links: [
                (1, link("lo", None, true)),
                (2, link("eth1", Some(OWN1), true)),
                (3, link("eth2", Some(OWN2), true)),
                (4, link("eth3", Some(OWN2), false)),
                (5, link("eth4", Some(OWN2), true)),
                (6, link("tun0", None, true)),
            ]
            .into(),
            addresses: vec![
                address(2, "10.0.0.5/24"),
                address(2, "10.0.0.10/32"),
                Address { secondary: true, ..address(3, "10.1.0.6/24") },
                address(3, "10.1.0.5/24"),
                address(3, "10.2.0.5/24"),
                Address { usable: false, ..address(3, "2001:db8:1::5/64") },
            ],
            routes: vec![
                route("0.0.0.0/0", 100, 2, Some("10.0.0.1")),
                route("0.0.0.0/0", 200, 3, Some("10.1.0.1")),
                route("10.0.0.0/24", 0, 2, None),
                route("10.1.0.0/24", 0, 3, None),
                route("10.2.0.0/24", 0, 3, None),
                route("10.3.0.0/24", 0, 4, None),
                route("10.4.0.0/24", 0, 5, None),
                route("10.6.0.0/24", 0, 6, None),
                Route { to: "10.9.0.0/16".parse().unwrap(), metric: 0, way: Way::Nowhere },
                route("10.7.0.0/24", 0, 9, None),
                route("2001:db8:1::/64", 0, 3, None),
            ],
            neighbours: [
                neighbour(2, "10.0.0.1", known(ROUTER)),
                neighbour(3, "10.1.0.11", known(SERVER)),
                neighbour(3, "10.2.0.11", known(SERVER)),
                neighbour(3, "10.1.0.12", Neighbour::Asked),
                neighbour(3, "10.1.0.13", Neighbour::Silent),
            ]
            .into(),
        }
    }

    #[test]
    fn hops() {
        let to_router = Hop { ifindex: 2, mac: ROUTER, own_mac: OWN1, source: None };
        let from =
            |source| Hop { ifindex: 3, mac: SERVER, own_mac: OWN2, source: Some(ip(source)) };
        let eth = |name: &str| name.to_owned();
        let unresolved =
            |addr| Unreachable::Unresolved { next_hop: ip(addr), interface: eth("eth2") };
        let rows = [
            ("through the router, as the VIP", "192.0.2.7", Ok(to_router)),
            ("on link, as the interface", "10.1.0.11", Ok(from("10.1.0.5"))),
            ("its second network", "10.2.0.11", Ok(from("10.2.0.5"))),
            ("asked", "10.1.0.12", Err(unresolved("10.1.0.12"))),
            ("never asked", "10.1.0.14", Err(unresolved("10.1.0.14"))),
            (
                "silent",
                "10.1.0.13",
                Err(Unreachable::Silent { next_hop: ip("10.1.0.13"), interface: eth("eth2") }),
            ),
            ("down", "10.3.0.11", Err(Unreachable::LinkDown { interface: eth("eth3") })),
            ("not attached", "10.4.0.11", Err(Unreachable::NotAttached { interface: eth("eth4") })),
            ("a tunnel", "10.6.0.1", Err(Unreachable::NotEthernet { interface: eth("tun0") })),
            ("a blackhole", "10.9.0.1", Err(Unreachable::Forbidden)),
            ("a link that is gone", "10.7.0.1", Err(Unreachable::LinkGone { ifindex: 9 })),
            ("no IPv6 route", "2001:db8:2::1", Err(Unreachable::NoRoute)),
            (
                "no IPv6 address",
                "2001:db8:1::1",
                Err(Unreachable::NoSource { interface: eth("eth2") }),
            ),
        ];
        let attached = [2, 3, 4, 6].into();
        let vips = [ip(VIP)];
        let ours = Ours { attached: &attached, vip_interface: None, vips: &vips };
        for (row, member, want) in rows {
            assert_eq!(network().hop(ip(member), ours), want, "{row}");
        }
    }

    #[test]
    fn the_vip_interface_of_a_standby() {
        let mut network = network();
        network.addresses.retain(|address| address.network.addr() != ip(VIP));
        let attached = [2, 3].into();
        let vips = [ip(VIP)];
        for (vip_interface, want) in [(Some(2), None), (None, Some(ip("10.0.0.5")))] {
            let ours = Ours { attached: &attached, vip_interface, vips: &vips };
            assert_eq!(network.hop(ip("192.0.2.7"), ours).unwrap().source, want);
        }
    }
}
