//! What stands in the maps: one file, compiled by the program and by user space.
//!
//! Addresses and ports are byte arrays in network order; the rest are sized integers in host order.
//! No hidden bytes: `IntoBytes` refuses padding.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of everything in this file. A program of another version never takes over these maps.
pub const VERSION: u32 = 5;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;

/// An IPv4 address as the maps hold it: `::ffff:a.b.c.d`.
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    // Two words: ten zero bytes are a call of `memset` in BPF.
    let low = (u32::from_ne_bytes(v4) as u64) << 32 | 0xffff_0000;
    zerocopy::transmute!([0, low])
}

/// One virtual address and port; key of `LISTENERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct ListenerKey {
    pub addr: [u8; 16],
    pub port: [u8; 2],
    /// IANA protocol number.
    pub proto: u8,
    pub zero: u8,
}

/// How a listener chooses a member; value of `LISTENERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct Listener {
    /// Index of `LISTENER_LOAD` and `LISTENER_COUNTERS`; the same for all keys of a listener.
    pub id: u32,
    /// Where its members stand in `RING`, and how many entries there are; none: no usable member.
    pub ring_start: u32,
    pub ring_len: u32,
    /// Connections at once; `u32::MAX` for no limit.
    pub connections_max: u32,
    /// Seconds a client keeps its member after its last new flow; 0 for no persistence.
    pub sticky_s: u32,
    /// Seeds the hashes of SOURCE_IP and SOURCE_IP_PORT: the same on both amphorae of a pair.
    pub seed: u32,
    /// [`Algorithm`] as a number.
    pub algorithm: u8,
    /// 1 where `NETWORKS` decides who may come.
    pub restricted: u8,
    /// Leading bits of the client's address (of 128, IPv4 mapped) that persistence tells apart.
    pub sticky_bits: u8,
    /// 1 where its flows keep an [`Account`] for the log.
    pub logged: u8,
    /// Seconds without a packet after which user space removes a flow.
    pub idle_s: u32,
}

/// What `Listener::algorithm` says.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The ring in smooth weighted order, walked by a shared cursor.
    RoundRobin = 0,
    /// The ring holds each member once; the least loaded by weight of a window takes the flow.
    LeastConnections = 1,
    /// The ring is Maglev's, indexed by a hash of the client's address.
    SourceIp = 2,
    /// The same, of address and port.
    SourceIpPort = 3,
}

/// A member as one listener uses it; value of `BACKENDS`. One cache line.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Backend {
    pub addr: [u8; 16],
    /// The source address we use towards it: the VIP through the VIP's interface, else the
    /// interface's own.
    pub source: [u8; 16],
    /// MAC of the next hop. With `port` one aligned word, so that a new MAC is seen whole.
    pub mac: [u8; 6],
    pub port: [u8; 2],
    /// MAC of the interface it is reached through.
    pub own_mac: [u8; 6],
    pub zero: [u8; 2],
    /// The interface it is reached through; 0 while the next hop is not known.
    pub ifindex: u32,
    pub listener: u32,
    /// Told apart from an earlier backend of the same id.
    pub epoch: u32,
    /// Share of new flows, 0 to 256.
    pub weight: u16,
    /// [`BACKEND_UP`] | [`BACKEND_STICKY`].
    pub flags: u16,
}

/// New flows may go there.
pub const BACKEND_UP: u16 = 1;
/// Clients that persistence holds to it may still go there (weight 0 drains).
pub const BACKEND_STICKY: u16 = 2;

/// Key of `NETWORKS`, behind the prefix length in bits that every LPM trie key starts with. The
/// prefix covers the listener (32 bits) and then the network (of 128 bits, IPv4 mapped).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct NetworkKey {
    /// Network order, so that its bits come first.
    pub listener: [u8; 4],
    pub addr: [u8; 16],
}

/// Key of `STICKY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct StickyKey {
    pub addr: [u8; 16],
    pub listener: u32,
}

/// The member a client is held to; value of `STICKY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct Sticky {
    pub backend: u32,
    pub epoch: u32,
    /// `CLOCK` at the last new flow.
    pub seen_s: u32,
}

/// A datagram under way in fragments; key of `FRAGMENTS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct FragmentKey {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    /// Identification; IPv4's 16 bits come last.
    pub id: [u8; 4],
    /// A whole word: at an odd offset LLVM would store two of its bytes at once, which the verifier
    /// refuses on the stack ("misaligned stack access", 6.18).
    pub proto: u32,
}

