//! The sealed envelope, which is ours: encrypted and signed by AES-256-GCM, and good for one delivery.
//!
//! For networks on which the statistics of tenants are to be secret; the health manager does not know it,
//! so a relay in front of it opens it. Octavia's envelope stays the default.
//!
//! ```text
//! "XLB1" | start, 8 | salt, 32 | counter, 8 | length of id, 1 | id | sealed zlib of the JSON | tag, 16
//! ```
//!
//! Numbers are big-endian. All before the sealed part is associated data: it can be read, not changed.
//!
//! **A nonce never repeats for a key.** The key is HKDF-SHA-256 of the heartbeat key with the salt, for
//! the id of the amphora and the time of its start. A sender draws the salt, 256 random bits, when it
//! starts, so each start has a key of its own; a clone of a machine that draws the same has another id or
//! another start. Within a start the nonce is the counter, which goes up by one with each message and
//! ends before it would wrap.
//!
//! **A datagram is taken once.** The receiver knows of each amphora the latest start, the highest counter
//! and which of the [`WINDOW`] below it have come. What is older, or came already, is refused. A start is
//! the sender's time: one whose clock goes back is refused until it has caught up or the receiver is told
//! to [`Opener::forget`] it, which is what an operator does who knows why. A receiver that restarts knows
//! nothing, and takes the first datagram of each amphora for fresh.

use std::collections::BTreeMap;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::envelope::{self, compressed, fits, uncompressed};

/// Counters below the highest of which it is known whether they came.
pub const WINDOW: u64 = 64;
/// Amphorae that a receiver knows of.
pub const AMPHORAE_MAX: usize = 16_384;

const MAGIC: &[u8; 4] = b"XLB1";
/// A key that is not set, as Octavia's template renders it.
const UNSET: &[u8] = b"None";
const PURPOSE: &[u8] = b"xdp-lb heartbeat 1";
/// Where the id begins.
const FIXED: usize = 4 + 8 + 32 + 8 + 1;
const TAG: usize = 16;

/// Why nothing was sealed, or a datagram is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the datagram is no sealed heartbeat")]
    WrongMagic,
    #[error("{bytes} bytes are too few for a sealed heartbeat")]
    Truncated { bytes: usize },
    #[error("an id of {bytes} bytes is not 1 to 255 of UTF-8")]
    Id { bytes: usize },
    #[error("there is no heartbeat key to seal with")]
    NoKey,
    /// Another key, another amphora, or a bit that was changed on the way.
    #[error("it was not sealed with the key")]
    Unauthentic,
    #[error("message {counter} of amphora {amphora} came already")]
    Replayed { amphora: String, counter: u64 },
    #[error("message {counter} of amphora {amphora} is more than {WINDOW} behind")]
    TooOld { amphora: String, counter: u64 },
    #[error("amphora {amphora} has started again since, at {latest}, not {start}")]
    EarlierStart { amphora: String, start: u64, latest: u64 },
    #[error("{AMPHORAE_MAX} amphorae are known already")]
    TooManyAmphorae,
    #[error("all numbers of this start are used up")]
    CounterUsedUp,
    #[error(transparent)]
    Content(#[from] envelope::Error),
}

/// Seals the heartbeats of one amphora from its start on.
pub struct Sealer {
    cipher: Aes256Gcm,
    /// All that comes before the counter.
    head: Vec<u8>,
    amphora: String,
    /// Of the next message; none once all are used.
    counter: Option<u64>,
}

/// Opens the heartbeats of all amphorae that have the key.
pub struct Opener {
    key: Vec<u8>,
    known: BTreeMap<String, Known>,
}

/// What was inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub amphora: String,
    pub json: Vec<u8>,
}

/// What has come of an amphora.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    start: u64,
    #[serde(with = "hex")]
    salt: [u8; 32],
    highest: u64,
    /// Bit n is set if the counter n below the highest came.
    came: u64,
}

/// A datagram taken apart.
struct Parts<'a> {
    head: &'a [u8],
    start: u64,
    salt: [u8; 32],
    counter: u64,
    amphora: &'a str,
    sealed: &'a [u8],
}

/// Whether a datagram says of itself that it is sealed. One in Octavia's envelope cannot: it begins as a
/// zlib stream does.
pub fn is_sealed(datagram: &[u8]) -> bool {
    datagram.starts_with(MAGIC)
}

impl Sealer {
    /// `start` is the time, in whatever unit all of an amphora's starts have, and later than the last one;
    /// `salt` is drawn from the system's randomness now. An empty key is refused, and so is the word that
    /// the controller writes where it has none: it would seem secret, and be anybody's.
    pub fn new(key: &[u8], amphora: &str, start: u64, salt: [u8; 32]) -> Result<Self, Error> {
        if key.is_empty() || key == UNSET {
            return Err(Error::NoKey);
        }
        let bytes = amphora.len();
        if bytes == 0 || bytes > usize::from(u8::MAX) {
            return Err(Error::Id { bytes });
        }
        let head = [&MAGIC[..], &start.to_be_bytes(), &salt].concat();
        let cipher = cipher(key, amphora, start, &salt)?;
        Ok(Self { cipher, head, amphora: amphora.to_owned(), counter: Some(0) })
    }

