//! The Internet checksum, changed where a header changes (RFC 1624), never computed anew.
//!
//! A sum is of 16-bit words as they lie in memory, whatever the byte order of the machine: ones'
//! complement sums do not mind (RFC 1071, section 2B), so nothing is swapped.

/// Most that [`sum`] returns: three words, whatever was added up to them.
const SUM_MAX: u32 = 3 * 0xffff;

/// Sum of the 16-bit words of `bytes`, folded as far as 18 bits. `N` is even.
///
/// By 32 bits at a time: 2^16 is 1 in ones' complement, so a word twice as wide adds as much.
#[inline(always)]
pub fn sum<const N: usize>(bytes: &[u8; N]) -> u32 {
    const { assert!(N.is_multiple_of(2) && N <= 1 << 16) };
    let mut sum = 0u64;
    let mut at = 0;
    while at + 3 < N {
        sum +=
            u64::from(u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        at += 4;
    }
    if at + 1 < N {
        sum += u64::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
    }
    (sum as u32 & 0xffff) + (sum as u32 >> 16) + (sum >> 32) as u32
}

/// The same less what it was: what replacing `old` by `new` adds. Below 2^19.
#[inline(always)]
pub fn difference<const N: usize>(old: &[u8; N], new: &[u8; N]) -> u32 {
    // Multiples of 0xffff are zero in ones' complement.
    sum(new) + (SUM_MAX - sum(old))
}

/// A sum of up to 2^32 folded into 16 bits.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum field after its data grew by `delta` (a sum, not folded, below 2^31).
#[inline(always)]
pub fn add(check: [u8; 2], delta: u32) -> [u8; 2] {
    (!fold(u32::from(!u16::from_ne_bytes(check)) + delta)).to_ne_bytes()
}

/// The same for UDP: zero means that there is none (IPv4), and a computed zero is sent as ones.
#[inline(always)]
pub fn add_udp(check: [u8; 2], delta: u32) -> [u8; 2] {
    if check == [0, 0] {
        return check;
    }
    match add(check, delta) {
        [0, 0] => [0xff, 0xff],
        check => check,
    }
}

/// What one off the TTL adds to the sum of an IPv4 header: the TTL is the high byte of its word.
pub const TTL_LESS: u32 = !u16::from_ne_bytes([1, 0]) as u32;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 by the book.
    fn whole(bytes: &[u8]) -> [u8; 2] {
        let mut sum: u64 = bytes
            .chunks(2)
            .map(|word| u64::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    proptest::proptest! {
        #[test]
        fn changed_is_as_computed_anew(mut data: [u8; 20], new: [u8; 8], ttl in 1u8..) {
            data[8] = ttl;
            let check = whole(&data);
            let old: [u8; 8] = data[10..18].try_into().unwrap();
            data[10..18].copy_from_slice(&new);
            data[8] -= 1;
            let changed = add(check, difference(&old, &new) + TTL_LESS);
            let anew = whole(&data);
            // Minus zero is zero: only an all-zero header tells them apart.
            let zero = |c: [u8; 2]| c == [0, 0] || c == [0xff, 0xff];
            proptest::prop_assert!(changed == anew || (zero(changed) && zero(anew)));
        }
    }
}
