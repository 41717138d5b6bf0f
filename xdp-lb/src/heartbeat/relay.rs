//! `xdp-lb heartbeat relay`: stands on the controller before the health manager, opens sealed heartbeats
//! and hands them on as Octavia expects them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_api::config::Secret;
use agent_api::durable;
use agent_api::heartbeat::sealed::{self, Opener};
use agent_api::heartbeat::{DATAGRAM_MAX, envelope};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Error;

/// How often it is told what was refused, while anything is.
const TELL: Duration = Duration::from_secs(60);
/// How often it is written down what has come. After a crash, a second of heartbeats could come again.
const REMEMBER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Options {
    /// Where sealed heartbeats come.
    pub bind: SocketAddr,
    /// The health manager.
    pub to: SocketAddr,
    /// What came already, over restarts; made when it is not there.
    pub state: PathBuf,
    /// Amphorae whose next start is taken whenever it says that it was: their clocks went back.
    pub forget: Vec<String>,
}

/// Why a datagram was not handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Sealed(#[from] sealed::Error),
    #[error("what was sealed is no message: {0}")]
    NotJson(String),
    /// Who has the key seals as anybody; but a message in two names is nobody's.
    #[error("amphora {sealed} sealed a message of {said}")]
    AnotherAmphora { sealed: String, said: String },
}

/// Opens, checks, and wraps anew; and counts.
pub struct Relay {
    key: Vec<u8>,
    opener: Opener,
    pub taken: u64,
    /// By the reason, with the last sender and why.
    pub refused: BTreeMap<&'static str, Refusals>,
}

/// What was refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals {
    pub count: u64,
    pub from: SocketAddr,
    pub why: Refused,
}

impl Relay {
    /// That knows of no heartbeat, or of those that an earlier one remembered.
    pub fn new(key: &[u8], remembered: Option<&[u8]>) -> Result<Self, serde_json::Error> {
        let opener = match remembered {
            Some(remembered) => Opener::recall(key, remembered)?,
            None => Opener::new(key),
        };
        Ok(Self { key: key.to_owned(), opener, taken: 0, refused: BTreeMap::new() })
    }

    /// What the health manager is to get of it. What is refused is counted.
    pub fn take(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<Vec<u8>, Refused> {
        let opened = self.open(datagram);
        match &opened {
            Ok(_) => self.taken += 1,
            Err(why) => {
                let count = self.refused.get(why.reason()).map_or(0, |before| before.count) + 1;
                let refusals = Refusals { count, from, why: why.clone() };
                self.refused.insert(why.reason(), refusals);
            }
        }
        opened
    }

    fn open(&mut self, datagram: &[u8]) -> Result<Vec<u8>, Refused> {
        let sealed::Opened { amphora, json } = self.opener.open(datagram)?;
        let message: Value =
            serde_json::from_slice(&json).map_err(|error| Refused::NotJson(error.to_string()))?;
        match message["id"].as_str() {
            Some(said) if said == amphora => {}
            said => {
                let said = said.unwrap_or("nobody").to_owned();
                return Err(Refused::AnotherAmphora { sealed: amphora, said });
            }
        }
        Ok(envelope::wrap(&json, &self.key).map_err(sealed::Error::Content)?)
    }

    /// Takes the next start of an amphora, whenever it says that it was.
    pub fn forget(&mut self, amphora: &str) {
        self.opener.forget(amphora);
    }

    /// What has come, for [`new`](Self::new).
    pub fn remember(&self) -> Result<Vec<u8>, serde_json::Error> {
        self.opener.remember()
    }
}

impl Refused {
    /// What it is counted as.
    fn reason(&self) -> &'static str {
        use sealed::Error::{
            Content, CounterUsedUp, EarlierStart, Id, NoKey, Replayed, TooManyAmphorae, TooOld,
            Truncated, Unauthentic, WrongMagic,
        };
        match self {
            Self::Sealed(WrongMagic) => "not sealed",
            Self::Sealed(Truncated { .. } | Id { .. }) => "malformed",
            Self::Sealed(Unauthentic | NoKey) => "not authentic",
            Self::Sealed(Replayed { .. }) => "replayed",
            Self::Sealed(TooOld { .. }) => "too old",
            Self::Sealed(EarlierStart { .. }) => "of an earlier start",
            Self::Sealed(TooManyAmphorae) => "of one amphora too many",
            Self::Sealed(Content(_) | CounterUsedUp) | Self::NotJson(_) => "no message",
            Self::AnotherAmphora { .. } => "another amphora's",
        }
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handed on {}", self.taken)?;
        for (reason, Refusals { count, from, why }) in &self.refused {
            write!(f, "; {reason} {count}, the last from {from}: {why}")?;
        }
        Ok(())
    }
}