    /// The datagram of the next message. Its number is used up, whatever comes of it.
    pub fn seal(&mut self, json: &[u8]) -> Result<Vec<u8>, Error> {
        let counter = self.counter.ok_or(Error::CounterUsedUp)?;
        // Used whatever comes of it.
        self.counter = counter.checked_add(1);
        let mut datagram = self.head.clone();
        datagram.extend_from_slice(&counter.to_be_bytes());
        // It was found to fit.
        datagram.push(u8::try_from(self.amphora.len()).unwrap_or(u8::MAX));
        datagram.extend_from_slice(self.amphora.as_bytes());
        let payload = Payload { msg: &compressed(json), aad: &datagram };
        let sealed = self.cipher.encrypt(&nonce(counter), payload);
        datagram.extend_from_slice(&sealed.map_err(|_| Error::Unauthentic)?);
        Ok(fits(datagram)?)
    }
}

impl Opener {
    /// For all amphorae that seal with this heartbeat key.
    pub fn new(key: &[u8]) -> Self {
        Self { key: key.to_owned(), known: BTreeMap::new() }
    }

    /// Takes a datagram that is authentic and has not come before. Nothing is learnt of any other.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Opened, Error> {
        let parts = Parts::of(datagram)?;
        let cipher = cipher(&self.key, parts.amphora, parts.start, &parts.salt)?;
        let payload = Payload { msg: parts.sealed, aad: parts.head };
        let body = cipher.decrypt(&nonce(parts.counter), payload);
        let body = body.map_err(|_| Error::Unauthentic)?;
        let known = self.fresh(&parts)?;
        let json = uncompressed(&body)?;
        self.known.insert(parts.amphora.to_owned(), known);
        Ok(Opened { amphora: parts.amphora.to_owned(), json })
    }

    /// What has come so far, as JSON, for an opener that is to refuse it over a restart. Holds no secret.
    pub fn remember(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.known)
    }

    /// With what another [`remember`](Self::remember)ed.
    pub fn recall(key: &[u8], remembered: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self { key: key.to_owned(), known: serde_json::from_slice(remembered)? })
    }

    /// Takes the next start of an amphora, whenever it says that it was.
    pub fn forget(&mut self, amphora: &str) {
        self.known.remove(amphora);
    }

    /// What is known of the amphora once this has come.
    fn fresh(&self, parts: &Parts<'_>) -> Result<Known, Error> {
        let Parts { start, salt, counter, .. } = *parts;
        let amphora = || parts.amphora.to_owned();
        let first = Known { start, salt, highest: counter, came: 1 };
        let known = match self.known.get(parts.amphora) {
            None if self.known.len() >= AMPHORAE_MAX => return Err(Error::TooManyAmphorae),
            None => return Ok(first),
            Some(known) if known.start < start => return Ok(first),
            Some(known) => *known,
        };
        if known.start > start || known.salt != salt {
            let latest = known.start;
            return Err(Error::EarlierStart { amphora: amphora(), start, latest });
        }
        if counter > known.highest {
            let ahead = counter - known.highest;
            let came = if ahead < WINDOW { known.came << ahead | 1 } else { 1 };
            return Ok(Known { highest: counter, came, ..known });
        }
        let behind = known.highest - counter;
        if behind >= WINDOW {
            return Err(Error::TooOld { amphora: amphora(), counter });
        }
        if known.came & 1 << behind != 0 {
            return Err(Error::Replayed { amphora: amphora(), counter });
        }
        Ok(Known { came: known.came | 1 << behind, ..known })
    }
}

impl<'a> Parts<'a> {
    fn of(datagram: &'a [u8]) -> Result<Self, Error> {
        let truncated = || Error::Truncated { bytes: datagram.len() };
        let rest = datagram.strip_prefix(MAGIC);
        let rest =
            rest.ok_or(if datagram.len() < MAGIC.len() { truncated() } else { Error::WrongMagic })?;
        let (start, rest) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (salt, rest) = rest.split_first_chunk::<32>().ok_or_else(truncated)?;
        let (counter, rest) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (bytes, rest) = rest.split_first().ok_or_else(truncated)?;
        let bytes = usize::from(*bytes);
        let (id, sealed) = rest.split_at_checked(bytes).ok_or_else(truncated)?;
        if sealed.len() < TAG {
            return Err(truncated());
        }
        let amphora = str::from_utf8(id).map_err(|_| Error::Id { bytes })?;
        if amphora.is_empty() {
            return Err(Error::Id { bytes });
        }
        Ok(Self {
            head: &datagram[..FIXED + bytes],
            start: u64::from_be_bytes(*start),
            salt: *salt,
            counter: u64::from_be_bytes(*counter),
            amphora,
            sealed,
        })
    }
}

