//! IPv4 and IPv6: what the path needs to know of each, so that every stage is written once.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use crate::abi::{Flow4, Flow6, Key4, Key6, mapped};
use crate::account::Account;
use crate::cell::{Word32, Word64};
#[cfg(doc)]
use crate::flows;
use crate::headers::Mac;
use crate::tables::Flows;

/// The tuple of a flow as one direction sees it on the wire, addresses and ports in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<A> {
    pub src: A,
    pub dst: A,
    pub sport: [u8; 2],
    pub dport: [u8; 2],
    /// IANA protocol number.
    pub proto: u8,
}

impl<A: Copy> Key<A> {
    /// The same tuple as the other end sends it.
    #[inline(always)]
    pub fn turned(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
        }
    }
}

/// The whole rewrite of one direction of a flow; field by field as in [`Nat4`](crate::abi::Nat4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat<A> {
    pub src: A,
    pub dst: A,
    pub sport: [u8; 2],
    pub dport: [u8; 2],
    pub addr_delta: u16,
    pub full_delta: u16,
    pub backend: u16,
    pub mac: Mac,
    pub ifindex: u32,
    pub peer: u32,
}

/// One slot of a flow table, as words that may change under the reader.
pub trait Slot<F: Family> {
    fn state(&self) -> &Word32;
    fn seen_s(&self) -> &Word32;
    fn hop(&self) -> &Word64;
    fn key(&self) -> F::Words;
    fn holds(&self, key: &F::Words) -> bool;
    fn nat(&self) -> Nat<F::Addr>;
    fn peer(&self) -> u32;
    fn backend(&self) -> u16;
    /// This and the next: only for the CPU that has claimed the slot.
    fn write_key(&self, key: &F::Words);
    fn write_nat(&self, nat: &Nat<F::Addr>);
    /// The words with the client's MAC and interface, which may change while the flow lives.
    fn client(&self) -> [u64; 2];
    /// Changes them where they are as they were `seen`. Word by word: a reader may meet the new MAC
    /// with the old interface for one packet.
    fn move_client(&self, seen: [u64; 2], mac: Mac, ifindex: u32);
}

pub trait Family: Sized + 'static {
    type Addr: Address;
    /// A [`Key`] as the words it is stored and compared in.
    type Words: Copy + AsRef<[u64]>;
    type Slot: Slot<Self> + 'static;
    /// Length of the IP header, bytes.
    const HEADER: usize;
    const VERSION: u8;

    fn slot<T: Flows>(tables: &T, index: u32) -> Option<&Self::Slot>;
    /// The account of the flow in `slot`, whose index this is.
    fn account<'a, T: Flows>(
        tables: &'a T,
        index: u32,
        slot: &'a Self::Slot,
    ) -> Option<&'a Account>;
    /// Slots of the table less one; a power of two less one.
    fn mask<T: Flows>(tables: &T) -> u32;
    fn words(key: &Key<Self::Addr>) -> Self::Words;
    /// What [`words`](Self::words) was made of.
    fn tuple(words: &Self::Words) -> Key<Self::Addr>;
    /// [`flows::elsewhere`], as the tables call it.
    fn elsewhere<T: Flows>(tables: &T, key: &Self::Words, home: u32, hop: u64) -> u32;
    /// [`flows::settle`], as the tables call it.
    fn settle<T: Flows>(tables: &T, key: &Self::Words, home: u32, absent: u64) -> u64;
}

pub trait Address:
    Copy + Eq + core::fmt::Debug + FromBytes + Immutable + IntoBytes + KnownLayout + Unaligned
{
    /// As the maps hold it.
    fn wide(self) -> [u8; 16];
    /// Back again; the first 12 bytes of an IPv4 address are not looked at.
    fn narrow(wide: [u8; 16]) -> Self;
    /// What replacing `self` by `new` adds to a sum, below 2^20.
    fn difference(&self, new: &Self) -> u32;
    fn sum(&self) -> u32;
    /// Source and destination as they lie in a flow.
    type Pair: Copy;
    fn pair(src: Self, dst: Self) -> Self::Pair;
    fn unpair(pair: Self::Pair) -> (Self, Self);
}

