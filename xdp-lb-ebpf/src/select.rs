//! Which member takes a new flow.

use crate::Tables;
use crate::abi::{Algorithm, BACKEND_STICKY, BACKEND_UP, Backend, Listener, Sticky, StickyKey};
use crate::limits::LEAST_CANDIDATES;

/// The backend id for a client, address wide; none where no member is usable.
#[inline(always)]
pub fn backend<T: Tables>(
    tables: &T,
    listener: &Listener,
    client: &[u8; 16],
    port: [u8; 2],
) -> Option<u32> {
    if listener.sticky_s == 0 {
        return fresh(tables, listener, client, port);
    }
    let key = StickyKey { addr: prefix(client, listener.sticky_bits), listener: listener.id };
    let now_s = tables.now_s();
    let held = held(tables, listener, &key, now_s);
    let backend = match held {
        Some(backend) => backend,
        None => fresh(tables, listener, client, port)?,
    };
    let epoch = tables.backend(backend)?.epoch;
    tables.stick(&key, &Sticky { backend, epoch, seen_s: now_s });
    Some(backend)
}

/// The member that persistence holds the client to, while that member wants it.
#[inline(always)]
fn held<T: Tables>(tables: &T, listener: &Listener, key: &StickyKey, now_s: u32) -> Option<u32> {
    let sticky = tables.sticky(key)?;
    let Backend { epoch, flags, .. } = *tables.backend(sticky.backend)?;
    let fits = epoch == sticky.epoch && flags & (BACKEND_UP | BACKEND_STICKY) != 0;
    let young = now_s.wrapping_sub(sticky.seen_s) <= listener.sticky_s;
    (fits && young).then_some(sticky.backend)
}

/// The first `bits` bits of an address.
#[inline(always)]
fn prefix(addr: &[u8; 16], bits: u8) -> [u8; 16] {
    let [a, b]: [u64; 2] = zerocopy::transmute!(*addr);
    let (high, low) = (leading(bits.min(64)), leading(bits.saturating_sub(64).min(64)));
    zerocopy::transmute!([a & high.to_be(), b & low.to_be()])
}

/// `bits` ones, then zeros. Halves, not a `u128`: its shifts are library calls in BPF.
#[inline(always)]
fn leading(bits: u8) -> u64 {
    if bits == 0 { 0 } else { u64::MAX << (64 - bits) }
}

#[inline(always)]
fn fresh<T: Tables>(
    tables: &T,
    listener: &Listener,
    client: &[u8; 16],
    port: [u8; 2],
) -> Option<u32> {
    if listener.ring_len == 0 {
        return None;
    }
    let turn = match listener.algorithm {
        algorithm if algorithm == Algorithm::SourceIp as u8 => {
            scaled(hash(client, [0; 2], listener.seed), listener.ring_len)
        }
        algorithm if algorithm == Algorithm::SourceIpPort as u8 => {
            scaled(hash(client, port, listener.seed), listener.ring_len)
        }
        _ => tables.cursor(listener.id)?.add(1) % listener.ring_len,
    };
    if listener.algorithm == Algorithm::LeastConnections as u8 {
        let least = tables.least(listener.ring_start, listener.ring_len, turn);
        return (least != NOBODY).then_some(least);
    }
    tables.ring(listener.ring_start + turn)
}

/// No backend.
pub const NOBODY: u32 = u32::MAX;

/// The least loaded by weight of the members from `turn` on, in the `length` entries of the ring from
/// `start`; or [`NOBODY`].
#[inline(always)]
pub fn least<T: Tables>(tables: &T, start: u32, length: u32, turn: u32) -> u32 {
    let mut best = NOBODY;
    let (mut best_load, mut best_weight) = (0, 1);
    let mut at = turn;
    for n in 0..LEAST_CANDIDATES {
        if n >= length {
            break;
        }
        let Some(id) = tables.ring(start.wrapping_add(at)) else {
            return NOBODY;
        };
        let (Some(backend), Some(load)) = (tables.backend(id), tables.backend_load(id)) else {
            return NOBODY;
        };
        let weight = u64::from(backend.weight);
        // With the flow in question: an idle member of weight 2 comes before one of weight 1.
        let load = u64::from(load.load()) + 1;
        if best == NOBODY || load * best_weight < best_load * weight {
            (best, best_load, best_weight) = (id, load, weight);
        }
        at += 1;
        if at >= length {
            at = 0;
        }
    }
    best
}

/// The same on both amphorae of a pair: nothing of it is random.
#[inline(always)]
fn hash(client: &[u8; 16], port: [u8; 2], seed: u32) -> u32 {
    let [a, b]: [u64; 2] = zerocopy::transmute!(*client);
    let port = u64::from(u16::from_be_bytes(port));
    let mut hash = u64::from(seed) << 32 | port;
    hash = (hash ^ a).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 32 ^ b).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 32) as u32
}

/// A 32-bit hash as an index below `length`, without a division.
#[inline(always)]
pub fn scaled(hash: u32, length: u32) -> u32 {
    ((u64::from(hash) * u64::from(length)) >> 32) as u32
}

/// The `attempt`th source port for a flow, of `span` ports from `low`. The client's own first, so
/// that a standby that never saw the flow computes the same; then such as follow from the client.
#[inline(always)]
pub fn source_port(
    (low, span): (u16, u16),
    client: &[u8; 16],
    port: [u8; 2],
    attempt: u32,
) -> [u8; 2] {
    let own = u16::from_be_bytes(port);
    if attempt == 0 && own.wrapping_sub(low) < span {
        return port;
    }
    let offset = scaled(hash(client, port, attempt), u32::from(span)) as u16;
    low.wrapping_add(offset).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let all = [0xff; 16];
        for (bits, whole, rest) in
            [(0, 0, 0), (4, 0, 0xf0), (96, 12, 0), (121, 15, 0x80), (128, 16, 0)]
        {
            let mut want = [0; 16];
            want[..whole].fill(0xff);
            if whole < 16 {
                want[whole] = rest;
            }
            assert_eq!(prefix(&all, bits), want, "{bits} bits");
        }
    }

    #[test]
    fn the_clients_own_port_comes_first() {
        let client = [7; 16];
        assert_eq!(source_port((1024, 59976), &client, [0x80, 0], 0), [0x80, 0]);
        for attempt in 0..100 {
            let port = u16::from_be_bytes(source_port((1024, 10), &client, [0x80, 0], attempt));
            assert!((1024..1034).contains(&port), "attempt {attempt}: {port}");
        }
    }
}