fn cipher(key: &[u8], amphora: &str, start: u64, salt: &[u8; 32]) -> Result<Aes256Gcm, Error> {
    let mut derived = [0; 32];
    let info = [PURPOSE, &start.to_be_bytes(), amphora.as_bytes()];
    // Neither fails: HKDF gives up to 255 times 32 bytes, and 32 are a key.
    let expanded = Hkdf::<Sha256>::new(Some(salt), key).expand_multi_info(&info, &mut derived);
    expanded.map_err(|_| Error::Unauthentic)?;
    Aes256Gcm::new_from_slice(&derived).map_err(|_| Error::Unauthentic)
}

fn nonce(counter: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = b"insecure";
    const ID: &str = "2fb5067a-1d18-5a82-80f6-079512bfcd7b";
    const JSON: &[u8] = br#"{"id": "2fb5067a"}"#;

    fn sealer(start: u64) -> Sealer {
        Sealer::new(KEY, ID, start, [start as u8; 32]).unwrap()
    }

    /// The format cannot change by accident.
    #[test]
    fn known_answer() {
        let datagram = sealer(7).seal(b"{}").unwrap();
        let want = "584c4231000000000000000707070707070707070707070707070707070707070707070707070707070707070000000000000000";
        let head = &hex::encode(&datagram)[..want.len()];
        assert_eq!(head, want);
        assert_eq!(hex::encode(&datagram[FIXED + ID.len()..]), KNOWN);
    }

    /// As Python's `cryptography` and `zlib` seal it.
    const KNOWN: &str = "a2d1fbb728bc47c483a77b8abf3379156233230b68c14b6ed8a0";

    #[test]
    fn refused() {
        let good = sealer(7).seal(JSON).unwrap();
        let edited = |at: usize, byte: u8| {
            let mut datagram = good.clone();
            datagram[at] = byte;
            datagram
        };
        let other = Sealer::new(b"other", ID, 7, [7; 32]).unwrap().seal(JSON).unwrap();
        let rows = [
            ("empty", Vec::new(), Error::Truncated { bytes: 0 }),
            ("another magic", edited(3, b'2'), Error::WrongMagic),
            ("another key", other, Error::Unauthentic),
            ("another amphora", edited(FIXED, b'3'), Error::Unauthentic),
            ("another start", edited(11, 8), Error::Unauthentic),
            ("another salt", edited(12, 8), Error::Unauthentic),
            ("another counter", edited(FIXED - 2, 1), Error::Unauthentic),
            ("no id", edited(FIXED - 1, 0), Error::Id { bytes: 0 }),
            ("a shorter id", edited(FIXED - 1, 35), Error::Unauthentic),
        ];
        for (row, datagram, want) in rows {
            let mut opener = Opener::new(KEY);
            assert_eq!(opener.open(&datagram), Err(want), "{row}");
            assert!(opener.open(&good).is_ok(), "{row}: nothing was learnt of it");
        }
        for length in 0..good.len() {
            assert!(Opener::new(KEY).open(&good[..length]).is_err(), "{length} bytes");
        }
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Opener::new(KEY).open(&flipped).is_err(), "bit {bit}");
        }
    }

    /// Its name, then what comes: start and counter; and whether it is taken.
    type Row = (&'static str, &'static [(usize, usize, bool)]);

    #[test]
    fn taken_once() {
        let messages = |start| {
            let mut sealer = sealer(start);
            (0..200).map(|_| sealer.seal(JSON).unwrap()).collect::<Vec<_>>()
        };
        let starts = [messages(0), messages(1), messages(2)];
        #[rustfmt::skip]
        let rows: [Row; 9] = [
            ("in order", &[(0, 0, true), (0, 1, true), (0, 2, true)]),
            ("again", &[(0, 0, true), (0, 0, false), (0, 1, true), (0, 0, false), (0, 1, false)]),
            ("late", &[(0, 5, true), (0, 3, true), (0, 4, true), (0, 3, false), (0, 5, false)]),
            ("as late as may be", &[(0, 63, true), (0, 0, true), (0, 0, false)]),
            ("too late", &[(0, 64, true), (0, 0, false), (0, 1, true)]),
            ("far ahead", &[(0, 1, true), (0, 150, true), (0, 1, false), (0, 100, true), (0, 86, false), (0, 87, true)]),
            ("a new start", &[(0, 9, true), (1, 0, true), (1, 1, true), (0, 10, false), (0, 9, false)]),
            ("an old start", &[(2, 0, true), (1, 0, false), (0, 199, false), (2, 1, true)]),
            ("the first that comes is not the first", &[(1, 100, true), (1, 99, true), (1, 100, false)]),
        ];
        for (row, come) in rows {
            let mut opener = Opener::new(KEY);
            for (start, counter, want) in come {
                let opened = opener.open(&starts[*start][*counter]);
                assert_eq!(opened.is_ok(), *want, "{row}: {start}, {counter}: {opened:?}");
            }
        }
        let mut opener = Opener::new(KEY);
        opener.open(&starts[2][0]).unwrap();
        opener.forget(ID);
        let opened = Opened { amphora: ID.to_owned(), json: JSON.to_owned() };
        assert_eq!(
            opener.open(&starts[1][0]),
            Ok(opened),
            "its clock went back, and that is known"
        );
    }

    #[test]
    fn what_came_is_remembered() {
        let mut sealer = sealer(7);
        let messages: Vec<_> = (0..70).map(|_| sealer.seal(JSON).unwrap()).collect();
        let mut opener = Opener::new(KEY);
        opener.open(&messages[66]).unwrap();
        opener.open(&messages[65]).unwrap();
        let remembered = opener.remember().unwrap();
        let again = || Opener::recall(KEY, &remembered).unwrap();
        for (at, want) in [(66, false), (65, false), (2, false), (3, true), (67, true)] {
            assert_eq!(again().open(&messages[at]).is_ok(), want, "{at}");
        }
        for torn in [&b""[..], b"{", b"[]", br#"{"a":{"start":1}}"#] {
            assert!(Opener::recall(KEY, torn).is_err(), "{torn:?}");
        }
    }

    #[test]
    fn bounds() {
        assert!(matches!(Sealer::new(KEY, "", 0, [0; 32]), Err(Error::Id { bytes: 0 })));
        let long = "a".repeat(256);
        assert!(matches!(Sealer::new(KEY, &long, 0, [0; 32]), Err(Error::Id { bytes: 256 })));
        for key in [&b""[..], b"None"] {
            assert!(matches!(Sealer::new(key, ID, 0, [0; 32]), Err(Error::NoKey)));
        }
        let mut last = sealer(0);
        last.counter = Some(u64::MAX);
        assert!(last.seal(JSON).is_ok());
        assert_eq!(last.seal(JSON), Err(Error::CounterUsedUp));
        // What does not compress.
        let noise: Vec<u8> = (0..40_000_u32).flat_map(|at| ring(at).to_be_bytes()).collect();
        let long = sealer(0).seal(&noise);
        assert!(matches!(long, Err(Error::Content(envelope::Error::DatagramTooLong { .. }))));
        // What does, too well.
        let bomb = sealer(0).seal(&vec![b' '; super::super::MESSAGE_MAX + 1]).unwrap();
        let opened = Opener::new(KEY).open(&bomb);
        assert_eq!(opened, Err(Error::Content(envelope::Error::MessageTooLong)));
    }

    #[test]
    fn many_amphorae() {
        let mut opener = Opener::new(KEY);
        let seal = |at: usize| {
            Sealer::new(KEY, &format!("a{at}"), 0, [0; 32]).unwrap().seal(JSON).unwrap()
        };
        opener.open(&seal(0)).unwrap();
        let known = opener.known["a0"];
        opener.known.extend((1..AMPHORAE_MAX).map(|at| (format!("a{at}"), known)));
        assert_eq!(opener.open(&seal(AMPHORAE_MAX)), Err(Error::TooManyAmphorae));
        opener.forget("a0");
        assert!(opener.open(&seal(AMPHORAE_MAX)).is_ok());
    }

    fn ring(at: u32) -> u32 {
        at.wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3))]

        /// Two hours of a message each second, with restarts, a clone of the machine among them.
        #[test]
        fn no_nonce_twice(restarts in prop::collection::vec(0_usize..7200, 0..8), clone: bool) {
            let mut used = HashSet::new();
            let mut start = 0;
            let mut sender = sealer(start);
            for second in 0..7200 {
                if restarts.contains(&second) {
                    start += 1;
                    // A clone draws what it drew before.
                    let salt = if clone { [0; 32] } else { [start as u8; 32] };
                    sender = Sealer::new(KEY, ID, start, salt).unwrap();
                }
                let datagram = sender.seal(b"{}").unwrap();
                // Start, salt and id make the key; the counter is the nonce.
                prop_assert!(used.insert(datagram[..FIXED + ID.len()].to_vec()), "second {}", second);
            }
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Opener::new(KEY).open(&bytes).is_err());
            let with_magic = [&MAGIC[..], &bytes].concat();
            prop_assert!(Opener::new(KEY).open(&with_magic).is_err());
        }
    }
}