impl Address for [u8; 4] {
    #[inline(always)]
    fn wide(self) -> [u8; 16] {
        mapped(self)
    }
    #[inline(always)]
    fn narrow(wide: [u8; 16]) -> Self {
        let [.., a, b, c, d] = wide;
        [a, b, c, d]
    }
    #[inline(always)]
    fn difference(&self, new: &Self) -> u32 {
        crate::checksum::difference(self, new)
    }
    #[inline(always)]
    fn sum(&self) -> u32 {
        crate::checksum::sum(self)
    }
    type Pair = [u64; 1];
    #[inline(always)]
    fn pair(src: Self, dst: Self) -> [u64; 1] {
        [u64::from(u32::from_ne_bytes(src)) | u64::from(u32::from_ne_bytes(dst)) << 32]
    }
    #[inline(always)]
    fn unpair([pair]: [u64; 1]) -> (Self, Self) {
        ((pair as u32).to_ne_bytes(), ((pair >> 32) as u32).to_ne_bytes())
    }
}

impl Address for [u8; 16] {
    #[inline(always)]
    fn wide(self) -> [u8; 16] {
        self
    }
    #[inline(always)]
    fn narrow(wide: [u8; 16]) -> Self {
        wide
    }
    #[inline(always)]
    fn difference(&self, new: &Self) -> u32 {
        crate::checksum::difference(self, new)
    }
    #[inline(always)]
    fn sum(&self) -> u32 {
        crate::checksum::sum(self)
    }
    type Pair = [u64; 4];
    #[inline(always)]
    fn pair(src: Self, dst: Self) -> [u64; 4] {
        let ([a, b], [c, d]): ([u64; 2], [u64; 2]) = (transmute!(src), transmute!(dst));
        [a, b, c, d]
    }
    #[inline(always)]
    fn unpair([a, b, c, d]: [u64; 4]) -> (Self, Self) {
        (transmute!([a, b]), transmute!([c, d]))
    }
}

/// The ports of a key, as they lie in a flow.
#[inline(always)]
fn key_tail<A>(key: &Key<A>) -> u64 {
    let [sport, dport] = [key.sport, key.dport].map(|port| u64::from(u16::from_ne_bytes(port)));
    sport | dport << 16 | u64::from(key.proto) << 32
}

/// All of a rewrite but its addresses, as it lies in a flow.
#[inline(always)]
fn nat_tail<A>(nat: &Nat<A>) -> [u64; 3] {
    let [sport, dport] = [nat.sport, nat.dport].map(|port| u64::from(u16::from_ne_bytes(port)));
    [
        sport | dport << 16 | u64::from(nat.addr_delta) << 32 | u64::from(nat.full_delta) << 48,
        u64::from(nat.backend) | nat.mac.0 << 16,
        u64::from(nat.ifindex) | u64::from(nat.peer) << 32,
    ]
}

#[inline(always)]
fn nat_from<A: Address>(pair: A::Pair, [ports, member, client]: [u64; 3]) -> Nat<A> {
    let (src, dst) = A::unpair(pair);
    Nat {
        src,
        dst,
        sport: (ports as u16).to_ne_bytes(),
        dport: ((ports >> 16) as u16).to_ne_bytes(),
        addr_delta: (ports >> 32) as u16,
        full_delta: (ports >> 48) as u16,
        backend: member as u16,
        mac: Mac(member >> 16),
        ifindex: client as u32,
        peer: (client >> 32) as u32,
    }
}

// Words are put together by shifting, not by way of a struct in memory: BPF has 512 bytes of stack.
const _: () =
    assert!(cfg!(target_endian = "little"), "flows are stored as a little-endian machine does");

