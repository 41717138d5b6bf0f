//! SCTP's CRC32c after its ports changed, without a look at the rest of the packet.
//!
//! A CRC is linear: the new one is the old one xor that of the change alone, and the change is four
//! bytes followed by zeros. Zeros are a multiplication by a power of x modulo the polynomial, so the
//! cost is a few steps per bit of the length, not per byte (RFC 9260, appendix A; the polynomial is
//! Castagnoli's, bits reflected).

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The checksum field after its packet changed by what [`shift`] says.
#[inline(always)]
pub fn add(check: [u8; 4], shifted: u32) -> [u8; 4] {
    (u32::from_le_bytes(check) ^ shifted).to_le_bytes()
}

/// What a change of the ports (old xor new, little endian) adds to the CRC of a packet of `length`
/// bytes, below 2^16: the change times x^(8 `length`). Four bytes of the change stand before
/// `length - 4` more, and a CRC takes 32 further steps at its end.
#[inline(always)]
pub fn shift(change: u32, length: u32) -> u32 {
    let mut value = change;
    let mut bit = 0;
    while bit < 16 {
        if length >> bit & 1 == 1 {
            let table = &TABLES[bit & 15];
            let mut product = 0;
            let mut nibble = 0;
            while nibble < 8 {
                product ^= table[nibble & 7][(value >> (4 * nibble) & 15) as usize];
                nibble += 1;
            }
            value = product;
        }
        bit += 1;
    }
    value
}

/// Products with x^(8 * 2^n): for each n, of each value of each of the eight nibbles.
///
/// 8 KiB, because the verifier walks bit by bit arithmetic down every way: LLVM makes branches of it,
/// and of masks 6.18 makes them itself (`maybe_fork_scalars`).
static TABLES: [[[u32; 16]; 8]; 16] = {
    let mut tables = [[[0; 16]; 8]; 16];
    let mut power = 1 << (31 - 8);
    let mut n = 0;
    while n < 16 {
        let mut nibble = 0;
        while nibble < 8 {
            let mut value = 0;
            while value < 16 {
                tables[n][nibble][value] = product((value as u32) << (4 * nibble), power);
                value += 1;
            }
            nibble += 1;
        }
        power = product(power, power);
        n += 1;
    }
    tables
};

/// Product of two polynomials modulo [`POLYNOMIAL`], reflected: bit 31 is x^0.
const fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    let mut bit = 0;
    while bit < 32 {
        if a >> (31 - bit) & 1 == 1 {
            sum ^= b;
        }
        b = if b & 1 == 1 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
        bit += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                crc >> 1 ^ POLYNOMIAL & 0u32.wrapping_sub(crc & 1)
            })
        })
    }

    #[test]
    fn the_polynomial_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest::proptest! {
        #[test]
        fn changed_is_as_computed_anew(
            mut packet in proptest::collection::vec(proptest::num::u8::ANY, 12..1500),
            new: [u8; 4],
        ) {
            packet[8..12].fill(0);
            let old: [u8; 4] = packet[..4].try_into().unwrap();
            let before = crc32c(&packet).to_le_bytes();
            packet[..4].copy_from_slice(&new);
            let after = crc32c(&packet).to_le_bytes();
            let change = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
            proptest::prop_assert_eq!(add(before, shift(change, packet.len() as u32)), after);
        }
    }
}
