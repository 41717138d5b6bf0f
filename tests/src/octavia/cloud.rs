//! What is around the load balancers of a stack: clients, and members with real servers.

use std::cell::RefCell;
use std::io::{BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::{io, thread, time::Instant};

use anyhow::{Context, Result, ensure};
use openssl::ssl::{SslAcceptor, SslMethod};
use serde_json::{Value, json};

use super::api;
use super::stack::Stack;
use crate::container::{self, LOOK};
use crate::http::Head;
use crate::lab::{Host, Netns};
use crate::pki::{Authority, Kind};
use crate::servers::Server;
use crate::signals;

/// Subnets of `topology.json`.
pub const VIP_SUBNET: &str = "b0000000-0000-4000-8000-000000000004";
pub const VIP_SUBNET6: &str = "b0000000-0000-4000-8000-000000000006";
pub const MEMBER_SUBNET: &str = "c0000000-0000-4000-8000-000000000004";
pub const MEMBER_SUBNET6: &str = "c0000000-0000-4000-8000-000000000006";
pub const OTHER_SUBNET: &str = "d0000000-0000-4000-8000-000000000004";

/// Of every network that amphorae carry traffic over.
const MTU: u32 = 1450;
/// Ports of every member: HTTP, the same over TLS, and datagrams.
pub const HTTP: u16 = 80;
pub const TLS: u16 = 443;
pub const UDP: u16 = 7000;
/// On the network of members.
pub const MEMBERS: [&str; 3] = ["m1", "m2", "m3"];
/// On a network that members are on as well, which a load balancer may be plugged into or not.
pub const OTHER: &str = "other";
/// How many addresses the client has, one for each of its connections that shall differ.
pub const CLIENT_ADDRESSES: u8 = 12;
const CLIENT_FIRST: u8 = 10;

/// Which amphorae a load balancer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Image {
    Stock,
    XdpLb,
}

impl Image {
    /// As `amp_image_tag` has it.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::XdpLb => "xdp-lb",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Single,
    ActiveStandby,
}

impl Topology {
    fn word(self) -> &'static str {
        match self {
            Self::Single => "SINGLE",
            Self::ActiveStandby => "ACTIVE_STANDBY",
        }
    }
}

/// A host with servers, which may die and live again.
pub struct Member {
    pub host: Host,
    servers: RefCell<Vec<Server>>,
}

impl Member {
    pub fn lives(&self) -> Result<()> {
        let mut servers = self.servers.borrow_mut();
        if servers.is_empty() {
            servers.push(Server::http(&self.host, HTTP)?);
            servers.push(Server::tcp(&self.host, TLS, serve_tls)?);
            servers.push(Server::udp(&self.host, UDP)?);
        }
        Ok(())
    }

    /// Its ports are closed; the host still answers pings.
    pub fn dies(&self) {
        self.servers.borrow_mut().clear();
    }

    /// The host does not answer anything any more.
    pub fn unplugged(&self, unplugged: bool) -> Result<()> {
        let state = if unplugged { "down" } else { "up" };
        Ok(self.host.netns.ip(&[format!("link set eth0 {state}")])?)
    }
}

pub struct Cloud {
    pub stack: Stack,
    pub client: Host,
    pub members: Vec<Member>,
    pub other: Member,
    /// Is told of each call before it is made; nobody cares at first.
    pub watch: fn(method: &str, path: &str, body: Option<&Value>),
}

