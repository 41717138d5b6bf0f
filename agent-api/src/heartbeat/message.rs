//! The message, in version 3 of Octavia's JSON (`health_daemon.py` sends it, `health_drivers/update_db.py`
//! reads it).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Every listener that is enabled, exactly once, and nothing else: the health manager counts them, and
/// an amphora whose count is wrong for a minute is failed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The amphora's. One that the health manager knows to be deleted gets its machine deleted.
    pub id: String,
    /// Counts up from 0 at the start of the agent. Nobody checks it.
    pub seq: u64,
    /// By their ids.
    pub listeners: BTreeMap<String, Listener>,
    pub pools: BTreeMap<PoolKey, Pool>,
    ver: Version,
}

/// What is said of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub status: ListenerStatus,
    pub stats: Stats,
}

/// `FULL` makes a listener and its load balancer DEGRADED. HAProxy has not said it for long: at its limit
/// it lets connections wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerStatus {
    Open,
    Full,
}

/// What a listener did. All but `conns` count from the last message on: the health manager adds them to
/// what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Bytes to the client: the API's `bytes_out`.
    pub tx: u64,
    /// Bytes from the client: the API's `bytes_in`.
    pub rx: u64,
    /// Connections that are open now.
    pub conns: u64,
    /// Connections that were opened.
    pub totconns: u64,
    /// Requests that were none; always 0 for UDP and SCTP.
    pub ereq: u64,
}

/// `pool:listener` for what HAProxy would serve, and `pool` for UDP and SCTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolKey {
    OfListener { pool: String, listener: String },
    Alone { pool: String },
}

/// What is said of a pool, as one listener uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub status: PoolStatus,
    /// By their ids. One that is left out becomes OFFLINE.
    pub members: BTreeMap<String, MemberStatus>,
}

/// Up while some member is usable, and while there is none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PoolStatus {
    Up,
    Down,
}

/// In HAProxy's words, which the health manager reads by their beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStatus {
    /// ONLINE. `UP 1/3`: it fails its checks, and so many in a row are needed.
    Up(Option<Count>),
    /// ERROR. `DOWN 1/2`: it passes its checks again.
    Down(Option<Count>),
    /// DRAINING: of weight 0, checked, and well.
    Drain,
    /// OFFLINE: disabled.
    Maint,
    /// NO_MONITOR.
    NoCheck,
    /// As before: it is not known yet.
    Restarting,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub done: u16,
    pub of: u16,
}

/// Always 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Version;

const VERSION: u64 = 3;

impl Message {
    /// Of version 3; `seq` is the number of messages before it.
    pub fn new(
        id: String,
        seq: u64,
        listeners: BTreeMap<String, Listener>,
        pools: BTreeMap<PoolKey, Pool>,
    ) -> Self {
        Self { id, seq, listeners, pools, ver: Version }
    }

    /// In the order of the ids, so that equal messages are equal bytes. Fails only where serde does.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Only of version 3; what else amphorae send, or sent once, is for [`serde_json::Value`].
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(VERSION)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u64::deserialize(from)? {
            VERSION => Ok(Self),
            other => Err(D::Error::custom(format!("version {other} is not {VERSION}"))),
        }
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfListener { pool, listener } => write!(f, "{pool}:{listener}"),
            Self::Alone { pool } => f.write_str(pool),
        }
    }
}

impl fmt::Display for ListenerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "OPEN",
            Self::Full => "FULL",
        })
    }
}

impl fmt::Display for PoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
        })
    }
}

impl fmt::Display for MemberStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |f: &mut fmt::Formatter<'_>, word, count: &Option<Count>| match count {
            Some(Count { done, of }) => write!(f, "{word} {done}/{of}"),
            None => f.write_str(word),
        };
        match self {
            Self::Up(count) => counted(f, "UP", count),
            Self::Down(count) => counted(f, "DOWN", count),
            Self::Drain => f.write_str("DRAIN"),
            Self::Maint => f.write_str("MAINT"),
            Self::NoCheck => f.write_str("no check"),
            Self::Restarting => f.write_str("RESTARTING"),
        }
    }
}

