//! The lab as data: who is there, which wires, addresses and routes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::LabOptions;

/// What a wire carries unless [`LabOptions`] says less.
pub const MTU: u32 = 1500;

/// The far sides of the router, and what is behind `eth2` of the amphora. The documentation has
/// three IPv4 nets for us, so two of ours share the third.
pub const CLIENT_NET: Net = Net { v4: [198, 51, 100, 0], v4_len: 24, v6: 0xc };
pub const VIP_NET: Net = Net { v4: [192, 0, 2, 0], v4_len: 24, v6: 1 };
pub const SECOND_NET: Net = Net { v4: [203, 0, 113, 0], v4_len: 25, v6: 2 };
pub const ROUTED_NET: Net = Net { v4: [203, 0, 113, 128], v4_len: 25, v6: 3 };

/// In each net: who leads out of it, and the only one who is led.
const GATEWAY: u8 = 1;
const GUEST: u8 = 2;
/// In [`VIP_NET`], whose gateway is the router; `m1` is one above `MEMBERS`, `m2` two.
const AMPHORA: u8 = 5;
pub const VIP: u8 = 10;
const NEIGHBOUR: u8 = 20;
const MEMBERS: u8 = 100;
/// Up to here the address of a member ends in its number.
pub const MEMBERS_MAX: u8 = 99;

/// The name of the namespace that only has a bridge in it.
pub const SWITCH: &str = "switch";
pub const BRIDGE: &str = "br0";

/// A documentation net, and the IPv6 one beside it (`2001:db8:<v6>::/64`).
pub struct Net {
    v4: [u8; 4],
    v4_len: u8,
    v6: u16,
}

/// One end of a wire: an interface of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub host: String,
    pub dev: String,
}

/// Two ends and the wire between them.
pub type Wire = [End; 2];

/// An interface's address in both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub dev: &'static str,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    v4_len: u8,
    v6_len: u8,
}

/// A host, known by the first of its addresses; `routes` are lines for `ip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub forwards: bool,
    pub addresses: Vec<Address>,
    pub routes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub client: Node,
    pub router: Node,
    pub amphora: Node,
    pub neighbour: Option<Node>,
    /// On the switch.
    pub members: Vec<Node>,
    /// Behind `eth2` of the amphora.
    pub second_member: Option<Node>,
    /// Behind `eth2` of the router.
    pub routed_member: Option<Node>,
    pub wires: Vec<Wire>,
}

impl Plan {
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        [&self.client, &self.router, &self.amphora]
            .into_iter()
            .chain(&self.neighbour)
            .chain(&self.members)
            .chain(&self.second_member)
            .chain(&self.routed_member)
    }

    /// The interfaces of `host`, each with the one at the other end of its wire.
    pub fn ends_of(&self, host: &str) -> impl Iterator<Item = (&End, &End)> {
        let both = self.wires.iter().flat_map(|[end, peer]| [(end, peer), (peer, end)]);
        both.filter(move |(end, _)| end.host == host)
    }
}

pub fn plan(options: &LabOptions) -> Plan {
    let mut client = Node::new("client", "eth0", &CLIENT_NET, GUEST);
    client.default_by(&CLIENT_NET);
    let mut router = Node::new("router", "eth1", &VIP_NET, GATEWAY).forwarding();
    router.addresses.push(CLIENT_NET.address("eth0", GATEWAY));
    router.narrow("eth0", &CLIENT_NET, options.client_link_mtu);
    let mut amphora = Node::new("amphora", "eth1", &VIP_NET, AMPHORA).forwarding();
    amphora.default_by(&VIP_NET);
    let vip = Address { v4_len: 32, v6_len: 128, ..VIP_NET.address("eth1", VIP) };
    amphora.addresses.push(vip);

    let on_switch = |name: &str, host| {
        let mut node = Node::new(name, "eth0", &VIP_NET, host);
        node.default_by(&VIP_NET);
        node
    };
    let neighbour = options.neighbour.then(|| on_switch("neighbour", NEIGHBOUR));
    let members: Vec<_> =
        (1..=options.members).map(|n| on_switch(&format!("m{n}"), MEMBERS + n)).collect();

    let mut wires = vec![wire("client", "eth0", "router", "eth0")];
    for (host, dev) in [("router", "eth1"), ("amphora", "eth1")] {
        wires.push(wire(host, dev, SWITCH, host));
    }
    for node in neighbour.iter().chain(&members) {
        wires.push(wire(&node.name, "eth0", SWITCH, &node.name));
    }

    // Members are numbered on, wherever they are.
    let mut names = (options.members + 1..).map(|n| format!("m{n}"));
    let mut behind = |gateway: &mut Node, net: &Net| {
        gateway.addresses.push(net.address("eth2", GATEWAY));
        let name = names.next().unwrap_or_default();
        wires.push(wire(&name, "eth0", &gateway.name, "eth2"));
        let mut node = Node::new(&name, "eth0", net, GUEST);
        node.default_by(net);
        node
    };
    let second_member = options.second_member.then(|| behind(&mut amphora, &SECOND_NET));
    let routed_member = options.routed_member.then(|| behind(&mut router, &ROUTED_NET));
    if options.second_member {
        router.route(&SECOND_NET, AMPHORA);
    }
    if options.routed_member {
        router.narrow("eth2", &ROUTED_NET, options.routed_link_mtu);
    }
    Plan { client, router, amphora, neighbour, members, second_member, routed_member, wires }
}