impl Cloud {
    /// Puts clients and members around a stack; they go with this value.
    pub fn around(stack: Stack) -> Result<Self> {
        let v4 = |net: [u8; 3], host: u8| Ipv4Addr::new(net[0], net[1], net[2], host);
        let v6 = |net: u16, host: u8| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host.into());
        let client = [198, 51, 100];
        let addresses = (CLIENT_FIRST..CLIENT_FIRST + CLIENT_ADDRESSES)
            .flat_map(|host| [IpAddr::from(v4(client, host)), v6(0x100, host).into()]);
        let client = host(&stack, "client", "vip", &addresses.collect::<Vec<_>>(), &[])?;
        let member = |host: Host| Member { host, servers: RefCell::default() };
        let members = MEMBERS.iter().zip(11..).map(|(name, number)| {
            let addresses = [v4([203, 0, 113], number).into(), v6(0x200, number).into()];
            host(&stack, name, "member", &addresses, &["203.0.113.1", "2001:db8:200::1"])
                .map(member)
        });
        let members = members.collect::<Result<Vec<_>>>()?;
        let other = [v4([192, 0, 2], 11).into(), v6(0x300, 11).into()];
        let other = member(host(&stack, OTHER, "other", &other, &["192.0.2.1"])?);
        let cloud = Self { stack, client, members, other, watch: |_, _, _| () };
        for member in cloud.members.iter().chain([&cloud.other]) {
            member.lives()?;
        }
        Ok(cloud)
    }

    pub fn member(&self, name: &str) -> Result<&Member> {
        let mut all = self.members.iter().chain([&self.other]);
        all.find(|member| member.host.name == name).with_context(|| format!("no member {name}"))
    }

    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        (self.watch)(method, path, body);
        api::call(&self.stack.netns, method, path, body)
    }

    pub fn show(&self, path: &str) -> Result<Value> {
        api::show(&self.stack.netns, path)
    }

    /// The flavor whose load balancers have such amphorae; made when it is first asked for.
    pub fn flavor(&self, image: Image, topology: Topology) -> Result<String> {
        let name = format!("{} {}", image.tag(), topology.word());
        let flavors = self.show("lbaas/flavors")?;
        let known = flavors.as_array().into_iter().flatten().find(|flavor| flavor["name"] == name);
        if let Some(flavor) = known {
            return api::text(flavor, "id");
        }
        let data = json!({"loadbalancer_topology": topology.word(), "amp_image_tag": image.tag()});
        let profile = json!({"flavorprofile": {
            "name": name, "provider_name": "amphora", "flavor_data": data.to_string()}});
        let profile = self.call("POST", "lbaas/flavorprofiles", Some(&profile))?;
        let flavor = json!({"flavor": {
            "name": name, "flavor_profile_id": profile["flavorprofile"]["id"]}});
        let flavor = self.call("POST", "lbaas/flavors", Some(&flavor))?;
        api::text(&flavor["flavor"], "id")
    }

    /// From one of the client's addresses: the `number`th of the family of `to`.
    pub fn from(&self, number: u8, to: SocketAddr) -> SocketAddr {
        let host = CLIENT_FIRST + number % CLIENT_ADDRESSES;
        match to {
            SocketAddr::V4(_) => (Ipv4Addr::new(198, 51, 100, host), 0).into(),
            SocketAddr::V6(_) => {
                (Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, host.into()), 0).into()
            }
        }
    }

    /// Whether nothing of a load balancer is left: no container, no interface, no namespace.
    pub fn is_bare(&self) -> Result<()> {
        let units = ["list-units", "--plain", "--no-legend", "amphora-*"];
        let amphorae = container::output(&mut self.stack.command("systemctl", &units))?;
        ensure!(amphorae.is_empty(), "there are still {amphorae}");
        let links = self.stack.netns.run("ip", &["-brief", "link", "show", "type", "veth"])?;
        let taps: Vec<_> = links.lines().filter(|line| line.starts_with("tap")).collect();
        ensure!(taps.is_empty(), "there are still {taps:?}");
        let names = container::output(&mut self.stack.command("ip", &["netns", "list"]))?;
        ensure!(names.is_empty(), "there are still {names}");
        Ok(())
    }
}

/// Until `look` succeeds; its last error when it does not within `seconds`, or another at a Ctrl-C that is
/// to be answered.
pub fn eventually<T>(seconds: u64, look: impl Fn() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        signals::check()?;
        match look() {
            Err(error) if began.elapsed().as_secs() >= seconds => {
                return Err(error.context(format!("still so after {seconds} s")));
            }
            Err(_) => thread::sleep(LOOK),
            found => return found,
        }
    }
}

/// A namespace on a network of the stack's, ready at once.
fn host(
    stack: &Stack,
    name: &str,
    network: &str,
    addresses: &[IpAddr],
    gateways: &[&str],
) -> Result<Host> {
    let netns = Netns::unnamed(name)?;
    netns.sysctl("ipv6/conf/default/accept_dad", "0")?;
    netns.sysctl("ipv6/conf/all/accept_dad", "0")?;
    stack.netns.ip(&[
        format!(
            "link add {name} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {}",
            netns.path()
        ),
        format!("link set {name} up master br-{network}"),
    ])?;
    netns.run("ethtool", &["--offload", "eth0", "tx", "off"])?;
    let own = addresses.iter().map(|address| match address {
        IpAddr::V4(v4) => format!("address add {v4}/24 dev eth0"),
        IpAddr::V6(v6) => format!("address add {v6}/64 dev eth0 nodad"),
    });
    let up = ["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    let routes = gateways.iter().map(|gateway| format!("route add default via {gateway}"));
    netns.ip(&own.chain(up).chain(routes).collect::<Vec<_>>())?;
    let find = |v4: bool| addresses.iter().find(|address| address.is_ipv4() == v4);
    match (find(true), find(false)) {
        (Some(IpAddr::V4(v4)), Some(IpAddr::V6(v6))) => {
            Ok(Host { name: name.to_owned(), netns, v4: *v4, v6: *v6 })
        }
        _ => anyhow::bail!("{name} lacks an address"),
    }
}

/// As the HTTP server, but for one request, over TLS.
fn serve_tls(stream: TcpStream, name: &str) -> io::Result<()> {
    static ACCEPTOR: LazyLock<SslAcceptor> = LazyLock::new(|| acceptor().expect("a certificate"));
    let peer = stream.peer_addr()?;
    let mut stream = ACCEPTOR.accept(stream).map_err(io::Error::other)?;
    if Head::read(&mut BufReader::new(&mut stream))?.is_some() {
        let length = name.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nMember: {name}\r\nPeer: {peer}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{name}"
        )?;
    }
    // Its end is told to the other side before the connection's.
    let _ = stream.shutdown();
    Ok(())
}

fn acceptor() -> Result<SslAcceptor> {
    let issued = Authority::new("members")?.issue("member", Kind::Octavia)?;
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_certificate(&issued.certificate)?;
    builder.set_private_key(&issued.key)?;
    Ok(builder.build())
}
