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

/// Members, of one pool or all, each an entry of an array that is allocated in full, and a probe target.
/// The longest ring has four entries for each of so many.
pub const MEMBERS_MAX: usize = 16_384;

/// Allowed networks of one listener. They become prefixes of a trie, whose look-up deepens with
/// them; a list that is longer is an address feed and belongs in a firewall.
pub const NETWORKS_PER_LISTENER_MAX: usize = 1024;

/// Weight of a member: the range of Octavia and of HAProxy (`server ... weight`).
pub const WEIGHT_MAX: u16 = 256;

/// Client bits that persistence keeps. None at all would send every client to one member.
pub const PREFIX4: RangeInclusive<u8> = 1..=32;
/// The same of IPv6.
pub const PREFIX6: RangeInclusive<u8> = 1..=128;

/// Codes that an HTTP probe may expect: those of answers (RFC 9110, section 15).
pub const CODES: RangeInclusive<u16> = 100..=599;

/// Bytes of a file. All the members above written out in full are about 3 MiB; four times that for
/// networks and comments. It bounds what the parser may allocate.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of an upload. HAProxy's line for a member is 150 bytes as a rule and 900 with TLS and a list of
/// ciphers, so all the members above fit.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Bytes of an upload that is too large that are read to be able to say so.
pub const BODY_BYTES_DISCARDED_MAX: usize = 4 * BODY_BYTES_MAX;

/// Bytes of an upload that any connection may send at any time: most are a few kilobytes.
pub const SMALL_BODY_BYTES: usize = 256 << 10;

/// KiB of larger uploads that are in memory at a time, however many: a client that is slow holds what it
/// has sent. The agent lives in a small machine.
pub const BODIES_KIB_MAX: usize = 2 * (BODY_BYTES_MAX >> 10);

/// Connections that have not shown a certificate yet. OpenSSL holds some 50 KiB for each.
pub const HANDSHAKES_MAX: usize = 128;

const _: () = assert!(MEMBERS_MAX as u64 * 200 * 4 < FILE_BYTES_MAX);