impl Serialize for PoolKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PoolKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Ok(match text.split_once(':') {
            Some((pool, listener)) => {
                Self::OfListener { pool: pool.to_owned(), listener: listener.to_owned() }
            }
            None => Self::Alone { pool: text },
        })
    }
}

impl Serialize for MemberStatus {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemberStatus {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let unknown = || D::Error::custom(format!("{text:?} is no status of a member"));
        let (word, count) = match text.split_once(' ') {
            Some((word @ ("UP" | "DOWN"), count)) => {
                let (done, of) = count.split_once('/').ok_or_else(unknown)?;
                let count = done.parse().ok().zip(of.parse().ok());
                let (done, of) = count.ok_or_else(unknown)?;
                (word, Some(Count { done, of }))
            }
            _ => (&text[..], None),
        };
        match word {
            "UP" => Ok(Self::Up(count)),
            "DOWN" => Ok(Self::Down(count)),
            "DRAIN" => Ok(Self::Drain),
            "MAINT" => Ok(Self::Maint),
            "no check" => Ok(Self::NoCheck),
            "RESTARTING" => Ok(Self::Restarting),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each() {
        let member = |id: &str, status| (id.to_owned(), status);
        let count = Some(Count { done: 1, of: 3 });
        let members = [
            member("a", MemberStatus::Up(None)),
            member("b", MemberStatus::Up(count)),
            member("c", MemberStatus::Down(None)),
            member("d", MemberStatus::Down(count)),
            member("e", MemberStatus::Drain),
            member("f", MemberStatus::Maint),
            member("g", MemberStatus::NoCheck),
            member("h", MemberStatus::Restarting),
        ];
        let key = |pool: &str, listener: &str| PoolKey::OfListener {
            pool: pool.to_owned(),
            listener: listener.to_owned(),
        };
        let stats = Stats { tx: 1, rx: 2, conns: 3, totconns: 4, ereq: 5 };
        let message = Message::new(
            "amphora".to_owned(),
            7,
            [
                ("l".to_owned(), Listener { status: ListenerStatus::Open, stats }),
                (
                    "m".to_owned(),
                    Listener { status: ListenerStatus::Full, stats: Stats::default() },
                ),
            ]
            .into(),
            [
                (key("p", "l"), Pool { status: PoolStatus::Up, members: members.into() }),
                (
                    PoolKey::Alone { pool: "q".to_owned() },
                    Pool { status: PoolStatus::Down, members: BTreeMap::new() },
                ),
            ]
            .into(),
        );
        let want = serde_json::json!({
            "id": "amphora",
            "seq": 7,
            "ver": 3,
            "listeners": {
                "l": {"status": "OPEN", "stats": {"tx": 1, "rx": 2, "conns": 3, "totconns": 4, "ereq": 5}},
                "m": {"status": "FULL", "stats": {"tx": 0, "rx": 0, "conns": 0, "totconns": 0, "ereq": 0}},
            },
            "pools": {
                "p:l": {"status": "UP", "members": {
                    "a": "UP", "b": "UP 1/3", "c": "DOWN", "d": "DOWN 1/3", "e": "DRAIN", "f": "MAINT",
                    "g": "no check", "h": "RESTARTING",
                }},
                "q": {"status": "DOWN", "members": {}},
            },
        });
        let json = message.to_json().unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap(), want);
        assert_eq!(Message::from_json(&json).unwrap(), message);
    }

    #[test]
    fn refused() {
        let message = |ver: &str, status: &str| {
            format!(
                r#"{{"id":"a","seq":0,"ver":{ver},"listeners":{{}},
                    "pools":{{"p":{{"status":"UP","members":{{"m":"{status}"}}}}}}}}"#
            )
        };
        let rows = [
            ("good", message("3", "UP"), true),
            ("an older version", message("2", "UP"), false),
            ("a version in quotes", message("\"3\"", "UP"), false),
            ("in lower case", message("3", "up"), false),
            ("half a count", message("3", "UP 1"), false),
            ("no count", message("3", "UP x/y"), false),
            ("too large a count", message("3", "UP 1/65536"), false),
            ("empty", message("3", ""), false),
        ];
        for (row, json, good) in rows {
            assert_eq!(Message::from_json(json.as_bytes()).is_ok(), good, "{row}");
        }
    }
}
