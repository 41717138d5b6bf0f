//! The order in which a pool's members stand in `RING`, by algorithm.
//!
//! The packet path takes entry `(hash * length) >> 32` or walks along, so any length will do. Rings
//! hold indexes of what the functions were called with, and no member of weight 0.

/// Lengths of a Maglev ring: primes, because a member must be able to reach every entry.
pub const MAGLEV_LENGTHS: [usize; 6] = [61, 251, 1021, 4093, 16_381, 65_521];
/// Entries of a round-robin ring beyond which weights are rounded.
pub const SMOOTH_MAX: usize = 16_384;
/// Entries of a Maglev ring for the member of the smallest share: its share is off by one entry at
/// most, so by a quarter of a percent. With a hundred, the end of one of ten members moved 1.28 times
/// its share of the flows, its own among them.
const ENTRIES_PER_SHARE: usize = 400;

/// A hash that is the same in every process, on every machine, in every version: both amphorae of a
/// pair must fill the same rings. FNV-1a, then murmur3's `fmix64` because FNV leaves the high bits
/// of short keys alike.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

/// One of [`MAGLEV_LENGTHS`]: the least that gives the smallest weight its four hundred entries, but no
/// more than `max`, which is another of them, as long as each member finds an entry.
///
/// Rings of two lengths have little in common, so ask with the weights of all members, also of those
/// that are down.
pub fn maglev_length(weights: &[u16], max: usize) -> usize {
    let weights = || weights.iter().filter(|weight| **weight > 0);
    let total: usize = weights().map(|weight| usize::from(*weight)).sum();
    let smallest = weights().min().map_or(1, |weight| usize::from(*weight));
    let fair = (ENTRIES_PER_SHARE * total).div_ceil(smallest);
    let wanted = fair.min(max).max(weights().count());
    let [.., longest] = MAGLEV_LENGTHS;
    let mut lengths = MAGLEV_LENGTHS.into_iter();
    lengths.find(|length| *length >= wanted).unwrap_or(longest)
}

/// A member as [`maglev`] places it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// [`stable_hash`] of what it is.
    pub hash: u64,
    pub weight: u16,
    pub up: bool,
}

/// Maglev's table (Eisenbud et al., NSDI 2016, 3.4) with weights: members take turns in proportion
/// to weight, and at each turn the next free entry of their own permutation.
///
/// The order the members come in does not matter. `length` is one of [`MAGLEV_LENGTHS`]. In the first
/// round each member has a turn, so that none is missing where there are as many entries as members.
///
/// Members that are down take their turns like the others, and what they took is then shared out. So
/// a member that goes down or comes back moves its own flows and no others. One that joins or leaves
/// for good moves a quarter as many again of the others', as in the paper.
pub fn maglev(members: &[Candidate], length: usize) -> Vec<usize> {
    let mut takers: Vec<Taker> = (0..members.len())
        .filter(|index| members[*index].weight > 0)
        .map(|index| Taker::new(index, members[index], length))
        .collect();
    takers.sort_by_key(|taker| taker.hash);
    let cost = takers.iter().map(|taker| taker.weight).max().unwrap_or(0);
    for taker in &mut takers {
        taker.credit = cost - taker.weight;
    }
    let mut ring = vec![None; length];
    fill(&mut ring, &mut takers, cost);
    for entry in &mut ring {
        *entry = entry.filter(|index| members[*index].up);
    }
    takers.retain(|taker| members[taker.index].up);
    fill(&mut ring, &mut takers, cost);
    ring.into_iter().flatten().collect()
}

/// Smooth weighted round robin (nginx `ngx_http_upstream_round_robin.c`): each member as often as its
/// weight says, and never more of one in a row than must be.
///
/// As many entries as the weights add up to, divided by what divides them all. Where that is more
/// than `max`, each weight is scaled to the nearest whole number of entries but at least one; the
/// ring then has `max` entries at most, or one for each member if there are more of those.
pub fn smooth(weights: &[u16], max: usize) -> Vec<usize> {
    let shares = shares(weights, max);
    let total: i64 = shares.iter().sum();
    let mut credits = vec![0; shares.len()];
    let mut pick = || {
        let mut best = 0;
        for (index, share) in shares.iter().enumerate() {
            credits[index] += share;
            if credits[index] > credits[best] {
                best = index;
            }
        }
        credits[best] -= total;
        best
    };
    (0..total).map(|_| pick()).collect()
}

/// How long [`smooth`] is.
pub fn smooth_length(weights: &[u16], max: usize) -> usize {
    let total: i64 = shares(weights, max).iter().sum();
    usize::try_from(total).expect("shares are not negative")
}

