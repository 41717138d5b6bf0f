//! The load balancer of the tables: its interfaces, its services and their members.
//!
//! Clients and their router are behind [`WAN`], members behind [`LAN`]. A service is a listener for
//! each protocol, at two VIPs of both families; its port names it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdp_lb_ebpf::Reason;
use xdp_lb_ebpf::abi::{
    Algorithm, BACKEND_STICKY, BACKEND_UP, Backend, Listener, ListenerKey, NetworkKey,
};
pub use xdp_lb_ebpf::hook::Verdict;
use zerocopy::FromZeros;

use super::frame::{Body, Frame, Mac, Message, SCTP, TCP, UDP};

pub const WAN: u32 = 11;
pub const LAN: u32 = 12;
/// No interface has it.
pub const GONE: u32 = 99;
pub const WAN_MAC: Mac = [2, 0, 0, 0, 0, 0x11];
pub const LAN_MAC: Mac = [2, 0, 0, 0, 0, 0x12];
pub const ROUTER: Mac = [2, 0, 0, 0, 1, 1];
pub const OTHER_ROUTER: Mac = [2, 0, 0, 0, 1, 2];
pub const INTERFACES: [(u32, Mac); 2] = [(WAN, WAN_MAC), (LAN, LAN_MAC)];

pub const FLOWS: u32 = 64;
pub const SEEDS: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211];
/// The first, and how many.
pub const SOURCE_PORTS: (u16, u16) = (1024, 59976);
pub const NOW_S: u32 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}
pub use Family::{V4, V6};
pub const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    fn host(self, net: u8, host: u8) -> IpAddr {
        match self {
            V4 => Ipv4Addr::new(198, 51, net, host).into(),
            V6 => Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, host.into()).into(),
        }
    }
    pub fn client(self, host: u8) -> IpAddr {
        self.host(100, host)
    }
    pub fn stranger(self, host: u8) -> IpAddr {
        self.host(77, host)
    }
    pub fn vip(self, host: u8) -> IpAddr {
        self.host(1, host)
    }
    pub fn member(self, host: u8) -> IpAddr {
        self.host(2, host)
    }
    pub fn router(self) -> IpAddr {
        self.host(3, 254)
    }
    /// The load balancer's own address towards members.
    pub fn source(self) -> IpAddr {
        self.member(100)
    }
}

pub struct Service {
    pub port: u16,
    pub algorithm: Algorithm,
    /// Members, 1 to 4, in the order of the ring.
    pub ring: &'static [u8],
    /// Of members 1 to 4.
    pub weights: [u16; 4],
    pub member_port: u16,
    /// The members' interface; 0 where their next hop is not known.
    pub by: u32,
    pub connections_max: u32,
    pub sticky_s: u32,
    /// Of IPv4 and of IPv6, as in 128 bits.
    pub sticky_bits: [u8; 2],
    pub restricted: bool,
}

const PLAIN: Service = Service {
    port: 0,
    algorithm: Algorithm::RoundRobin,
    ring: &[1],
    weights: [1; 4],
    member_port: 8080,
    by: LAN,
    connections_max: u32::MAX,
    sticky_s: 0,
    sticky_bits: [128; 2],
    restricted: false,
};

/// One member.
pub const ONE: u16 = 80;
pub const ROUND: u16 = 81;
pub const WEIGHTED: u16 = 82;
pub const LEAST: u16 = 83;
pub const BY_IP: u16 = 84;
pub const BY_PORT: u16 = 85;
pub const STICKY: u16 = 86;
pub const STICKY_NET: u16 = 87;
pub const LIMITED: u16 = 88;
pub const ALLOWED: u16 = 89;
pub const NOBODY: u16 = 90;
/// The member is on the clients' side.
pub const ONE_ARM: u16 = 91;
pub const LOST: u16 = 92;
pub const CUT_OFF: u16 = 93;
/// The member's port is the listener's.
pub const SAME_PORT: u16 = 94;
/// Of the members of ONE, but another listener.
pub const TWIN: u16 = 95;
pub const CLOSED_TO_ALL: u16 = 96;
/// No listener.
pub const UNKNOWN: u16 = 99;

pub const LIMIT: u32 = 2;
pub const STICKY_S: u32 = 60;

