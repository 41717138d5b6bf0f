//! From what an interface has to what it shall have, in steps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::layout::{Layout, MAIN_TABLE, Route, Way};

/// `RTPROT_STATIC`: who added a route or a rule; ours are of this one. The kernel's are of 2, and
/// keepalived's of 18.
pub const STATIC: u8 = 4;

/// What the kernel has of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Bytes.
    pub mtu: u32,
    /// It was set up; there may be no carrier all the same.
    pub up: bool,
    pub addresses: Vec<Held>,
    /// Each with its protocol.
    pub routes: Vec<(Route, u8)>,
    /// Sources that are looked up in [`VIP_TABLE`](super::layout::VIP_TABLE), each with the protocol of
    /// its rule; of the whole namespace.
    pub rules: Vec<(IpAddr, u8)>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub net: IpNet,
    pub standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There until it is removed.
    Permanent,
    /// There until it expires: of DHCP, or of a router.
    Dynamic,
    /// Not to be used yet: the kernel asks whether somebody else has it (RFC 4862).
    Tentative,
    /// Never to be used: somebody else has it.
    Duplicate,
}

/// One request to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    SetMtu(u32),
    SetUp,
    AddAddress(IpNet),
    RemoveAddress(IpNet),
    AddRoute(Route),
    RemoveRoute(Route),
    AddRule(IpAddr),
    RemoveRule(IpAddr),
}

impl Change {
    /// It takes nothing away.
    pub fn adds(self) -> bool {
        match self {
            Self::SetMtu(_)
            | Self::SetUp
            | Self::AddAddress(_)
            | Self::AddRoute(_)
            | Self::AddRule(_) => true,
            Self::RemoveAddress(_) | Self::RemoveRoute(_) | Self::RemoveRule(_) => false,
        }
    }

    /// A source address in it must be one that can be used.
    pub fn needs_addresses(self) -> bool {
        matches!(self, Self::AddRoute(_) | Self::AddRule(_))
    }
}

/// The changes in their order: nothing points to what is not there yet, and what is new is there before
/// the old goes. Where both cannot be at once, the old goes first.
///
/// Left alone are: addresses that expire, the kernel's link-local ones, the VIPs of a pair, and routes
/// and rules of which somebody else says that they are theirs.
pub fn changes(wanted: &Layout, actual: &Actual) -> Vec<Change> {
    let mtu = wanted.mtu.filter(|&mtu| mtu != actual.mtu).map(Change::SetMtu);
    let up = (!actual.up).then_some(Change::SetUp);
    let addresses = addresses(wanted, actual);
    let routes = routes(wanted, actual);
    let rules = rules(wanted, actual);
    let before = [&addresses, &routes].into_iter().flat_map(|steps| steps.before.clone());
    let add = [&addresses, &routes, &rules].into_iter().flat_map(|steps| steps.add.clone());
    let after = [&rules, &routes, &addresses].into_iter().flat_map(|steps| steps.after.clone());
    mtu.into_iter().chain(up).chain(before).chain(add).chain(after).collect()
}

/// The changes that take nothing away: all that is there stays. But an address that nobody could use is
/// tried again.
pub fn additions(wanted: &Layout, actual: &Actual) -> Vec<Change> {
    let again = |change: &Change| matches!(change, Change::RemoveAddress(net) if wanted.addresses.contains(net));
    let mut changes = changes(wanted, actual);
    changes.retain(|change| change.adds() || again(change));
    changes
}

/// Of one kind.
#[derive(Default)]
struct Steps {
    /// Removed to make room.
    before: Vec<Change>,
    add: Vec<Change>,
    after: Vec<Change>,
}

fn addresses(wanted: &Layout, actual: &Actual) -> Steps {
    let is_wanted =
        |held: &Held| wanted.addresses.contains(&held.net) && held.standing != Standing::Duplicate;
    let there: BTreeSet<_> =
        actual.addresses.iter().filter(|held| is_wanted(held)).map(|held| held.net).collect();
    let missing = wanted.addresses.difference(&there);
    let surplus = actual.addresses.iter().filter(|held| !is_wanted(held) && ours(held, wanted));
    // The kernel has no address twice on an interface, of whatever length, nor one anew that failed.
    let stands_in_the_way = |net: &IpNet| {
        wanted.addresses.iter().any(|new| new.addr() == net.addr() && !there.contains(new))
    };
    let (before, after): (Vec<_>, Vec<_>) =
        surplus.map(|held| held.net).partition(stands_in_the_way);
    Steps {
        before: before.into_iter().map(Change::RemoveAddress).collect(),
        add: missing.copied().map(Change::AddAddress).collect(),
        after: after.into_iter().map(Change::RemoveAddress).collect(),
    }
}