macro_rules! family {
    (
        $(#[$doc:meta])* $family:ident, $slot:ident, $flow:ident, $addr:ty, version: $version:literal,
        header: $header:literal, key: $key:ident, pair: $pair:literal words, accounts: $accounts:literal, $at:ident,
        $mask:ident,
        $elsewhere:ident, $settle:ident
    ) => {
        $(#[$doc])*
        pub enum $family {}

        #[doc = concat!("The words of a [`", stringify!($flow), "`].")]
        #[repr(C)]
        #[derive(Debug, Default)]
        pub struct $slot {
            state: Word32,
            seen_s: Word32,
            hop: Word64,
            key: [Word64; $pair + 1],
            nat_pair: [Word64; $pair],
            nat_tail: [Word64; 3],
            account: [Account; $accounts],
        }

        impl Slot<$family> for $slot {
            #[inline(always)]
            fn state(&self) -> &Word32 {
                &self.state
            }
            #[inline(always)]
            fn seen_s(&self) -> &Word32 {
                &self.seen_s
            }
            #[inline(always)]
            fn hop(&self) -> &Word64 {
                &self.hop
            }
            #[inline(always)]
            fn key(&self) -> [u64; $pair + 1] {
                load(&self.key)
            }
            #[inline(always)]
            fn holds(&self, key: &[u64; $pair + 1]) -> bool {
                // One branch for all words: most slots looked at are the right one.
                let mut unlike = 0;
                let mut n = 0;
                while n < $pair + 1 {
                    unlike |= self.key[n].load() ^ key[n];
                    n += 1;
                }
                unlike == 0
            }
            #[inline(always)]
            fn nat(&self) -> Nat<$addr> {
                nat_from(load(&self.nat_pair), load(&self.nat_tail))
            }
            #[inline(always)]
            fn peer(&self) -> u32 {
                (self.nat_tail[2].load() >> 32) as u32
            }
            #[inline(always)]
            fn backend(&self) -> u16 {
                self.nat_tail[1].load() as u16
            }
            #[inline(always)]
            fn write_key(&self, key: &[u64; $pair + 1]) {
                store(&self.key, key);
            }
            #[inline(always)]
            fn write_nat(&self, nat: &Nat<$addr>) {
                store(&self.nat_pair, &Address::pair(nat.src, nat.dst));
                store(&self.nat_tail, &nat_tail(nat));
            }
            #[inline(always)]
            fn client(&self) -> [u64; 2] {
                [self.nat_tail[1].load(), self.nat_tail[2].load()]
            }
            #[inline(always)]
            fn move_client(&self, [member, client]: [u64; 2], mac: Mac, ifindex: u32) {
                self.nat_tail[1].cas(member, member & 0xffff | mac.0 << 16);
                self.nat_tail[2].cas(client, client >> 32 << 32 | u64::from(ifindex));
            }
        }

        impl Family for $family {
            type Addr = $addr;
            type Words = [u64; $pair + 1];
            type Slot = $slot;
            const HEADER: usize = $header;
            const VERSION: u8 = $version;

            #[inline(always)]
            fn slot<T: Flows>(tables: &T, index: u32) -> Option<&$slot> {
                tables.$at(index)
            }
            #[inline(always)]
            fn account<'a, T: Flows>(
                tables: &'a T,
                index: u32,
                slot: &'a $slot,
            ) -> Option<&'a Account> {
                slot.account.first().or_else(|| tables.account4(index))
            }
            #[inline(always)]
            fn mask<T: Flows>(tables: &T) -> u32 {
                tables.$mask()
            }
            #[inline(always)]
            fn words(key: &Key<$addr>) -> [u64; $pair + 1] {
                let mut words = [0; $pair + 1];
                words[..$pair].copy_from_slice(&Address::pair(key.src, key.dst));
                words[$pair] = key_tail(key);
                words
            }
            fn tuple(words: &[u64; $pair + 1]) -> Key<$addr> {
                let $key { src, dst, sport, dport, proto, .. } = zerocopy::transmute!(*words);
                Key { src, dst, sport, dport, proto }
            }
            #[inline(always)]
            fn elsewhere<T: Flows>(tables: &T, key: &Self::Words, home: u32, hop: u64) -> u32 {
                tables.$elsewhere(key, home, hop)
            }
            #[inline(always)]
            fn settle<T: Flows>(tables: &T, key: &Self::Words, home: u32, absent: u64) -> u64 {
                tables.$settle(key, home, absent)
            }
        }

        const _: () = assert!(size_of::<$slot>() == size_of::<$flow>());
        const _: () = assert!(core::mem::offset_of!($slot, key) == core::mem::offset_of!($flow, key));
        const _: () = assert!(core::mem::offset_of!($slot, nat_pair) == core::mem::offset_of!($flow, nat));
    };
}