/// Runs until SIGTERM or SIGINT.
pub async fn relay(options: Options, key: &Secret) -> Result<(), Error> {
    let Options { bind, to, state, forget } = options;
    let key = key.reveal().as_bytes();
    let mut relay = recalled(&state, key)?;
    forget.iter().for_each(|amphora| relay.forget(amphora));
    let bound = |address| move |error| Error::Bind { address, error };
    let socket = UdpSocket::bind(bind).await.map_err(bound(bind))?;
    let any = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let out = UdpSocket::bind(any).await.map_err(bound(any))?;
    info!("relaying from {} to {to}", socket.local_addr()?);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let [mut tell, mut remember] = [TELL, REMEMBER].map(|period| {
        let mut due = interval(period);
        due.set_missed_tick_behavior(MissedTickBehavior::Skip);
        due
    });
    let mut buffer = vec![0; DATAGRAM_MAX + 1];
    let (mut told, mut remembered) = (relay.refused.clone(), relay.taken);
    let mut keeping: Option<JoinHandle<()>> = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tell.tick() => if told != relay.refused {
                warn!("{relay}");
                told.clone_from(&relay.refused);
            },
            _ = remember.tick() => {
                // On a disk that is slow the next waits; heartbeats do not.
                let busy = keeping.as_ref().is_some_and(|it| !it.is_finished());
                if remembered != relay.taken && !busy {
                    remembered = relay.taken;
                    keeping = keep(&state, &relay);
                }
            }
            received = socket.recv_from(&mut buffer) => {
                // An ICMP error about an earlier answer: none is ever sent, so it is somebody's noise.
                let Ok((length, from)) = received else { continue };
                let known = relay.refused.len();
                match relay.take(from, &buffer[..length]) {
                    Ok(datagram) => if let Err(error) = out.send_to(&datagram, to).await {
                        warn!("{to}: {error}");
                    },
                    // The first of its reason at once; the rest are told of in sum.
                    Err(why) if relay.refused.len() > known => warn!("{from}: {why}"),
                    Err(_) => {}
                }
            }
        }
    }
    for keeping in keeping.into_iter().chain(keep(&state, &relay)) {
        // That it panicked it has said itself.
        let _ = keeping.await;
    }
    info!("{relay}");
    Ok(())
}

/// That of an earlier run. One that cannot be read is an error: what came before could come again.
fn recalled(state: &Path, key: &[u8]) -> Result<Relay, Error> {
    let failed = |error: String| Error::State { file: state.to_owned(), error };
    let remembered = match fs::read(state) {
        Ok(remembered) => Some(remembered),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error.to_string())),
    };
    Relay::new(key, remembered.as_deref()).map_err(|error| failed(error.to_string()))
}