pub const SERVICES: &[Service] = &[
    Service { port: ONE, ..PLAIN },
    Service { port: ROUND, ring: &[1, 2, 3], ..PLAIN },
    Service { port: WEIGHTED, ring: &[1, 1, 2, 1], weights: [3, 1, 0, 0], ..PLAIN },
    Service {
        port: LEAST,
        algorithm: Algorithm::LeastConnections,
        ring: &[1, 2, 3],
        weights: [1, 1, 2, 1],
        ..PLAIN
    },
    Service { port: BY_IP, algorithm: Algorithm::SourceIp, ring: &[1, 2, 3, 4], ..PLAIN },
    Service { port: BY_PORT, algorithm: Algorithm::SourceIpPort, ring: &[1, 2, 3, 4], ..PLAIN },
    Service { port: STICKY, ring: &[1, 2], sticky_s: STICKY_S, ..PLAIN },
    Service {
        port: STICKY_NET,
        ring: &[1, 2],
        sticky_s: STICKY_S,
        sticky_bits: [96 + 28, 124],
        ..PLAIN
    },
    Service { port: LIMITED, connections_max: LIMIT, ..PLAIN },
    Service { port: ALLOWED, restricted: true, ..PLAIN },
    Service { port: NOBODY, ring: &[], ..PLAIN },
    Service { port: ONE_ARM, by: WAN, ..PLAIN },
    Service { port: LOST, by: 0, ..PLAIN },
    Service { port: CUT_OFF, by: GONE, ..PLAIN },
    Service { port: SAME_PORT, member_port: SAME_PORT, ..PLAIN },
    Service { port: TWIN, ..PLAIN },
    Service { port: CLOSED_TO_ALL, connections_max: 0, ..PLAIN },
];

/// Entries of the ring that each service has for each family.
const RING_ROOM: u32 = 4;

fn index(port: u16) -> u32 {
    SERVICES.iter().position(|service| service.port == port).expect("a service of the table") as u32
}

fn service(port: u16) -> &'static Service {
    &SERVICES[index(port) as usize]
}

pub fn backend_id(port: u16, family: Family, member: u8) -> u32 {
    (index(port) * 2 + family as u32) * 4 + u32::from(member) - 1
}

pub fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What happened to a frame: all that can be seen from outside.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub frame: Vec<u8>,
    /// The counters that moved, each as often as it did.
    pub reasons: Vec<Reason>,
}

/// How far a local socket is with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It listens at the VIP, and has none.
    Listening,
    /// The client has not said more than its SYN (SYN_RECV).
    Requested,
    Established,
    /// Both have said that they are done, the client last (TIME_WAIT).
    Finished,
    /// It is the socket that sent the SYN (SYN_SENT).
    Asking,
}

/// What the tables run on: memory on the host, or the kernel's maps.
pub trait Machine {
    /// Forgets every flow and all that came of it, and every socket. Settings stay.
    fn forget(&mut self);
    fn set_clock(&mut self, now_s: u32);
    fn set_interface(&mut self, ifindex: u32, mac: Mac);
    fn set_listener(&mut self, key: &ListenerKey, listener: &Listener);
    fn remove_listener(&mut self, key: &ListenerKey);
    fn set_ring(&mut self, at: u32, backend: u32);
    fn set_backend(&mut self, id: u32, backend: &Backend);
    fn set_network(&mut self, bits: u32, network: &NetworkKey);
    fn end_flows(&mut self, backends: &BTreeSet<u32>);
    fn open_socket(&mut self, flow: &Flow, held: Held);
    fn send(&mut self, by: u32, frame: &[u8]) -> Outcome;
}

/// As the control program would fill it.
pub fn build(machine: &mut dyn Machine) {
    machine.forget();
    machine.set_clock(NOW_S);
    for (ifindex, mac) in INTERFACES {
        machine.set_interface(ifindex, mac);
    }
    for service in SERVICES {
        for member in 1..=4 {
            set_member(machine, service.port, member, BACKEND_UP | BACKEND_STICKY, 1);
        }
        set_ring(machine, service.port, service.ring);
    }
    let listener = index(ALLOWED).to_be_bytes();
    for (bits, addr) in [
        // 198.51.100.0/28 and 198.51.77.9; the same of IPv6.
        (96 + 28, wide(V4.client(0))),
        (128, wide(V4.stranger(9))),
        (124, wide(V6.client(0))),
        (128, wide(V6.stranger(9))),
    ] {
        machine.set_network(32 + bits, &NetworkKey { listener, addr });
    }
}

