//! Headers as they lie in a frame: byte arrays in network order, no alignment asked.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

macro_rules! header {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
    };
}

/// A MAC address in the low 48 bits, first byte lowest: moved as a word and a half word. Six single
/// bytes LLVM recombines as it likes, at odd offsets too, which the verifier refuses on the stack
/// ("misaligned stack access", 6.18).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mac(pub u64);

impl Mac {
    #[inline(always)]
    pub fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(
            u64::from(u32::from_ne_bytes([a, b, c, d]))
                | u64::from(u16::from_ne_bytes([e, f])) << 32,
        )
    }
    #[inline(always)]
    pub fn bytes(self) -> [u8; 6] {
        let [a, b, c, d] = (self.0 as u32).to_ne_bytes();
        let [e, f] = ((self.0 >> 32) as u16).to_ne_bytes();
        [a, b, c, d, e, f]
    }
}

header!(Ethernet { dst: [u8; 6], src: [u8; 6], kind: [u8; 2] });

pub const KIND_IPV4: [u8; 2] = [0x08, 0x00];
pub const KIND_IPV6: [u8; 2] = [0x86, 0xdd];
pub const KIND_VLAN: [u8; 2] = [0x81, 0x00];
pub const KIND_QINQ: [u8; 2] = [0x88, 0xa8];

header!(
    /// RFC 791, without options.
    Ipv4 {
        version_length: u8,
        service: u8,
        total: [u8; 2],
        id: [u8; 2],
        /// Reserved, don't fragment, more fragments; then the offset in 8 bytes.
        fragment: [u8; 2],
        ttl: u8,
        proto: u8,
        check: [u8; 2],
        src: [u8; 4],
        dst: [u8; 4],
    }
);
header!(
    /// RFC 8200.
    Ipv6 {
        version_class_flow: [u8; 4],
        payload: [u8; 2],
        next: u8,
        hops: u8,
        src: [u8; 16],
        dst: [u8; 16],
    }
);
header!(
    /// RFC 8200, section 4.5.
    Ipv6Fragment { next: u8, zero: u8, offset_more: [u8; 2], id: [u8; 4] }
);
header!(
    /// What TCP, UDP and SCTP begin with.
    Ports { sport: [u8; 2], dport: [u8; 2] }
);
header!(
    /// RFC 9293, without options.
    Tcp {
        sport: [u8; 2],
        dport: [u8; 2],
        seq: [u8; 4],
        ack: [u8; 4],
        offset: u8,
        flags: u8,
        window: [u8; 2],
        check: [u8; 2],
        urgent: [u8; 2],
    }
);
header!(
    /// RFC 768.
    Udp { sport: [u8; 2], dport: [u8; 2], length: [u8; 2], check: [u8; 2] }
);
header!(
    /// RFC 9260: the common header.
    Sctp { sport: [u8; 2], dport: [u8; 2], tag: [u8; 4], check: [u8; 4] }
);
header!(
    /// RFC 792 and RFC 4443; `rest` is the MTU, a pointer, or unused.
    Icmp { kind: u8, code: u8, check: [u8; 2], rest: [u8; 4] }
);

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