/// Whole, whatever happens: a torn one would be an error at the next start.
fn keep(state: &Path, relay: &Relay) -> Option<JoinHandle<()>> {
    let warn = |error: String| warn!("{error}: after a restart, heartbeats could come again");
    let json = match relay.remember() {
        Ok(json) => json,
        Err(error) => {
            warn(error.to_string());
            return None;
        }
    };
    let state = state.to_owned();
    Some(spawn_blocking(move || {
        let folder = state.parent().map_or(Ok(()), fs::create_dir_all);
        let written = folder.map_err(|error| format!("{}: {error}", state.display()));
        let written = written
            .and_then(|()| durable::write(&state, 0o600, &json).map_err(|error| error.to_string()));
        if let Err(error) = written {
            warn(error);
        }
    }))
}

#[cfg(test)]
mod tests {
    use agent_api::heartbeat::sealed::Sealer;

    use super::*;

    const KEY: &[u8] = b"insecure";

    fn sealer(key: &[u8], id: &str, start: u64) -> Sealer {
        Sealer::new(key, id, start, [start as u8; 32]).unwrap()
    }

    #[test]
    fn what_is_refused_is_counted() {
        let json = br#"{"id":"a"}"#;
        let mut amphora = sealer(KEY, "a", 2);
        let messages: Vec<_> = (0..100).map(|_| amphora.seal(json).unwrap()).collect();
        let flipped = |bit: usize| {
            let mut datagram = messages[99].clone();
            datagram[bit / 8] ^= 1 << (bit % 8);
            datagram
        };
        let seal = |key, id, start, json| sealer(key, id, start).seal(json).unwrap();
        let rows = [
            ("the first", messages[80].clone(), None),
            ("late", messages[50].clone(), None),
            ("replayed", messages[80].clone(), Some("replayed")),
            ("reordered beyond the window", messages[16].clone(), Some("too old")),
            ("reordered within", messages[17].clone(), None),
            ("truncated", messages[99][..60].to_vec(), Some("malformed")),
            (
                "truncated by a byte",
                messages[99][..messages[99].len() - 1].to_vec(),
                Some("not authentic"),
            ),
            ("a bit of the counter", flipped(51 * 8), Some("not authentic")),
            ("a bit of the last byte", flipped(messages[99].len() * 8 - 1), Some("not authentic")),
            ("a bit of the magic", flipped(0), Some("not sealed")),
            ("Octavia's own envelope", envelope::wrap(json, KEY).unwrap(), Some("not sealed")),
            ("another key", seal(b"other", "a", 3, json), Some("not authentic")),
            ("a message of another amphora", seal(KEY, "b", 1, json), Some("another amphora's")),
            ("a start before the last", seal(KEY, "a", 1, json), Some("of an earlier start")),
            ("no JSON", seal(KEY, "c", 1, b"{"), Some("no message")),
            ("the next", messages[99].clone(), None),
            ("the next start", seal(KEY, "a", 3, json), None),
        ];
        let from = "192.0.2.1:9".parse().unwrap();
        let mut relay = Relay::new(KEY, None).unwrap();
        let (mut taken, mut counts) = (0, BTreeMap::<&str, u64>::new());
        for (row, datagram, reason) in rows {
            let handed_on = relay.take(from, &datagram);
            assert_eq!(handed_on.as_ref().err().map(Refused::reason), reason, "{row}");
            match reason {
                Some(reason) => *counts.entry(reason).or_default() += 1,
                None => taken += 1,
            }
            if let Ok(datagram) = handed_on {
                let unwrapped = envelope::unwrap(&datagram, KEY);
                assert_eq!(unwrapped.as_deref(), Ok(&json[..]), "{row}: as Octavia takes it");
            }
        }
        let counted: BTreeMap<_, _> =
            relay.refused.iter().map(|(reason, refusals)| (*reason, refusals.count)).collect();
        assert_eq!((relay.taken, counted), (taken, counts));

        let mut again = Relay::new(KEY, Some(&relay.remember().unwrap())).unwrap();
        let replayed = again.take(from, &messages[99]);
        assert_eq!(replayed.err().map(|why| why.reason()), Some("of an earlier start"));
        again.forget("a");
        assert!(again.take(from, &messages[99]).is_ok(), "its clock went back, and that is known");
    }
}