/// Sets a member in both families.
pub fn set_member(machine: &mut dyn Machine, port: u16, member: u8, flags: u16, epoch: u32) {
    let service = service(port);
    for family in FAMILIES {
        let (_, own_mac) =
            INTERFACES.into_iter().find(|(by, _)| *by == service.by).unwrap_or_default();
        let source = if service.by == WAN { family.vip(10) } else { family.source() };
        let backend = Backend {
            addr: wide(family.member(member)),
            source: wide(source),
            mac: member_mac(member),
            port: service.member_port.to_be_bytes(),
            own_mac,
            ifindex: service.by,
            listener: index(port),
            epoch,
            weight: service.weights[usize::from(member) - 1],
            flags,
            ..Backend::default()
        };
        machine.set_backend(backend_id(port, family, member), &backend);
    }
}

/// Ends the flows of a member in both families.
pub fn reset(machine: &mut dyn Machine, port: u16, member: u8) {
    machine.end_flows(&FAMILIES.map(|family| backend_id(port, family, member)).into());
}

/// Sets who takes new flows, in both families, and with it the listener at all its addresses.
pub fn set_ring(machine: &mut dyn Machine, port: u16, members: &[u8]) {
    let service = service(port);
    for family in FAMILIES {
        let ring_start = (index(port) * 2 + family as u32) * RING_ROOM;
        for (at, member) in members.iter().enumerate() {
            machine.set_ring(ring_start + at as u32, backend_id(port, family, *member));
        }
        let listener = Listener {
            id: index(port),
            ring_start,
            ring_len: members.len() as u32,
            connections_max: service.connections_max,
            sticky_s: service.sticky_s,
            seed: 7,
            algorithm: service.algorithm as u8,
            restricted: service.restricted.into(),
            sticky_bits: service.sticky_bits[family as usize],
            ..Listener::new_zeroed()
        };
        for key in keys(port, family) {
            machine.set_listener(&key, &listener);
        }
    }
}

/// Takes a service away, as it is where another program has it.
pub fn withdraw(machine: &mut dyn Machine, port: u16) {
    for key in FAMILIES.into_iter().flat_map(|family| keys(port, family)) {
        machine.remove_listener(&key);
    }
}

fn keys(port: u16, family: Family) -> impl Iterator<Item = ListenerKey> {
    let key = move |vip, proto| ListenerKey {
        addr: wide(family.vip(vip)),
        port: port.to_be_bytes(),
        proto,
        zero: 0,
    };
    [10, 11].into_iter().flat_map(move |vip| [TCP, UDP, SCTP].map(|proto| key(vip, proto)))
}

pub fn member_mac(member: u8) -> Mac {
    [2, 0, 0, 0, 2, member]
}

/// A connection as a row means it: the same message looks different at four places.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub family: Family,
    pub proto: u8,
    pub client: IpAddr,
    pub client_mac: Mac,
    pub sport: u16,
    pub vip: u8,
    /// The service.
    pub port: u16,
    pub member: u8,
    /// Towards the member.
    pub source_port: u16,
}

/// From the first client, port 40000, which is kept, to member 1.
pub fn flow(family: Family, proto: u8, port: u16) -> Flow {
    Flow {
        family,
        proto,
        client: family.client(7),
        client_mac: ROUTER,
        sport: 40000,
        vip: 10,
        port,
        member: 1,
        source_port: 40000,
    }
}

impl Flow {
    pub fn client(self, host: u8) -> Self {
        Self { client: self.family.client(host), ..self }
    }
    pub fn stranger(self, host: u8) -> Self {
        Self { client: self.family.stranger(host), ..self }
    }
    /// Another port of the client, kept towards the member.
    pub fn sport(self, sport: u16) -> Self {
        Self { sport, source_port: sport, ..self }
    }
    pub fn source_port(self, source_port: u16) -> Self {
        Self { source_port, ..self }
    }
    pub fn member(self, member: u8) -> Self {
        Self { member, ..self }
    }
    pub fn vip(self, vip: u8) -> Self {
        Self { vip, ..self }
    }
    pub fn client_mac(self, client_mac: Mac) -> Self {
        Self { client_mac, ..self }
    }

