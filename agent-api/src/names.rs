//! Names that come from the path of a request, and become those of files.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::ID_BYTES_MAX;

/// Octavia's id of a load balancer, or of a UDP or SCTP listener: 1 to 64 of `A-Z a-z 0-9 _ -`.
///
/// UUIDs, but for probes such as `x`. Not the name of a directory that stands beside those of load
/// balancers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId(String);

/// The file name of a certificate, CA, CRL or list of certificates: 1 to 64 of `A-Z a-z 0-9 . _ -`,
/// without a dot in front, that end in a letter, digit or `_` and `.pem`.
///
/// The stock agent searches for `(\w.)+pem`, which this always has (`api_server/loadbalancer.py`).
/// Octavia's own names are a SHA-1 or a UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName(String);

/// Why a text is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("id {0:?} is not 1 to {ID_BYTES_MAX} of A-Z, a-z, 0-9, _ and -")]
    Id(String),
    #[error("id {0:?} is the name of a directory")]
    Taken(String),
    #[error("file name {0:?} is not 1 to {ID_BYTES_MAX} of A-Z, a-z, 0-9, ., _ and -, then .pem")]
    Certificate(String),
}

/// What Octavia keeps in its base path beside the directories of load balancers.
const TAKEN: [&str; 3] = ["certs", "lvs", "vrrp"];

impl TryFrom<String> for ObjectId {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        let fits = (1..=ID_BYTES_MAX).contains(&text.len());
        if !fits || !text.bytes().all(|byte| is_word(byte) || byte == b'-') {
            return Err(BadName::Id(text));
        }
        if TAKEN.contains(&text.as_str()) { Err(BadName::Taken(text)) } else { Ok(Self(text)) }
    }
}

impl TryFrom<String> for CertificateName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        let stem = text.strip_suffix(".pem").unwrap_or_default();
        let ends = stem.bytes().next_back().is_some_and(is_word) && !stem.starts_with('.');
        let known = stem.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
        if ends && known && text.len() <= ID_BYTES_MAX {
            Ok(Self(text))
        } else {
            Err(BadName::Certificate(text))
        }
    }
}

impl ObjectId {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CertificateName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `\w` of the stock agent's expression, as far as ASCII goes.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let (full, long) = ("a".repeat(64), "a".repeat(65));
        let rows = [
            ("a UUID", "40c52c12-68e1-5926-83e7-88107bce47cb", Ok(())),
            ("a letter", "x", Ok(())),
            ("all kinds", "-_Az09", Ok(())),
            ("as long as may be", &full, Ok(())),
            ("longer", &long, Err(BadName::Id(long.clone()))),
            ("empty", "", Err(BadName::Id(String::new()))),
            ("a dot", ".", Err(BadName::Id(".".to_owned()))),
            ("up", "..", Err(BadName::Id("..".to_owned()))),
            ("a file", "xdp-lb.json", Err(BadName::Id("xdp-lb.json".to_owned()))),
            ("a path", "a/b", Err(BadName::Id("a/b".to_owned()))),
            ("from the root", "/etc", Err(BadName::Id("/etc".to_owned()))),
            ("NUL", "a\0", Err(BadName::Id("a\0".to_owned()))),
            ("a line", "a\n", Err(BadName::Id("a\n".to_owned()))),
            ("a blank", "a b", Err(BadName::Id("a b".to_owned()))),
            ("an escape", "%2e%2e", Err(BadName::Id("%2e%2e".to_owned()))),
            ("not ASCII", "\u{e9}", Err(BadName::Id("\u{e9}".to_owned()))),
            ("the certificates", "certs", Err(BadName::Taken("certs".to_owned()))),
            ("UDP", "lvs", Err(BadName::Taken("lvs".to_owned()))),
            ("VRRP", "vrrp", Err(BadName::Taken("vrrp".to_owned()))),
        ];
        for (row, text, want) in rows {
            let id = ObjectId::try_from(text.to_owned());
            assert_eq!(id.map(|id| assert_eq!(id.as_str(), text)), want, "{row}");
        }
    }

    #[test]
    fn certificates() {
        let (full, long) = ("a".repeat(60) + ".pem", "a".repeat(61) + ".pem");
        let rows = [
            ("a digest", "9965834d856a7e24459522af0b91df69323947b3.pem", true),
            ("a UUID", "562f87d9-a8cc-5458-92fd-06905372adbe.pem", true),
            ("a letter", "a.pem", true),
            ("dots", "a.b..c.pem", true),
            ("twice", "a.pem.pem", true),
            ("a dash in front", "-a.pem", true),
            ("as long as may be", &full, true),
            ("longer", &long, false),
            ("empty", "", false),
            ("the ending alone", ".pem", false),
            ("hidden", ".a.pem", false),
            ("no word before the ending", "a-.pem", false),
            ("a dot before the ending", "a..pem", false),
            ("another ending", "a.crt", false),
            ("more behind it", "a.pem.sh", false),
            ("what the stock agent takes", "axpem", false),
            ("a line behind it", "a.pem\n", false),
            ("a path", "a/b.pem", false),
            ("up", "../b.pem", false),
            ("NUL", "a\0b.pem", false),
            ("a blank", "a b.pem", false),
            ("not ASCII", "\u{e9}.pem", false),
        ];
        for (row, text, good) in rows {
            let want = match good {
                true => Ok(CertificateName(text.to_owned())),
                false => Err(BadName::Certificate(text.to_owned())),
            };
            assert_eq!(CertificateName::try_from(text.to_owned()), want, "{row}");
        }
    }
}