/// Lets all take turns until no entry is free.
fn fill(ring: &mut [Option<usize>], takers: &mut [Taker], cost: u32) {
    let mut free = ring.iter().filter(|entry| entry.is_none()).count();
    while free > 0 && !takers.is_empty() {
        for taker in &mut *takers {
            taker.credit += taker.weight;
            if taker.credit >= cost && free > 0 {
                taker.credit -= cost;
                taker.take(ring);
                free -= 1;
            }
        }
    }
}

/// One member on its way through the ring.
struct Taker {
    index: usize,
    hash: u64,
    weight: u32,
    /// Grows by the weight in every round; a turn costs the largest weight there is.
    credit: u32,
    next: usize,
    skip: usize,
}

impl Taker {
    fn new(index: usize, member: Candidate, length: usize) -> Self {
        let hash = member.hash;
        let (high, low) = ((hash >> 32) as usize, (hash & 0xffff_ffff) as usize);
        Self {
            index,
            hash,
            weight: u32::from(member.weight),
            credit: 0,
            next: high % length,
            skip: 1 + low % (length - 1),
        }
    }

    /// There is a free entry, and as the length is prime the permutation comes by.
    fn take(&mut self, ring: &mut [Option<usize>]) {
        while ring[self.next].is_some() {
            self.step(ring.len());
        }
        ring[self.next] = Some(self.index);
        self.step(ring.len());
    }

    fn step(&mut self, length: usize) {
        self.next = (self.next + self.skip) % length;
    }
}

