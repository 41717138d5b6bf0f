//! What an amphora tells the health manager, and what that travels in.

pub mod envelope;
pub mod message;
pub mod sealed;
pub mod shrink;

pub use message::Message;

/// Bytes that a UDP datagram carries over IPv4. A longer one is not sent at all, and an amphora that is
/// not heard of is failed over.
pub const DATAGRAM_MAX: usize = 65_507;

/// Bytes of a datagram around the compressed message, in either envelope, at most.
const OVERHEAD_MAX: usize = 512;

/// Bytes of a message that a receiver unpacks: some ten thousand members, and no more than a datagram of
/// a hostile sender should cost.
pub const MESSAGE_MAX: usize = 4 << 20;
