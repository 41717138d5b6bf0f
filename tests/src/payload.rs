//! Bytes that look random and that both ends can work out from a seed and an offset.

/// Writes the bytes that stand at `offset` in the stream of `seed`.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let skip = (offset % 8) as usize;
    let (head, rest) = buffer.split_at_mut(buffer.len().min((8 - skip) % 8));
    head.copy_from_slice(&word(seed, offset / 8)[skip..skip + head.len()]);
    for (index, chunk) in (offset.div_ceil(8)..).zip(rest.chunks_mut(8)) {
        chunk.copy_from_slice(&word(seed, index)[..chunk.len()]);
    }
}

/// The first `len` bytes of the stream of `seed`.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(seed, 0, &mut bytes);
    bytes
}

/// Where `got`, which begins at `offset` of the stream of `seed`, first is not that stream.
pub fn difference(seed: u64, offset: u64, got: &[u8]) -> Option<u64> {
    let mut want = vec![0; got.len()];
    fill(seed, offset, &mut want);
    let index = got.iter().zip(&want).position(|(got, want)| got != want)?;
    Some(offset + index as u64)
}

/// splitmix64: one multiplication chain a word, and no state between the words.
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_the_stream_is_the_same_stream() {
        let whole = bytes(7, 100);
        for start in 0..32 {
            for end in start..100 {
                let mut cut = vec![0; end - start];
                fill(7, start as u64, &mut cut);
                assert_eq!(cut, whole[start..end], "{start}..{end}");
            }
        }
    }

    #[test]
    fn a_difference_is_found_where_it_is() {
        let mut got = bytes(7, 100);
        assert_eq!(difference(7, 0, &got), None);
        got[42] ^= 1;
        assert_eq!(difference(7, 0, &got), Some(42));
        assert_eq!(difference(7, 13, &got[13..]), Some(42));
    }
}