/// Entries of each member. Rounding adds at most one to what is exact, so one entry for each is set
/// aside first.
fn shares(weights: &[u16], max: usize) -> Vec<i64> {
    let divisor = i64::from(weights.iter().copied().fold(0, gcd)).max(1);
    let total: i64 = weights.iter().copied().map(i64::from).sum();
    let members = weights.iter().filter(|weight| **weight > 0).count();
    let max_i64 = i64::try_from(max).unwrap_or(i64::MAX);
    if total / divisor <= max_i64 {
        return weights.iter().map(|w| i64::from(*w) / divisor).collect();
    }
    let spare = i64::try_from(max.saturating_sub(members)).unwrap_or(i64::MAX);
    let scaled = |weight: u16| match i64::from(weight) {
        0 => 0,
        weight => ((weight * spare + total / 2) / total).max(1),
    };
    weights.iter().copied().map(scaled).collect()
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLOWS: u32 = 100_000;

    #[test]
    fn smooth_orders() {
        let rows: [(&str, &[u16], usize, &[usize]); 7] = [
            ("nginx's own example", &[5, 1, 1], 64, &[0, 0, 1, 0, 2, 0, 0]),
            ("alike", &[7, 7, 7], 64, &[0, 1, 2]),
            ("a common divisor", &[100, 50], 64, &[0, 1, 0]),
            ("one drains", &[1, 0, 1], 64, &[0, 2]),
            ("nobody", &[0, 0], 64, &[]),
            ("rounded", &[256, 1], 4, &[0, 1, 0]),
            ("more members than entries", &[3, 2, 1], 2, &[0, 1, 2]),
        ];
        for (row, weights, max, want) in rows {
            assert_eq!(smooth(weights, max), want, "{row}");
            assert_eq!(smooth_length(weights, max), want.len(), "{row}");
        }
    }

    #[test]
    fn maglev_lengths() {
        let rows: [(&str, &[u16], usize, usize); 8] = [
            ("nobody", &[], 65_521, 61),
            ("one", &[9], 65_521, 1021),
            ("ten", &[1; 10], 65_521, 4093),
            ("eleven", &[1; 11], 65_521, 16_381),
            ("one small among large", &[1, 256], 65_521, 65_521),
            ("a drained one does not count", &[0, 256], 65_521, 1021),
            ("no more than allowed", &[1; 10], 251, 251),
            ("all must stand in it", &[1; 300], 61, 1021),
        ];
        for (row, weights, max, want) in rows {
            assert_eq!(maglev_length(weights, max), want, "{row}");
        }
        for length in MAGLEV_LENGTHS {
            assert!((2..length).all(|n| n * n > length || length % n != 0), "{length} is prime");
        }
    }

    /// Flows within 2 % of what the weights say.
    #[test]
    fn weights_are_shares() {
        let rows: [(&str, &[u16]); 5] = [
            ("alike", &[1; 4]),
            ("small ones", &[1, 2, 3, 4]),
            ("hundreds", &[100, 200, 256, 150]),
            ("primes", &[13, 7, 11, 17, 19]),
            ("one drains", &[1, 0, 1]),
        ];
        for (row, weights) in rows {
            let ring = smooth(weights, SMOOTH_MAX);
            let walked = (0..FLOWS).map(|flow| ring[flow as usize % ring.len()]);
            near(row, &count(walked, weights.len()), weights, 0.02);

            let ring = maglev(&members(weights), maglev_length(weights, 65_521));
            near(row, &count(ring.iter().copied(), weights.len()), weights, 0.02);
            near(row, &count(flows(&ring), weights.len()), weights, 0.02);
        }
    }

    /// Rounded, a ring of thousands of members is still near.
    #[test]
    fn rounded_weights() {
        let weights: Vec<u16> = (0..1000).map(|member| 1 + member % 256).collect();
        let ring = smooth(&weights, SMOOTH_MAX);
        assert!(ring.len() <= SMOOTH_MAX);
        let heavy = count(ring.iter().copied(), weights.len())[255];
        let fair = 256.0 * ring.len() as f64 / weights.iter().map(|w| f64::from(*w)).sum::<f64>();
        assert!((heavy as f64 / fair - 1.0).abs() < 0.05, "{heavy} of {fair}");
    }

    /// Of ten members one goes down, or leaves: how many flows of the others move.
    #[test]
    fn a_member_less() {
        let all = members(&[1; 10]);
        let length = maglev_length(&[1; 10], 65_521);
        let full = maglev(&all, length);
        for gone in 0..all.len() {
            let mut down = all.clone();
            down[gone].up = false;
            let mut left = all.clone();
            left[gone].weight = 0;
            let own = flows(&full).filter(|was| *was == gone).count();
            let others = |rest: &[Candidate]| {
                let rest = maglev(rest, length);
                assert!(!rest.contains(&gone));
                let pairs = flows(&full).zip(flows(&rest));
                pairs.filter(|(was, is)| *was != gone && was != is).count()
            };
            assert_eq!(others(&down), 0, "member {gone}");
            let moved = others(&left);
            assert!(moved * 3 <= own, "member {gone}: {moved} moved, {own} were its own");
        }
    }

    /// What a member that is down had is shared out by weight.
    #[test]
    fn shares_without_a_member() {
        let weights = [1, 2, 3, 4];
        let mut some = members(&weights);
        some[3].up = false;
        let ring = maglev(&some, maglev_length(&weights, 65_521));
        near("down", &count(ring.iter().copied(), 4), &[1, 2, 3, 0], 0.02);
        for member in &mut some {
            member.up = false;
        }
        assert!(maglev(&some, 61).is_empty());
    }

    proptest! {
        #[test]
        fn no_member_is_missing(
            weights in prop::collection::vec(0..=256_u16, 0..80),
            max in prop::sample::select(&MAGLEV_LENGTHS[..]),
        ) {
            let wanted: Vec<usize> =
                (0..weights.len()).filter(|index| weights[*index] > 0).collect();
            let orders = [
                smooth(&weights, max),
                maglev(&members(&weights), maglev_length(&weights, max)),
            ];
            for order in orders {
                let mut present = order;
                present.sort_unstable();
                present.dedup();
                prop_assert_eq!(&present, &wanted);
            }
            prop_assert!(smooth_length(&weights, max) <= max.max(wanted.len()));
        }

        #[test]
        fn order_does_not_matter(
            weights in prop::collection::vec(1..=256_u16, 1..20),
            turn in 0..20_usize,
        ) {
            let forward = members(&weights);
            let mut turned = forward.clone();
            turned.rotate_left(turn % weights.len());
            let hashes = |members: &[Candidate]| -> Vec<u64> {
                maglev(members, 1021).into_iter().map(|index| members[index].hash).collect()
            };
            prop_assert_eq!(hashes(&forward), hashes(&turned));
        }
    }

    fn members(weights: &[u16]) -> Vec<Candidate> {
        let member = |(index, weight): (usize, &u16)| Candidate {
            hash: stable_hash(&[10, 0, 0, index as u8, 0, 80]),
            weight: *weight,
            up: true,
        };
        weights.iter().enumerate().map(member).collect()
    }

    /// The members that flows with hashes 1, 2, 3... meet, as the packet path looks them up.
    fn flows(ring: &[usize]) -> impl Iterator<Item = usize> {
        (0..FLOWS).map(|flow| {
            let hash = stable_hash(&flow.to_le_bytes()) & 0xffff_ffff;
            ring[((hash * ring.len() as u64) >> 32) as usize]
        })
    }

    fn count(members: impl Iterator<Item = usize>, of: usize) -> Vec<usize> {
        let mut counts = vec![0; of];
        members.for_each(|member| counts[member] += 1);
        counts
    }

    fn near(row: &str, counts: &[usize], weights: &[u16], within: f64) {
        let flows: usize = counts.iter().sum();
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (count, weight) in counts.iter().zip(weights) {
            let fair = flows as f64 * f64::from(*weight) / total;
            let off = (*count as f64 - fair).abs();
            assert!(off <= within * fair, "{row}: {count} where {fair} is fair");
        }
    }
}
