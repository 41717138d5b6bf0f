//! A message that is too long for one datagram, made to fit.
//!
//! An amphora that is not heard of is failed over, so something must be sent, and every listener must be in
//! it: the health manager counts them. What is left out costs ever more:
//!
//! 1. A pool that several listeners use is told once: of those, the health manager takes the last.
//! 2. `UP 1/3` is told as `UP`, which means the same to it.
//! 3. Disabled members are left out. Whom it does not hear of is OFFLINE, as they are; but one that it has
//!    as NO_MONITOR stays that.
//! 4. Members without a monitor are left out. They stay NO_MONITOR, as the API made them.
//! 5. Members that are up or draining are left out, of the largest pools first, as few as need be. They are
//!    shown OFFLINE, which is wrong, and says where to look.
//! 6. The others as well.

use std::collections::BTreeMap;
use std::fmt;

use super::envelope::compressed;
use super::message::{MemberStatus, Message, PoolKey};
use super::{DATAGRAM_MAX, OVERHEAD_MAX};

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shrunk {
    /// Bytes that the datagram would have had.
    pub bytes: usize,
    pub disabled: usize,
    pub unchecked: usize,
    /// Up, draining or, where even that did not suffice, failing their checks.
    pub checked: usize,
}

/// Makes it fit, with listeners and the states of pools whole. Where those alone do not fit, nothing helps,
/// and what is left does not either.
pub fn shrink(mut message: Message) -> Result<(Message, Shrunk), serde_json::Error> {
    let mut shrunk = Shrunk { bytes: bytes(&message)?, ..Shrunk::default() };
    let steps: [fn(&mut Message, &mut Shrunk); 4] = [
        |message, _| message.pools = once(std::mem::take(&mut message.pools)),
        |message, _| without_counts(message),
        |message, shrunk| shrunk.disabled = without(message, |it| it == MemberStatus::Maint),
        |message, shrunk| shrunk.unchecked = without(message, |it| it == MemberStatus::NoCheck),
    ];
    for step in steps {
        if fits(&message)? {
            return Ok((message, shrunk));
        }
        step(&mut message, &mut shrunk);
    }
    let leaving = in_order(&message);
    // The fewest that suffice.
    let (mut few, mut enough) = (0, leaving.len());
    while few < enough {
        let some = few + (enough - few) / 2;
        if fits(&less(message.clone(), &leaving[..some]))? {
            enough = some;
        } else {
            few = some + 1;
        }
    }
    shrunk.checked = enough;
    let message = less(message, &leaving[..enough]);
    Ok((message, shrunk))
}

impl Shrunk {
    /// Whether as much was left out; the bytes differ from message to message, and a few members with
    /// them.
    pub fn is_like(self, other: Self) -> bool {
        (self.disabled, self.unchecked) == (other.disabled, other.unchecked)
            && self.checked.abs_diff(other.checked) * 10 <= self.checked
    }
}

fn bytes(message: &Message) -> Result<usize, serde_json::Error> {
    Ok(compressed(&message.to_json()?).len() + OVERHEAD_MAX)
}

fn fits(message: &Message) -> Result<bool, serde_json::Error> {
    Ok(bytes(message)? <= DATAGRAM_MAX)
}

/// In the order of the JSON, which is that of the keys, the last one of each pool.
fn once<T>(pools: BTreeMap<PoolKey, T>) -> BTreeMap<PoolKey, T> {
    let name = |key: &PoolKey| match key {
        PoolKey::OfListener { pool, .. } | PoolKey::Alone { pool } => pool.clone(),
    };
    let last: BTreeMap<_, _> =
        pools.into_iter().map(|(key, pool)| (name(&key), (key, pool))).collect();
    last.into_values().collect()
}

fn without_counts(message: &mut Message) {
    for status in message.pools.values_mut().flat_map(|pool| pool.members.values_mut()) {
        *status = match *status {
            MemberStatus::Up(_) => MemberStatus::Up(None),
            MemberStatus::Down(_) => MemberStatus::Down(None),
            status @ (MemberStatus::Drain
            | MemberStatus::Maint
            | MemberStatus::NoCheck
            | MemberStatus::Restarting) => status,
        };
    }
}

/// How many that were.
fn without(message: &mut Message, unwanted: impl Fn(MemberStatus) -> bool) -> usize {
    let mut left_out = 0;
    for pool in message.pools.values_mut() {
        let before = pool.members.len();
        pool.members.retain(|_, status| !unwanted(*status));
        left_out += before - pool.members.len();
    }
    left_out
}

/// Members in the order in which they are left out.
fn in_order(message: &Message) -> Vec<(PoolKey, String)> {
    let matters = |status: &MemberStatus| matches!(status, MemberStatus::Down(_));
    let mut members: Vec<_> = message
        .pools
        .iter()
        .flat_map(|(key, pool)| {
            let members = pool.members.iter();
            members.map(move |(id, status)| {
                (matters(status), usize::MAX - pool.members.len(), key, id)
            })
        })
        .collect();
    members.sort_unstable();
    members.into_iter().map(|(_, _, key, id)| (key.clone(), id.clone())).collect()
}

