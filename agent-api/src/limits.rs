//! What a document may hold, each limit with its reason. Far above any real load balancer, low
//! enough that the maps can be sized once and that a mistake is refused instead of loaded.

use std::ops::RangeInclusive;

/// Bytes of a load balancer's name: a UUID in text, which is what Octavia calls one.
pub const NAME_BYTES_MAX: usize = 36;

/// Bytes of the id of a listener, pool or member: a UUID has 36; the rest is for names that people
/// give, which must still fit a log line and a heartbeat (one UDP datagram for all of them).
pub const ID_BYTES_MAX: usize = 64;

/// VIP keys: the sum over the listeners of their VIPs, each an entry of one hash map that is
/// allocated in full when it is created.
pub const VIP_KEYS_MAX: usize = 1024;

/// Members of one pool: a ring has a bounded number of slots, and a pool with as many members as
/// slots would have shares that are wrong by half.
pub const MEMBERS_PER_POOL_MAX: usize = 4096;

/// Members of all pools, each an entry of an array that is allocated in full, and a probe target.
pub const MEMBERS_MAX: usize = 16_384;

/// Allowed networks of one listener. They become prefixes of a trie, whose look-up deepens with
/// them; a list that is longer is an address feed and belongs in a firewall.
pub const NETWORKS_PER_LISTENER_MAX: usize = 1024;

/// Weight of a member: the range of Octavia and of HAProxy (`server ... weight`).
pub const WEIGHT_MAX: u16 = 256;

/// Client bits that persistence keeps. None at all would send every client to one member.
pub const PREFIX4: RangeInclusive<u8> = 1..=32;
pub const PREFIX6: RangeInclusive<u8> = 1..=128;

/// Bytes of a file. All the members above written out in full are about 3 MiB; four times that for
/// networks and comments. It bounds what the parser may allocate.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

const _: () = assert!(MEMBERS_PER_POOL_MAX <= MEMBERS_MAX);
const _: () = assert!(MEMBERS_MAX as u64 * 200 * 4 < FILE_BYTES_MAX);
