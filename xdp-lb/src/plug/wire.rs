//! The interfaces of one network namespace, asked and changed over netlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use agent_api::plug::Mac;
use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::{
    AddressMessageBuilder, Handle, IpVersion, LinkUnspec, MulticastGroup, RouteMessageBuilder,
};
use tokio::runtime;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::diff::{Actual, Change, Held, Standing};
use super::layout::{Route, VIP_TABLE, Way};
use crate::namespace::Namespace;

/// Of our rules: before those of the kernel, and not that of keepalived's, beside which ours may stand
/// when a topology changes.
const RULE_PRIORITY: u32 = 110;

/// A netlink socket, and so a namespace.
#[derive(Clone, Debug)]
pub struct Wire {
    handle: Handle,
    /// Held while the kernel lists something: a second list on the same socket it refuses (EBUSY).
    listing: Arc<Mutex<()>>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Mac,
    pub up: bool,
    /// Bytes.
    pub mtu: u32,
    /// Bytes that it moved since it was made.
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

impl Wire {
    /// Of the namespace of this thread. Must be called from a tokio runtime.
    pub fn here() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle, listing: Arc::default() })
    }

    /// Of that namespace. Must be called from a tokio runtime.
    pub fn inside(namespace: &Namespace) -> io::Result<Self> {
        let runtime = runtime::Handle::current();
        namespace
            .enter(|| {
                let _here = runtime.enter();
                Self::here()
            })
            .flatten()
    }

    /// Without `lo`, and whatever else is not Ethernet.
    pub async fn links(&self) -> io::Result<Vec<Link>> {
        let _listing = self.listing.lock().await;
        let links = all(self.handle.link().get().execute()).await?;
        Ok(links.into_iter().filter_map(link).collect())
    }

    pub async fn by_mac(&self, mac: Mac) -> io::Result<Option<Link>> {
        Ok(self.links().await?.into_iter().find(|link| link.mac == mac))
    }

    /// Of all interfaces, with their indexes.
    pub async fn addresses(&self) -> io::Result<Vec<(u32, Held)>> {
        let _listing = self.listing.lock().await;
        let addresses = all(self.handle.address().get().execute()).await?;
        Ok(addresses.iter().filter_map(address).collect())
    }

    pub async fn actual(&self, link: &Link) -> io::Result<Actual> {
        let addresses = self.addresses().await?.into_iter();
        let own = addresses.filter(|(index, _)| *index == link.index);
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let _listing = self.listing.lock().await;
        let mut routes = Vec::new();
        for family in [v4, v6] {
            let messages = all(self.handle.route().get(family).execute()).await?;
            routes.extend(messages.iter().flat_map(|message| self::routes(message, link.index)));
        }
        let mut rules = Vec::new();
        for family in [IpVersion::V4, IpVersion::V6] {
            let messages = all(self.handle.rule().get(family).execute()).await?;
            rules.extend(messages.iter().filter_map(rule));
        }
        let addresses = own.map(|(_, held)| held).collect();
        Ok(Actual { mtu: link.mtu, up: link.up, addresses, routes, rules })
    }

    /// Moves an interface into another namespace, and renames it on the way: nobody sees it there under
    /// its old name. It arrives down and without addresses.
    pub async fn hand_over(
        &self,
        index: u32,
        namespace: BorrowedFd<'_>,
        name: &str,
    ) -> io::Result<()> {
        let moved = LinkUnspec::new_with_index(index).setns_by_fd(namespace.as_raw_fd());
        self.handle.link().set(moved.name(name).build()).execute().await.map_err(io_error)
    }

    pub async fn apply(&self, index: u32, change: Change) -> io::Result<()> {
        let link = || LinkUnspec::new_with_index(index);
        let done = match change {
            Change::SetMtu(mtu) => self.handle.link().set(link().mtu(mtu).build()).execute().await,
            Change::SetUp => self.handle.link().set(link().up().build()).execute().await,
            Change::AddAddress(net) => {
                let addresses = self.handle.address();
                addresses.add(index, net.addr(), net.prefix_len()).execute().await
            }
            Change::RemoveAddress(net) => {
                self.handle.address().del(address_message(index, net)).execute().await
            }
            Change::AddRoute(route) => return self.add_route(index, &route).await,
            Change::RemoveRoute(route) => {
                self.handle.route().del(route_message(index, &route)).execute().await
            }
            Change::AddRule(source) => {
                let mut request = self.handle.rule().add();
                *request.message_mut() = rule_message(source);
                request.execute().await
            }
            Change::RemoveRule(source) => {
                self.handle.rule().del(rule_message(source)).execute().await
            }
        };
        done.map_err(io_error)
    }

    /// Beside a route to the same destination, and in IPv4 before it: the old one is removed
    /// afterwards. The library would have it alone, or in place of any other, the kernel's too.
    async fn add_route(&self, index: u32, route: &Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(index, route));
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        let mut answers = self.handle.clone().request(request).map_err(io_error)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    }
}

/// Each time that an IPv6 address comes, goes or changes in a namespace. Must be called from a tokio
/// runtime.
pub fn ipv6_address_events(namespace: &Namespace) -> io::Result<impl Stream<Item = ()> + use<>> {
    let runtime = runtime::Handle::current();
    let opened = namespace.enter(|| {
        let _here = runtime.enter();
        rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv6Ifaddr])
    });
    let (connection, _, messages) = opened.flatten()?;
    // It ends with the stream, or it would go on hearing, with nobody to tell.
    let mut task = JoinSet::new();
    task.spawn(connection);
    Ok(messages.map(move |_| {
        let _ = &task;
    }))
}

async fn all<T>(answers: impl Stream<Item = Result<T, rtnetlink::Error>>) -> io::Result<Vec<T>> {
    answers.try_collect().await.map_err(io_error)
}