family!(
    V4, Slot4, Flow4, [u8; 4], version: 4, header: 20, key: Key4, pair: 1 words, accounts: 0, slot4, mask4,
    elsewhere4, settle4
);
family!(
    V6, Slot6, Flow6, [u8; 16], version: 6, header: 40, key: Key6, pair: 4 words, accounts: 1, slot6, mask6,
    elsewhere6, settle6
);

#[inline(always)]
fn load<const N: usize>(words: &[Word64; N]) -> [u64; N] {
    let mut values = [0; N];
    let mut n = 0;
    while n < N {
        values[n] = words[n].load();
        n += 1;
    }
    values
}

#[inline(always)]
fn store<const N: usize>(words: &[Word64; N], values: &[u64; N]) {
    let mut n = 0;
    while n < N {
        words[n].store(values[n]);
        n += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Key4, Key6, Nat4, Nat6};

    /// The words of a slot are the fields that `bpftool` shows.
    macro_rules! same {
        ($name:ident, $family:ident, $slot:ident, $key:ident, $nat:ident, $keys:literal, $nats:literal, $a:expr, $b:expr) => {
            #[test]
            fn $name() {
                let key = Key { src: $a, dst: $b, sport: [1, 2], dport: [3, 4], proto: 17 };
                let nat = Nat {
                    src: $b,
                    dst: $a,
                    sport: [5, 6],
                    dport: [7, 8],
                    addr_delta: 0x0102,
                    full_delta: 0x0304,
                    backend: 0x0506,
                    mac: Mac::new([1, 2, 3, 4, 5, 6]),
                    ifindex: 0x0708_090a,
                    peer: 0x0b0c_0d0e,
                };
                let slot = $slot::default();
                slot.write_key(&$family::words(&key));
                slot.write_nat(&nat);
                let Key { src, dst, sport, dport, proto } = key;
                let shown = $key { src, dst, sport, dport, proto, zero: [0; 3] };
                let words: [u64; $keys] = transmute!(shown);
                assert_eq!(slot.key(), words);
                let Nat {
                    src,
                    dst,
                    sport,
                    dport,
                    addr_delta,
                    full_delta,
                    backend,
                    mac,
                    ifindex,
                    peer,
                } = nat;
                let mac = mac.bytes();
                let shown = $nat {
                    src,
                    dst,
                    sport,
                    dport,
                    addr_delta,
                    full_delta,
                    backend,
                    mac,
                    ifindex,
                    peer,
                };
                let words: [u64; $nats] = transmute!(shown);
                let mut stored = load(&slot.nat_pair).to_vec();
                stored.extend(load(&slot.nat_tail));
                assert_eq!(stored, words);
                assert_eq!((slot.nat(), slot.peer(), slot.backend()), (nat, peer, backend));
            }
        };
    }
    same!(ipv4, V4, Slot4, Key4, Nat4, 2, 4, [10, 0, 0, 1], [10, 0, 0, 2]);
    same!(ipv6, V6, Slot6, Key6, Nat6, 5, 7, [0x11; 16], core::array::from_fn(|n| n as u8));
}