/// What its first fragment was given, for the rest; value of `FRAGMENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
pub struct Fragment {
    pub src: [u8; 16],
    pub dst: [u8; 16],
    /// Our own identification: those of two clients may be the same.
    pub id: [u8; 4],
    pub ifindex: u32,
    /// Next hop's and our own: the first byte lowest.
    pub mac: u64,
    pub own_mac: u64,
    pub backend: u32,
    /// 1 from a member, 0 from a client.
    pub reply: u32,
}

/// Packets and bytes one way.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Traffic {
    pub packets: u64,
    /// From the IP header on.
    pub bytes: u64,
    /// Behind the TCP, UDP or SCTP header.
    pub payload: u64,
}

/// Value of `BACKEND_COUNTERS`, per CPU. One cache line.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct BackendCounters {
    /// From clients.
    pub received: Traffic,
    /// To clients.
    pub sent: Traffic,
    /// Flows opened.
    pub opened: u64,
    /// Flows closed or expired by the packet path.
    pub closed: u64,
}

/// Value of `LISTENER_COUNTERS`, per CPU: new flows that were not opened.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct ListenerCounters {
    /// From a network that is not allowed.
    pub refused: u64,
    /// Over the connection limit.
    pub limited: u64,
    /// No usable member.
    pub unserved: u64,
    /// No slot or no source port.
    pub exhausted: u64,
}

/// A flow of IPv4, one direction; value of `FLOWS4`. One cache line.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Flow4 {
    /// See [`crate::flows::State`].
    pub state: u32,
    /// `CLOCK` at its last packet.
    pub seen_s: u32,
    /// Where the flows live whose home is this slot; see [`crate::flows`].
    pub hop: u64,
    pub key: Key4,
    pub nat: Nat4,
}

/// A flow of IPv6, one direction; value of `FLOWS6`. Two cache lines.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Flow6 {
    pub state: u32,
    pub seen_s: u32,
    pub hop: u64,
    pub key: Key6,
    pub nat: Nat6,
    /// That of IPv4 is in `ACCOUNTS4`: its flow has no room.
    pub account: Account,
}

/// What one direction of a flow has carried, where the listener logs; value of `ACCOUNTS4`, at the
/// index of the flow's slot.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Account {
    /// Bytes behind the TCP header.
    pub payload: u64,
    /// Nanoseconds since boot: from the client, when the flow was opened; from the member, when either
    /// side last sent FIN or RST.
    pub at_ns: u64,
}

/// Lines of a listener's finished flows; value of `FLOW_LOGS`, by listener id.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct FlowLogs {
    /// Taken by syslog. User space counts them.
    pub logged: u64,
    /// Not written: the flow's slot was needed for another, or syslog took no more.
    pub lost: u64,
}

macro_rules! flow_parts {
    ($key:ident, $nat:ident, $addr:ty) => {
        /// The tuple as this direction sees it on the wire.
        #[repr(C, align(8))]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout,
        )]
        pub struct $key {
            pub src: $addr,
            pub dst: $addr,
            pub sport: [u8; 2],
            pub dport: [u8; 2],
            pub proto: u8,
            pub zero: [u8; 3],
        }

        /// The whole rewrite.
        #[repr(C, align(8))]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
        pub struct $nat {
            pub src: $addr,
            pub dst: $addr,
            pub sport: [u8; 2],
            pub dport: [u8; 2],
            /// What the new addresses add to a ones' complement sum.
            pub addr_delta: u16,
            /// What the new addresses and ports add.
            pub full_delta: u16,
            /// Index of `BACKENDS`.
            pub backend: u16,
            /// The client's MAC, or its router's.
            pub mac: [u8; 6],
            /// The client's interface.
            pub ifindex: u32,
            /// Slot of the other direction.
            pub peer: u32,
        }
    };
}

flow_parts!(Key4, Nat4, [u8; 4]);
flow_parts!(Key6, Nat6, [u8; 16]);

const _: () = assert!(size_of::<Flow4>() == 64 && size_of::<Flow6>() == 128);
const _: () = assert!(size_of::<Backend>() == 64 && size_of::<BackendCounters>() == 64);
const _: () = assert!(core::mem::offset_of!(Backend, mac) % 8 == 0);
const _: () = assert!(core::mem::offset_of!(Nat4, backend) % 8 == 0);
const _: () = assert!(core::mem::offset_of!(Nat6, backend) % 8 == 0);

/// What the maps of one load balancer were made with; the one value of `META`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Meta {
    /// [`VERSION`].
    pub version: u32,
    /// Slots of `FLOWS4` and `FLOWS6`, powers of two.
    pub flows4: u32,
    pub flows6: u32,
    /// First source port towards members, and how many follow.
    pub snat_low: u16,
    pub snat_span: u16,
    /// Seeds of the flow hash: random, and the same as long as the maps live.
    pub seed0: u64,
    pub seed1: u64,
}
