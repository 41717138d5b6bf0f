//! Everything the path reads and writes besides the frame: the BPF maps, or memory in tests.

use crate::Reason;
use crate::abi::{
    Backend, Fragment, FragmentKey, Listener, ListenerCounters, ListenerKey, NetworkKey, Sticky,
    StickyKey,
};
use crate::account::{Account, FlowLogs};
use crate::cell::Word32;
use crate::family::{Address, Key, Slot4, Slot6, V4, V6};
use crate::progress::{self, Progress};
use crate::{flows, sctp, select};

/// A direction, as counters tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the member.
    In,
    /// From the member to the client.
    Out,
}

/// What was found out about the frame at hand, on its way from one stage to the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub backend: u32,
    pub listener: u32,
    pub connections_max: u32,
    /// [`flows::State`] bits of its own that the flow has from its beginning.
    pub state: u32,
}

/// The flow table, and what is counted with it: by the path, and by user space, which removes flows
/// that have expired.
pub trait Flows: Sized {
    fn slot4(&self, index: u32) -> Option<&Slot4>;
    fn slot6(&self, index: u32) -> Option<&Slot6>;
    /// The account of the flow in this slot of IPv4.
    fn account4(&self, index: u32) -> Option<&Account>;
    fn mask4(&self) -> u32;
    fn mask6(&self) -> u32;
    /// Seeds of the flow hash.
    fn seeds(&self) -> [u64; 2];
    /// Seconds since boot.
    fn now_s(&self) -> u32;

    /// The two loops of the flow table, [`flows::elsewhere`] and [`flows::settle`]. In the kernel they
    /// are global functions, which the verifier walks once, and not again on every way that leads to
    /// a call: walked inline, they alone exhaust its patience (8192 jumps, a million instructions).
    fn elsewhere4(&self, key: &[u64; 2], home: u32, hop: u64) -> u32 {
        flows::elsewhere::<V4, _>(self, key, home, hop)
    }
    fn elsewhere6(&self, key: &[u64; 5], home: u32, hop: u64) -> u32 {
        flows::elsewhere::<V6, _>(self, key, home, hop)
    }
    fn settle4(&self, key: &[u64; 2], home: u32, absent: u64) -> u64 {
        flows::settle::<V4, _>(self, key, home, absent)
    }
    fn settle6(&self, key: &[u64; 5], home: u32, absent: u64) -> u64 {
        flows::settle::<V6, _>(self, key, home, absent)
    }

    /// Connections open.
    fn listener_load(&self, listener: u32) -> Option<&Word32>;
    fn backend_load(&self, backend: u32) -> Option<&Word32>;
    /// The listener a backend belongs to.
    fn listener_of(&self, backend: u32) -> Option<u32>;
    fn count_closed(&self, backend: u32);
    /// Of a listener.
    fn flow_logs(&self, listener: u32) -> Option<&FlowLogs>;
}

/// Methods return none where the index or key is unknown, and copies where user space may replace
/// the entry at any time.
pub trait Tables: Flows {
    /// First source port towards members and how many follow, host order; at least one.
    fn source_ports(&self) -> (u16, u16);
    /// [`sctp::shift`], a loop that is walked once for the same reason.
    fn crc_shift(&self, change: u32, length: u32) -> u32 {
        sctp::shift(change, length)
    }

    /// [`progress`](progress::progress), which is rare: the frames that need it pay for the call, and the others
    /// have their registers for themselves.
    fn progress4(&self, progress: &Progress) {
        progress::progress::<V4, _>(self, progress);
    }
    fn progress6(&self, progress: &Progress) {
        progress::progress::<V6, _>(self, progress);
    }

    /// [`select::least`], another.
    fn least(&self, start: u32, length: u32, turn: u32) -> u32 {
        select::least(self, start, length, turn)
    }

    fn listener(&self, key: &ListenerKey) -> Option<Listener>;
    fn allowed(&self, key: &NetworkKey) -> bool;
    fn ring(&self, index: u32) -> Option<u32>;
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// Where ROUND_ROBIN stands.
    fn cursor(&self, listener: u32) -> Option<&Word32>;

    /// Lets `change` note what a later stage must know of this same frame, on this CPU.
    fn choose(&self, change: impl FnOnce(&mut Choice));
    fn chosen(&self) -> Choice;

    fn sticky(&self, key: &StickyKey) -> Option<Sticky>;
    fn stick(&self, key: &StickyKey, value: &Sticky);
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment>;
    fn keep_fragment(&self, key: &FragmentKey, value: &Fragment);
    /// An identification for a datagram's fragments that was not given out lately.
    fn next_fragment_id(&self) -> u32;

    /// Our own MAC on an interface.
    fn port_mac(&self, ifindex: u32) -> Option<[u8; 6]>;

    /// Nanoseconds since boot. Costs as much as half a frame: for what is rare.
    fn now_ns(&self) -> u64;

    /// `bytes` from the IP header on, `payload` behind the transport header.
    ///
    /// All that is said of traffic are sums of these, over the frames sent on: of a member, of a
    /// listener (its members', also those that left), by direction. Octavia's `rx` and `tx` are what its
    /// other engines say: of TCP, bytes of the stream as HAProxy reads and writes them, so the sums of
    /// `payload`; of UDP and SCTP, whole packets as IPVS counts them, so the sums of `bytes`. A TCP
    /// segment that is sent again counts again, and one with a byte of a probe for an open window or a
    /// connection that is alive (RFC 9293) counts that byte: HAProxy sees neither. The account of a flow
    /// that is logged has the same payloads.
    fn count(&self, backend: u32, way: Way, bytes: u32, payload: u32);
    fn count_opened(&self, backend: u32);
    fn count_reason(&self, reason: Reason);
    /// Lets `change` count one new flow that was not opened.
    fn count_refused(&self, listener: u32, change: impl FnOnce(&mut ListenerCounters));
}

/// The TCP connections of this machine's own sockets: HAProxy's, beside ours.
pub trait Sockets {
    /// Whether a socket has the connection that this is a segment of, the socket's end its
    /// destination: from the first SYN, either side's, to the end of TIME_WAIT. A socket that only
    /// listens has none.
    fn have<A: Address>(&self, segment: &Key<A>) -> bool;
}