fn ours(held: &Held, wanted: &Layout) -> bool {
    let link_local = match held.net.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let expires = held.standing == Standing::Dynamic;
    !link_local && !expires && !wanted.shared.contains(&held.net.addr())
}

fn routes(wanted: &Layout, actual: &Actual) -> Steps {
    let there: BTreeSet<_> = of_ours(&actual.routes);
    let missing: Vec<_> =
        wanted.routes.difference(&there).filter(|route| !is_made(route, wanted)).collect();
    let surplus = there.difference(&wanted.routes);
    // The kernel does not tell an IPv6 route without a gateway from another one to the same place.
    let stands_in_the_way = |route: &Route| {
        let bare = matches!(route.way, Way::Link { .. }) && route.to.addr().is_ipv6();
        bare && missing.iter().any(|new| (new.table, new.to) == (route.table, route.to))
    };
    let (before, after): (Vec<_>, Vec<_>) = surplus.partition(|route| stands_in_the_way(route));
    Steps {
        before: before.into_iter().copied().map(Change::RemoveRoute).collect(),
        add: missing.into_iter().copied().map(Change::AddRoute).collect(),
        after: after.into_iter().copied().map(Change::RemoveRoute).collect(),
    }
}

/// The kernel itself has a route to the network of each IPv4 address, and another one would take its
/// place.
fn is_made(route: &Route, wanted: &Layout) -> bool {
    let v4 = route.to.addr().is_ipv4();
    let of_network = |address: &IpNet| address.trunc() == route.to;
    v4 && route.table == MAIN_TABLE && wanted.addresses.iter().any(of_network)
}

fn rules(wanted: &Layout, actual: &Actual) -> Steps {
    let Some(rules) = &wanted.rules else { return Steps::default() };
    let there = of_ours(&actual.rules);
    Steps {
        before: vec![],
        add: rules.difference(&there).copied().map(Change::AddRule).collect(),
        after: there.difference(rules).copied().map(Change::RemoveRule).collect(),
    }
}

fn of_ours<T: Copy + Ord>(all: &[(T, u8)]) -> BTreeSet<T> {
    all.iter().filter(|(_, protocol)| *protocol == STATIC).map(|(one, _)| *one).collect()
}

#[cfg(test)]
mod tests {
    use super::Change::*;
    use super::Standing::*;
    use super::*;
    use crate::plug::layout::VIP_TABLE;

    const KERNEL: u8 = 2;
    const BOOT: u8 = 3;
    const KEEPALIVED: u8 = 18;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn held(text: &str, standing: Standing) -> Held {
        Held { net: net(text), standing }
    }

    fn by(table: u32, to: &str, gateway: &str) -> Route {
        Route { table, to: net(to), way: Way::Gateway(ip(gateway)) }
    }

    fn on_link(table: u32, to: &str, source: Option<&str>) -> Route {
        Route { table, to: net(to), way: Way::Link { source: source.map(ip) } }
    }

    /// The interface of one VIP of each family.
    fn wanted() -> Layout {
        Layout {
            mtu: Some(1450),
            addresses: ["10.0.0.11/24", "10.0.0.10/32", "2001:db8::10/128"].map(net).into(),
            routes: [
                by(MAIN_TABLE, "0.0.0.0/0", "10.0.0.1"),
                by(VIP_TABLE, "0.0.0.0/0", "10.0.0.1"),
                on_link(MAIN_TABLE, "10.0.0.0/24", None),
                on_link(VIP_TABLE, "10.0.0.0/24", Some("10.0.0.10")),
                on_link(VIP_TABLE, "2001:db8::/64", Some("2001:db8::10")),
            ]
            .into(),
            rules: Some(["10.0.0.10", "2001:db8::10"].map(ip).into()),
            ..Layout::default()
        }
    }

    /// All of it, and what the kernel adds by itself.
    fn settled() -> Actual {
        let wanted = wanted();
        let made = on_link(MAIN_TABLE, "10.0.0.0/24", None);
        let mut routes: Vec<_> = wanted.routes.iter().map(|&route| (route, STATIC)).collect();
        routes.retain(|(route, _)| *route != made);
        routes.push((on_link(MAIN_TABLE, "10.0.0.0/24", Some("10.0.0.11")), KERNEL));
        routes.push((on_link(MAIN_TABLE, "fe80::/64", None), KERNEL));
        let link_local = held("fe80::f816:3eff:fe00:1/64", Permanent);
        let own = wanted.addresses.iter().map(|&net| Held { net, standing: Permanent });
        Actual {
            mtu: 1450,
            up: true,
            addresses: own.chain([link_local]).collect(),
            routes,
            rules: wanted.rules.unwrap().into_iter().map(|source| (source, STATIC)).collect(),
        }
    }

