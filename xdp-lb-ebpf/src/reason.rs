//! Why a frame was not forwarded: the index of its counter in `REASONS`.

/// What becomes of a frame that is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On to the kernel, untouched.
    Pass,
    Drop,
    /// The client is told at once: RST for TCP, ICMP unreachable for the rest.
    Answer,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $fate:ident,)+) => {
        /// Why a frame was not forwarded.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name),+ }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            #[inline(always)]
            pub const fn fate(self) -> Fate {
                match self { $(Reason::$name => Fate::$fate),+ }
            }

            /// For people: the variant's name and its first sentence.
            pub const fn text(self) -> (&'static str, &'static str) {
                match self { $(Reason::$name => (stringify!($name), concat!($($doc),+))),+ }
            }
        }
    };
}

reasons! {
    /// Neither IPv4 nor IPv6: ARP and whatever else.
    NotIp => Pass,
    /// VLAN-tagged: the kernel's VLAN interfaces take it.
    Vlan => Pass,
    /// Ends before its headers do.
    Truncated => Pass,
    /// The lengths in its headers contradict each other or the frame.
    BadLength => Pass,
    /// IPv4 with options.
    IpOptions => Pass,
    /// IPv6 with an extension header other than a fragment's.
    ExtensionHeader => Pass,
    /// Neither TCP, UDP, SCTP nor ICMP: VRRP and whatever else.
    OtherProtocol => Pass,
    /// ICMP that is no error about a flow of ours: echo, neighbour discovery.
    Icmp => Pass,
    /// No flow, and no listener at its address and port.
    NoListener => Pass,
    /// A connection that a local socket has: HAProxy's, from before the listener was ours.
    LocalSocket => Pass,
    /// For a listener's address, but another machine's MAC: a switch floods, and the other amphora of a
    /// pair has the VIP.
    OtherHost => Pass,
    /// From a network the listener does not allow.
    NetworkRefused => Drop,
    /// Over the listener's connection limit.
    LimitReached => Drop,
    /// The listener has no usable member, or the connection's was taken out, and its connections with it.
    NoMember => Answer,
    /// Every slot the flow may live in holds a live flow.
    TableFull => Drop,
    /// No free source port towards the member.
    PortsExhausted => Drop,
    /// RST or SYN+ACK of a connection that is not known.
    NotAnOpening => Drop,
    /// A later fragment of a datagram whose first was not ours, or has not been seen.
    FragmentUnknown => Pass,
    /// A fragment of SCTP: its checksum cannot be mended without the rest, and SCTP does not fragment.
    SctpFragment => Drop,
    /// TTL or hop limit used up.
    HopLimit => Drop,
    /// The next hop of the member is not known.
    NoNextHop => Drop,
    /// The interface to send through is gone.
    EgressGone => Drop,
    /// A program of the path is not in its place: the control program did not finish.
    StageMissing => Drop,
    /// Another CPU made or took the same entry this very moment.
    Contended => Drop,
    /// Counted, and forwarded all the same: its checksum is not complete yet (transmit checksum
    /// offload on a virtual link), and after native XDP the receiver will refuse it.
    PartialChecksum => Pass,
}

pub const REASONS: u32 = Reason::ALL.len() as u32;

/// Letters of the longest name.
pub const NAME_MAX: usize = 16;

/// Names in the order of [`Reason::ALL`], filled up with spaces: in a BPF program a table of strings of one
/// length is data, and one of references is not.
pub static NAMES: [[u8; NAME_MAX]; REASONS as usize] = names();

const fn names() -> [[u8; NAME_MAX]; REASONS as usize] {
    let mut names = [[b' '; NAME_MAX]; REASONS as usize];
    let mut reason = 0;
    while reason < names.len() {
        let name = Reason::ALL[reason].text().0.as_bytes();
        let mut letter = 0;
        while letter < name.len() {
            names[reason][letter] = name[letter];
            letter += 1;
        }
        reason += 1;
    }
    names
}
