//! The kernel's network, asked and listened to over netlink.
//!
//! Every event means one thing: look again. The tables are read anew as a whole, which is cheap at
//! the size they have here, and cannot drift from what the kernel knows when events are lost.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType, RouteVia,
};
use rtnetlink::{Handle, IpVersion, MulticastGroup, RouteMessageBuilder};

use super::topology::{Address, Link, Neighbour, NextHop, Route, Topology, Way};
use crate::kernel::Mode;

/// Events come in bursts; what they mean is the same after the last one.
const SETTLE: Duration = Duration::from_millis(10);
/// A stream of events does not put off the look for longer than this.
const SETTLE_MAX: Duration = Duration::from_millis(100);

type Events = std::pin::Pin<Box<dyn Stream<Item = ()> + Send>>;

/// The network of the namespace this was made in.
pub struct Watch {
    handle: Handle,
    events: Events,
    /// An event was heard that [`changed`](Self::changed) has not told of yet.
    stirred: bool,
}

impl Watch {
    /// Must be called from a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        let events = Box::pin(messages.map(|_| ()));
        Ok(Self { handle, events, stirred: false })
    }

    /// Returns when something has changed and the burst is over; an error where the kernel can no
    /// longer be heard. Dropped before its end, it loses nothing.
    pub async fn changed(&mut self) -> io::Result<()> {
        let deaf = || io::Error::other("the netlink socket is closed");
        if !self.stirred {
            self.events.next().await.ok_or_else(deaf)?;
            self.stirred = true;
        }
        let burst = async {
            while let Ok(event) = tokio::time::timeout(SETTLE, self.events.next()).await {
                event.ok_or_else(deaf)?;
            }
            Ok(())
        };
        let over = tokio::time::timeout(SETTLE_MAX, burst).await.unwrap_or(Ok(()));
        self.stirred = false;
        over
    }

    /// What the kernel knows now.
    pub async fn topology(&self) -> Result<Topology, rtnetlink::Error> {
        let mut topology = Topology::default();
        let mut links = std::pin::pin!(self.handle.link().get().execute());
        while let Some(message) = links.try_next().await? {
            topology.links.insert(message.header.index, link(message));
        }
        let mut addresses = std::pin::pin!(self.handle.address().get().execute());
        while let Some(message) = addresses.try_next().await? {
            topology.addresses.extend(address(&message));
        }
        for version in [IpVersion::V4, IpVersion::V6] {
            let all = match version {
                IpVersion::V4 => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
                IpVersion::V6 => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            };
            let mut routes = std::pin::pin!(self.handle.route().get(all).execute());
            while let Some(message) = routes.try_next().await? {
                topology.routes.extend(route(&message));
            }
        }
        let mut neighbours = std::pin::pin!(self.handle.neighbours().get().execute());
        while let Some(message) = neighbours.try_next().await? {
            topology.neighbours.extend(neighbour(&message));
        }
        Ok(topology)
    }

    /// Has the kernel ask for a neighbour's MAC, and from Linux 5.16 on keep it fresh by itself.
    pub async fn resolve(&self, next: NextHop) -> Result<(), rtnetlink::Error> {
        self.manage(next, NeighbourExtFlags::Managed).await
    }

    /// Leaves a neighbour to the kernel's usual ways again.
    pub async fn release(&self, next: NextHop) -> Result<(), rtnetlink::Error> {
        self.manage(next, NeighbourExtFlags::empty()).await
    }

    async fn manage(
        &self,
        next: NextHop,
        flags: NeighbourExtFlags,
    ) -> Result<(), rtnetlink::Error> {
        // NTF_USE leaves what is known as it is, and asks where nothing is known. An older kernel
        // does not look at the attribute.
        let neighbours = self.handle.neighbours();
        let request = neighbours.add(next.ifindex, next.addr).state(NeighbourState::None);
        let mut request = request.flags(NeighbourFlags::Use).replace();
        request.message_mut().attributes.push(NeighbourAttribute::ExtFlags(flags));
        request.execute().await
    }
}

fn link(message: LinkMessage) -> Link {
    let ether = message.header.link_layer_type == LinkLayerType::Ether;
    let mut link = Link {
        name: String::new(),
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
        xdp: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) if ether => link.mac = mac.try_into().ok(),
            LinkAttribute::Xdp(facts) => link.xdp = facts.iter().find_map(mode),
            _ => {}
        }
    }
    link
}

/// How a program is attached, where a fact says so.
pub fn mode(fact: &LinkXdp) -> Option<Mode> {
    match fact {
        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => Some(Mode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Mode::Generic),
        _ => None,
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    // `Local` is the interface's own; `Address` may be the other end's.
    let own = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(addr) => Some(*addr),
        _ => None,
    };
    let any = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(addr) => Some(*addr),
        _ => None,
    };
    let attributes = || message.attributes.iter();
    let addr = attributes().find_map(own).or_else(|| attributes().find_map(any))?;
    let has = |wanted: AddressFlags| {
        attributes().any(|attribute| {
            matches!(attribute, AddressAttribute::Flags(flags) if flags.intersects(wanted))
        })
    };
    let unusable = AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed;
    Some(Address {
        ifindex: message.header.index,
        network: IpNet::new(addr, message.header.prefix_len).ok()?,
        usable: message.header.scope == AddressScope::Universe && !has(unusable),
        secondary: message.header.flags.contains(AddressHeaderFlags::Secondary),
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let attributes = &message.attributes;
    let table = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    if table.unwrap_or(message.header.table.into()) != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let any = if u8::from(message.header.address_family) == libc::AF_INET as u8 {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let destination = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(addr) => plain(addr),
        _ => None,
    });
    let metric = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    Some(Route {
        to: IpNet::new(destination.unwrap_or(any), message.header.destination_prefix_length)
            .ok()?,
        metric: metric.unwrap_or(0),
        way: way(message)?,
    })
}

fn way(message: &RouteMessage) -> Option<Way> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => {
            return Some(Way::Nowhere);
        }
        _ => return None,
    }
    let out = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(ifindex) => {
            Some(Way::Out { ifindex: *ifindex, gateway: gateway(&message.attributes) })
        }
        RouteAttribute::MultiPath(hops) => {
            let dead = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
            let hop = hops.iter().find(|hop| !hop.flags.intersects(dead))?;
            Some(Way::Out { ifindex: hop.interface_index, gateway: gateway(&hop.attributes) })
        }
        _ => None,
    };
    message.attributes.iter().find_map(out)
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(addr) => plain(addr),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    })
}

fn plain(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<(NextHop, Neighbour)> {
    let addr = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some((*addr).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    });
    let next = NextHop { ifindex: message.header.ifindex, addr };
    Some((next, standing(message.header.state, mac)))
}

fn standing(state: NeighbourState, mac: Option<[u8; 6]>) -> Neighbour {
    match (state, mac) {
        (NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => Neighbour::Fixed { mac },
        (NeighbourState::Stale, Some(mac)) => Neighbour::Known { mac, fresh: false },
        (NeighbourState::Reachable | NeighbourState::Delay | NeighbourState::Probe, Some(mac)) => {
            Neighbour::Known { mac, fresh: true }
        }
        (NeighbourState::Failed, _) => Neighbour::Silent,
        _ => Neighbour::Asked,
    }
}