    /// As the client sends it.
    pub fn sent(&self, message: Message) -> Frame {
        Frame {
            by: WAN,
            from: self.client_mac,
            to: WAN_MAC,
            src: self.client,
            dst: self.family.vip(self.vip),
            ttl: message.ttl,
            body: message.body(self.proto, self.sport, self.port),
        }
    }

    /// As the member gets it.
    pub fn taken(&self, message: Message) -> Frame {
        let service = service(self.port);
        let (source, from) = self.our_side();
        Frame {
            by: service.by,
            from,
            to: member_mac(self.member),
            src: source,
            dst: self.family.member(self.member),
            ttl: message.ttl - 1,
            body: message.body(self.proto, self.source_port, service.member_port),
        }
    }

    /// As the member answers.
    pub fn answered(&self, message: Message) -> Frame {
        let service = service(self.port);
        let (source, to) = self.our_side();
        Frame {
            by: service.by,
            from: member_mac(self.member),
            to,
            src: self.family.member(self.member),
            dst: source,
            ttl: message.ttl,
            body: message.body(self.proto, service.member_port, self.source_port),
        }
    }

    /// As the client hears it.
    pub fn heard(&self, message: Message) -> Frame {
        Frame {
            by: WAN,
            from: WAN_MAC,
            to: self.client_mac,
            src: self.family.vip(self.vip),
            dst: self.client,
            ttl: message.ttl - 1,
            body: message.body(self.proto, self.port, self.sport),
        }
    }

    fn our_side(&self) -> (IpAddr, Mac) {
        if service(self.port).by == WAN {
            (self.family.vip(10), WAN_MAC)
        } else {
            (self.family.source(), LAN_MAC)
        }
    }

    /// The first message of a client.
    pub fn opening(&self) -> Message {
        match self.proto {
            TCP => super::frame::say("S"),
            UDP => super::frame::say("").data(b"question"),
            // INIT, as far as the load balancer cares.
            _ => super::frame::say("").data(&[1, 0, 0, 4]),
        }
    }

    /// What a member says to that.
    pub fn answer(&self) -> Message {
        match self.proto {
            TCP => super::frame::say("SA").seq(4999),
            UDP => super::frame::say("").data(b"answer!"),
            _ => super::frame::say("").data(&[2, 0, 0, 4]),
        }
    }

    /// What makes the client real.
    pub fn confirmation(&self) -> Message {
        match self.proto {
            TCP => super::frame::say("A"),
            UDP => super::frame::say("").data(b"more"),
            _ => super::frame::say("").data(&[10, 0, 0, 4]),
        }
    }

    /// An ICMP error about `quoted`, as a router on the way to the member sends it.
    pub fn error_from_members(&self, kind: u8, code: u8, rest: [u8; 4], quoted: Vec<u8>) -> Frame {
        Frame {
            src: self.family.router(),
            ttl: 60,
            ..self.answered(self.answer()).with(Body::Icmp { kind, code, rest, quoted })
        }
    }

    /// The same on its way to the client: from the VIP.
    pub fn error_heard(&self, kind: u8, code: u8, rest: [u8; 4], quoted: Vec<u8>) -> Frame {
        Frame { ttl: 59, ..self.heard(self.answer()).with(Body::Icmp { kind, code, rest, quoted }) }
    }

    /// An ICMP error as a router on the way to the client sends it.
    pub fn error_from_clients(&self, kind: u8, code: u8, rest: [u8; 4], quoted: Vec<u8>) -> Frame {
        Frame {
            src: self.family.router(),
            ttl: 60,
            ..self.sent(self.opening()).with(Body::Icmp { kind, code, rest, quoted })
        }
    }

    /// The same on its way to the member: from us.
    pub fn error_taken(&self, kind: u8, code: u8, rest: [u8; 4], quoted: Vec<u8>) -> Frame {
        Frame {
            ttl: 59,
            ..self.taken(self.opening()).with(Body::Icmp { kind, code, rest, quoted })
        }
    }
}