    #[test]
    fn from_nothing() {
        let actual = Actual { mtu: 1500, ..Actual::default() };
        let want = [
            SetMtu(1450),
            SetUp,
            AddAddress(net("10.0.0.10/32")),
            AddAddress(net("10.0.0.11/24")),
            AddAddress(net("2001:db8::10/128")),
            AddRoute(by(VIP_TABLE, "0.0.0.0/0", "10.0.0.1")),
            AddRoute(on_link(VIP_TABLE, "10.0.0.0/24", Some("10.0.0.10"))),
            AddRoute(on_link(VIP_TABLE, "2001:db8::/64", Some("2001:db8::10"))),
            AddRoute(by(MAIN_TABLE, "0.0.0.0/0", "10.0.0.1")),
            AddRule(ip("10.0.0.10")),
            AddRule(ip("2001:db8::10")),
        ];
        assert_eq!(changes(&wanted(), &actual), want);
    }

    #[test]
    fn only_added() {
        let mut actual = settled();
        actual.mtu = 1500;
        actual.addresses = vec![held("10.0.0.77/24", Permanent), held("10.0.0.11/24", Duplicate)];
        actual.routes = vec![(by(MAIN_TABLE, "192.0.2.0/24", "10.0.0.7"), STATIC)];
        actual.rules = vec![(ip("10.0.0.77"), STATIC)];
        let mut wanted = wanted();
        wanted.addresses = ["10.0.0.11/24"].map(net).into();
        wanted.routes = [by(MAIN_TABLE, "0.0.0.0/0", "10.0.0.1")].into();
        wanted.rules = Some([ip("10.0.0.10")].into());
        let want = [
            SetMtu(1450),
            RemoveAddress(net("10.0.0.11/24")),
            AddAddress(net("10.0.0.11/24")),
            AddRoute(by(MAIN_TABLE, "0.0.0.0/0", "10.0.0.1")),
            AddRule(ip("10.0.0.10")),
        ];
        assert_eq!(additions(&wanted, &actual), want);
    }