impl Node {
    fn new(name: &str, dev: &'static str, net: &Net, host: u8) -> Self {
        Self {
            name: name.to_owned(),
            v4: net.v4(host),
            v6: net.v6(host),
            forwards: false,
            addresses: vec![net.address(dev, host)],
            routes: Vec::new(),
        }
    }

    fn forwarding(self) -> Self {
        Self { forwards: true, ..self }
    }

    fn default_by(&mut self, net: &Net) {
        self.routes.push(format!("route add default via {}", net.v4(GATEWAY)));
        self.routes.push(format!("route add default via {}", net.v6(GATEWAY)));
    }

    /// To `net` by way of `host` in [`VIP_NET`].
    fn route(&mut self, net: &Net, host: u8) {
        self.routes.push(format!("route add {} via {}", net.v4_cidr(), VIP_NET.v4(host)));
        self.routes.push(format!("route add {} via {}", net.v6_cidr(), VIP_NET.v6(host)));
    }

    /// Makes the route into `net` carry no more than `mtu`, if that is less than [`MTU`].
    ///
    /// As if a wire behind this router were narrower: the router answers what does not fit with an
    /// ICMP error, while the interfaces stay wide, so that no host's MSS gives the hop away. (A
    /// small MTU at one end of a veth pair silently drops what comes in.)
    fn narrow(&mut self, dev: &str, net: &Net, mtu: u32) {
        if mtu < MTU {
            // In place of the routes that the kernel made for the addresses, by the same metric.
            let (v4, v6) = (net.v4_cidr(), net.v6_cidr());
            self.routes.push(format!("route replace {v4} dev {dev} mtu lock {mtu}"));
            self.routes.push(format!("route replace {v6} dev {dev} metric 256 mtu lock {mtu}"));
        }
    }
}

impl Address {
    /// Lines for `ip`.
    pub fn lines(&self) -> [String; 2] {
        let Self { dev, v4, v6, v4_len, v6_len } = self;
        [
            format!("address add {v4}/{v4_len} dev {dev}"),
            format!("address add {v6}/{v6_len} dev {dev} nodad"),
        ]
    }
}

impl Net {
    fn address(&self, dev: &'static str, host: u8) -> Address {
        Address { dev, v4: self.v4(host), v6: self.v6(host), v4_len: self.v4_len, v6_len: 64 }
    }

    pub fn v4(&self, host: u8) -> Ipv4Addr {
        let [a, b, c, d] = self.v4;
        Ipv4Addr::new(a, b, c, d + host)
    }

    /// The decimal digits of `host` read as hexadecimal: `::101` stands beside `.101`.
    pub fn v6(&self, host: u8) -> Ipv6Addr {
        let host = u16::from(host);
        let digits = (host / 100) * 0x100 + (host / 10 % 10) * 0x10 + host % 10;
        Ipv6Addr::new(0x2001, 0xdb8, self.v6, 0, 0, 0, 0, digits)
    }

    pub fn v4_cidr(&self) -> String {
        format!("{}/{}", self.v4(0), self.v4_len)
    }

    pub fn v6_cidr(&self) -> String {
        format!("{}/64", self.v6(0))
    }
}

fn wire(host: &str, dev: &str, peer: &str, peer_dev: &str) -> Wire {
    let end = |host: &str, dev: &str| End { host: host.to_owned(), dev: dev.to_owned() };
    [end(host, dev), end(peer, peer_dev)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> LabOptions {
        LabOptions {
            neighbour: true,
            second_member: true,
            routed_member: true,
            ..Default::default()
        }
    }

    #[test]
    fn members_have_names_and_addresses_of_their_number() {
        let plan = plan(&all());
        let addressed: Vec<_> =
            plan.nodes().map(|node| format!("{} {} {}", node.name, node.v4, node.v6)).collect();
        assert_eq!(
            addressed,
            [
                "client 198.51.100.2 2001:db8:c::2",
                "router 192.0.2.1 2001:db8:1::1",
                "amphora 192.0.2.5 2001:db8:1::5",
                "neighbour 192.0.2.20 2001:db8:1::20",
                "m1 192.0.2.101 2001:db8:1::101",
                "m2 192.0.2.102 2001:db8:1::102",
                "m3 192.0.2.103 2001:db8:1::103",
                "m4 203.0.113.2 2001:db8:2::2",
                "m5 203.0.113.130 2001:db8:3::2",
            ]
        );
    }

    #[test]
    fn no_interface_has_two_wires() {
        let plan = plan(&all());
        let mut ends: Vec<_> =
            plan.wires.iter().flatten().map(|end| format!("{} {}", end.host, end.dev)).collect();
        let count = ends.len();
        ends.sort();
        ends.dedup();
        assert_eq!(ends.len(), count, "{ends:?}");
    }
}