fn less(mut message: Message, members: &[(PoolKey, String)]) -> Message {
    for (key, id) in members {
        if let Some(pool) = message.pools.get_mut(key) {
            pool.members.remove(id);
        }
    }
    message
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, disabled, unchecked, checked } = self;
        write!(
            f,
            "the heartbeat would have {bytes} bytes and {DATAGRAM_MAX} fit; left out are members: \
             {disabled} disabled, {unchecked} without a monitor, and {checked} that are shown OFFLINE \
             though they are not"
        )
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::message::{Count, Listener, ListenerStatus, Pool, PoolStatus, Stats};
    use super::*;
    use crate::heartbeat::{envelope, sealed};

    /// As random as Octavia's.
    fn uuid(number: usize) -> String {
        let hex = hex::encode(Sha256::digest(number.to_string()));
        format!(
            "{}-{}-4{}-8{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[13..16],
            &hex[17..20],
            &hex[20..32]
        )
    }

    fn key(pool: usize, listener: usize) -> PoolKey {
        PoolKey::OfListener { pool: uuid(pool), listener: uuid(1_000_000 + listener) }
    }

    /// A pool and its listener, by number, and so many members of each status.
    type Described<'a> = (usize, usize, &'a [(usize, MemberStatus)]);

    fn message(pools: &[Described<'_>]) -> Message {
        let (mut told, mut listeners, mut number) = (BTreeMap::new(), BTreeMap::new(), 10_000);
        for (pool, listener, statuses) in pools {
            let mut members = BTreeMap::new();
            for (many, status) in *statuses {
                for _ in 0..*many {
                    number += 1;
                    members.insert(uuid(number), *status);
                }
            }
            told.insert(key(*pool, *listener), Pool { status: PoolStatus::Up, members });
            let (status, stats) = (ListenerStatus::Open, Stats::default());
            listeners.insert(uuid(1_000_000 + listener), Listener { status, stats });
        }
        Message::new(uuid(1), 7, listeners, told)
    }

    fn count(message: &Message, wanted: MemberStatus) -> usize {
        let members = message.pools.values().flat_map(|pool| pool.members.values());
        members.filter(|status| **status == wanted).count()
    }

    #[test]
    fn what_is_left_out() {
        use MemberStatus::{Down, Drain, Maint, NoCheck, Up};
        const UP: MemberStatus = Up(None);
        let one = |left_out: Shrunk| (left_out.disabled, left_out.unchecked, left_out.checked > 0);
        /// A name, pools, and what is left out: disabled, without a monitor, whether any else.
        type Row<'a> = (&'a str, &'a [Described<'a>], (usize, usize, bool));
        let failing = Up(Some(Count { done: 1, of: 3 }));
        let rows: [Row<'_>; 7] = [
            ("it fits", &[(1, 1, &[(10, failing), (10, Maint)])], (0, 0, false)),
            (
                "a pool of two listeners",
                &[(1, 1, &[(2000, UP)]), (1, 2, &[(2000, UP)])],
                (0, 0, false),
            ),
            ("disabled", &[(1, 1, &[(2500, UP), (900, Maint), (9, NoCheck)])], (900, 0, false)),
            (
                "no monitor",
                &[(1, 1, &[(9, UP), (3500, NoCheck)]), (2, 1, &[(3, Maint)])],
                (3, 3500, false),
            ),
            (
                "too many that are up",
                &[(1, 1, &[(3500, UP)]), (2, 2, &[(200, UP), (9, Down(None))])],
                (0, 0, true),
            ),
            ("draining", &[(1, 1, &[(4000, Drain), (9, Down(None))])], (0, 0, true)),
            ("down", &[(1, 1, &[(9, UP), (5000, Down(None))])], (0, 0, true)),
        ];
        for (row, pools, want) in rows {
            let before = message(pools);
            let (after, shrunk) = shrink(before.clone()).unwrap();
            assert_eq!(one(shrunk), want, "{row}: {shrunk}");
            assert_eq!(after.listeners, before.listeners, "{row}: every listener");
            let json = after.to_json().unwrap();
            envelope::wrap(&json, b"key").unwrap();
            let mut sealer = sealed::Sealer::new(b"key", &before.id, 0, [0; 32]).unwrap();
            sealer.seal(&json).unwrap();
            if shrunk.checked > 0 {
                // One more did not fit, and down is told before up.
                assert!(bytes(&after).unwrap() + 60 > DATAGRAM_MAX, "{row}: {shrunk}");
                let up = count(&after, UP) + count(&after, Drain);
                let down = count(&after, Down(None));
                assert!(
                    up == 0 || down == count(&before, Down(None)),
                    "{row}: {up} up, {down} down"
                );
            }
        }
        // The smaller pool is whole.
        let (after, _) = shrink(message(rows[4].1)).unwrap();
        assert_eq!(after.pools[&key(2, 2)].members.len(), 209);
        // How many members fit, for the README.
        let many = message(&[(1, 1, &[(5000, UP)])]);
        let (after, shrunk) = shrink(many).unwrap();
        assert_eq!(count(&after, UP) + shrunk.checked, 5000);
        assert!(count(&after, UP) > 2900, "{} fit", count(&after, UP));
    }
}