    #[test]
    fn what_is_changed() {
        type Edit = fn(&mut Layout, &mut Actual);
        let rows: Vec<(&str, Edit, Vec<Change>)> = vec![
            ("nothing", |_, _| {}, vec![]),
            ("any MTU will do", |wanted, _| wanted.mtu = None, vec![]),
            ("another MTU", |_, actual| actual.mtu = 1500, vec![SetMtu(1450)]),
            ("down", |_, actual| actual.up = false, vec![SetUp]),
            (
                "tentative is there",
                |_, actual| {
                    for held in &mut actual.addresses {
                        held.standing = Tentative;
                    }
                },
                vec![],
            ),
            (
                "a duplicate is tried again",
                |_, actual| {
                    actual.addresses.retain(|held| held.net != net("2001:db8::10/128"));
                    actual.addresses.push(held("2001:db8::10/128", Duplicate));
                },
                vec![RemoveAddress(net("2001:db8::10/128")), AddAddress(net("2001:db8::10/128"))],
            ),
            (
                "others' addresses",
                |_, actual| {
                    actual.addresses.push(held("10.0.0.77/24", Dynamic));
                    actual.addresses.push(held("2001:db8::f816:3eff:fe00:1/64", Dynamic));
                },
                vec![],
            ),
            (
                "surplus addresses",
                |_, actual| {
                    actual.addresses.push(held("10.0.0.77/24", Permanent));
                    actual.addresses.push(held("2001:db8::77/64", Tentative));
                },
                vec![RemoveAddress(net("10.0.0.77/24")), RemoveAddress(net("2001:db8::77/64"))],
            ),
            (
                "another length",
                |_, actual| {
                    actual.addresses.retain(|held| held.net != net("10.0.0.11/24"));
                    actual.addresses.push(held("10.0.0.11/16", Permanent));
                },
                vec![RemoveAddress(net("10.0.0.11/16")), AddAddress(net("10.0.0.11/24"))],
            ),
            (
                "others' routes and rules",
                |_, actual| {
                    for protocol in [KERNEL, BOOT, KEEPALIVED] {
                        let route = by(VIP_TABLE, "192.0.2.0/24", "10.0.0.7");
                        actual.routes.push((route, protocol));
                        actual.rules.push((ip("10.0.0.99"), protocol));
                    }
                },
                vec![],
            ),
            (
                "surplus routes and rules",
                |_, actual| {
                    actual.routes.push((by(VIP_TABLE, "192.0.2.0/24", "10.0.0.7"), STATIC));
                    actual.rules.push((ip("10.0.0.99"), STATIC));
                },
                vec![
                    RemoveRule(ip("10.0.0.99")),
                    RemoveRoute(by(VIP_TABLE, "192.0.2.0/24", "10.0.0.7")),
                ],
            ),
            (
                "the kernel's rule is not ours",
                |_, actual| {
                    for (_, protocol) in &mut actual.rules {
                        *protocol = KEEPALIVED;
                    }
                },
                vec![AddRule(ip("10.0.0.10")), AddRule(ip("2001:db8::10"))],
            ),
            (
                "rules are for the interface of the VIPs to say",
                |wanted, _| wanted.rules = None,
                vec![],
            ),
            (
                "another gateway: the new one first",
                |_, actual| {
                    let new = by(VIP_TABLE, "0.0.0.0/0", "10.0.0.1");
                    actual.routes.retain(|(route, _)| *route != new);
                    actual.routes.push((by(VIP_TABLE, "0.0.0.0/0", "10.0.0.2"), STATIC));
                },
                vec![
                    AddRoute(by(VIP_TABLE, "0.0.0.0/0", "10.0.0.1")),
                    RemoveRoute(by(VIP_TABLE, "0.0.0.0/0", "10.0.0.2")),
                ],
            ),
            (
                "another IPv6 source: the old one first",
                |_, actual| {
                    let new = on_link(VIP_TABLE, "2001:db8::/64", Some("2001:db8::10"));
                    actual.routes.retain(|(route, _)| *route != new);
                    let old = on_link(VIP_TABLE, "2001:db8::/64", Some("2001:db8::9"));
                    actual.routes.push((old, STATIC));
                },
                vec![
                    RemoveRoute(on_link(VIP_TABLE, "2001:db8::/64", Some("2001:db8::9"))),
                    AddRoute(on_link(VIP_TABLE, "2001:db8::/64", Some("2001:db8::10"))),
                ],
            ),
            (
                "a link route that the kernel does not make",
                |wanted, actual| {
                    wanted.addresses.remove(&net("10.0.0.11/24"));
                    actual.addresses.retain(|held| held.net != net("10.0.0.11/24"));
                },
                vec![AddRoute(on_link(MAIN_TABLE, "10.0.0.0/24", None))],
            ),
            (
                "a link route from when the kernel did not make it",
                |_, actual| {
                    actual.routes.push((on_link(MAIN_TABLE, "10.0.0.0/24", None), STATIC));
                },
                vec![],
            ),
            (
                "a host route to the own network",
                |wanted, _| {
                    wanted.routes.remove(&on_link(MAIN_TABLE, "10.0.0.0/24", None));
                    wanted.routes.insert(by(MAIN_TABLE, "10.0.0.0/24", "10.0.0.254"));
                },
                vec![],
            ),
            (
                "edge 46: the VIPs are keepalived's, whether there or not",
                |wanted, actual| {
                    wanted.addresses.remove(&net("10.0.0.10/32"));
                    wanted.addresses.remove(&net("2001:db8::10/128"));
                    wanted.shared = ["10.0.0.10", "2001:db8::10"].map(ip).into();
                    wanted.rules = Some(BTreeSet::new());
                    wanted.routes.retain(|route| route.table == MAIN_TABLE);
                    for (route, protocol) in &mut actual.routes {
                        if route.table == VIP_TABLE {
                            *protocol = KEEPALIVED;
                        }
                    }
                    for (_, protocol) in &mut actual.rules {
                        *protocol = KEEPALIVED;
                    }
                    actual.addresses.retain(|held| held.net != net("2001:db8::10/128"));
                },
                vec![],
            ),
            (
                "another address, route and rule: in before out, and rules out first",
                |_, actual| {
                    actual.addresses[1].net = net("10.0.0.12/24");
                    actual.routes[1].0 = by(VIP_TABLE, "192.0.2.0/24", "10.0.0.7");
                    actual.rules[0].0 = ip("10.0.0.9");
                },
                vec![
                    AddAddress(net("10.0.0.11/24")),
                    AddRoute(on_link(VIP_TABLE, "10.0.0.0/24", Some("10.0.0.10"))),
                    AddRule(ip("10.0.0.10")),
                    RemoveRule(ip("10.0.0.9")),
                    RemoveRoute(by(VIP_TABLE, "192.0.2.0/24", "10.0.0.7")),
                    RemoveAddress(net("10.0.0.12/24")),
                ],
            ),
        ];
        for (row, edit, want) in rows {
            let (mut wanted, mut actual) = (wanted(), settled());
            edit(&mut wanted, &mut actual);
            assert_eq!(changes(&wanted, &actual), want, "{row}");
        }
    }
}