/// With the number that the kernel gave.
fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        error => io::Error::other(error),
    }
}

fn link(message: LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    if flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let (mut mac, mut link) = (None, None);
    let (mut mtu, mut rx_bytes, mut tx_bytes) = (0, 0, 0);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link = Some(name),
            LinkAttribute::Address(address) => mac = address.try_into().ok().map(Mac),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            LinkAttribute::Stats64(stats) => {
                (rx_bytes, tx_bytes) = (stats.rx_bytes, stats.tx_bytes);
            }
            _ => {}
        }
    }
    let up = flags.contains(LinkFlags::Up);
    Some(Link { index: message.header.index, name: link?, mac: mac?, up, mtu, rx_bytes, tx_bytes })
}

fn address(message: &AddressMessage) -> Option<(u32, Held)> {
    let (mut own, mut any, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            // The interface's own; the other one may be that of the other end.
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => any = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let net = IpNet::new(own.or(any)?, message.header.prefix_len).ok()?;
    Some((message.header.index, Held { net, standing: standing(flags) }))
}

fn standing(flags: AddressFlags) -> Standing {
    if !flags.contains(AddressFlags::Permanent) {
        Standing::Dynamic
    } else if flags.contains(AddressFlags::Dadfailed) {
        Standing::Duplicate
    } else if flags.contains(AddressFlags::Tentative) {
        Standing::Tentative
    } else {
        Standing::Permanent
    }
}

/// What leads out of the interface by one message: one route, but of an IPv6 route with several next
/// hops one for each.
fn routes(message: &RouteMessage, index: u32) -> Vec<(Route, u8)> {
    let header = &message.header;
    let any = if header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let (mut table, mut to, mut source, mut out) = (u32::from(header.table), any, None, None);
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => to = plain(address).unwrap_or(to),
            RouteAttribute::PrefSource(address) => source = plain(address),
            RouteAttribute::Oif(index) => out = Some(*index),
            RouteAttribute::MultiPath(all) => {
                let ours = all.iter().filter(|hop| hop.interface_index == index);
                hops.extend(ours.map(|hop| gateway(&hop.attributes)));
            }
            _ => {}
        }
    }
    if out == Some(index) {
        hops.push(gateway(&message.attributes));
    }
    let Ok(to) = IpNet::new(to, header.destination_prefix_length) else { return vec![] };
    if header.kind != RouteType::Unicast {
        return vec![];
    }
    let way = |gateway: Option<IpAddr>| gateway.map_or(Way::Link { source }, Way::Gateway);
    let protocol = u8::from(header.protocol);
    hops.into_iter().map(|gateway| (Route { table, to, way: way(gateway) }, protocol)).collect()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => plain(address),
        _ => None,
    })
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The source and the protocol of a rule such as ours.
fn rule(message: &RuleMessage) -> Option<(IpAddr, u8)> {
    let (mut table, mut source, mut protocol) = (u32::from(message.header.table), None, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Source(address) => source = Some(*address),
            RuleAttribute::Protocol(whose) => protocol = u8::from(*whose),
            _ => {}
        }
    }
    let source = source?;
    let one = message.header.src_len == IpNet::from(source).prefix_len();
    (table == VIP_TABLE && one).then_some((source, protocol))
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
    }
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.to.addr());
    message.header.destination_prefix_length = route.to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(route.to.addr().into()));
    attributes.push(RouteAttribute::Table(route.table));
    attributes.push(RouteAttribute::Oif(index));
    match route.way {
        Way::Gateway(gateway) => {
            attributes.push(RouteAttribute::Gateway(gateway.into()));
            message.header.flags = RouteFlags::Onlink;
        }
        Way::Link { source } => {
            attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
            message.header.scope = RouteScope::Link;
        }
    }
    message
}

fn rule_message(source: IpAddr) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(source);
    message.header.src_len = IpNet::from(source).prefix_len();
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(source),
        RuleAttribute::Table(VIP_TABLE),
        RuleAttribute::Priority(RULE_PRIORITY),
        RuleAttribute::Protocol(RouteProtocol::Static),
    ];
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standings() {
        let rows = [
            (AddressFlags::empty(), Standing::Dynamic),
            (AddressFlags::Permanent, Standing::Permanent),
            (AddressFlags::Permanent | AddressFlags::Tentative, Standing::Tentative),
            (
                AddressFlags::Permanent | AddressFlags::Tentative | AddressFlags::Dadfailed,
                Standing::Duplicate,
            ),
            // Of a router: none of ours, however it stands.
            (AddressFlags::Tentative, Standing::Dynamic),
        ];
        for (flags, want) in rows {
            assert_eq!(standing(flags), want, "{flags:?}");
        }
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        let route = |to: &str, way| Route { table: VIP_TABLE, to: to.parse().unwrap(), way };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let rows = [
            route("0.0.0.0/0", Way::Gateway(ip("10.0.0.1"))),
            route("10.0.0.0/24", Way::Link { source: Some(ip("10.0.0.10")) }),
            route("::/0", Way::Gateway(ip("2001:db8::1"))),
            route("2001:db8::/64", Way::Link { source: None }),
        ];
        for want in rows {
            let message = route_message(7, &want);
            assert_eq!(routes(&message, 7), [(want, 4)]);
            assert_eq!(routes(&message, 8), [], "out of another interface");
        }
        for source in [ip("10.0.0.10"), ip("2001:db8::10")] {
            assert_eq!(rule(&rule_message(source)), Some((source, 4)));
            let mut wider = rule_message(source);
            wider.header.src_len -= 1;
            assert_eq!(rule(&wider), None);
        }
    }
}
