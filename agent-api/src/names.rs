//! Names that come from a URL and become those of files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The id of a load balancer or of a UDP or SCTP listener: 1 to 64 of `A-Z a-z 0-9 _ -`.
///
/// Octavia's are UUIDs. The names of the directories beside those of load balancers are nobody's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId(String);

/// The file name of a certificate, CA, CRL or list of certificates: 1 to 128 of `A-Z a-z 0-9 . _ -`, no
/// dot in front, and `.pem` at the end.
///
/// The stock agent looks for a letter, any character, and `pem`, anywhere
/// (`amphora_agent/loadbalancer.py`); Octavia's names are a digest or a UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("{0:?} is not 1 to {ID_MAX} of A-Z, a-z, 0-9, _ and -")]
    Id(String),
    #[error("{0:?} is not the name of a .pem file")]
    Certificate(String),
}

const ID_MAX: usize = 64;
const TAKEN: [&str; 3] = ["certs", "lvs", "vrrp"];
const FILE_MAX: usize = 128;

impl TryFrom<String> for ObjectId {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let fits = (1..=ID_MAX).contains(&text.len()) && text.bytes().all(known);
        if fits && !TAKEN.contains(&&text[..]) { Ok(Self(text)) } else { Err(BadName::Id(text)) }
    }
}

impl TryFrom<String> for CertificateName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let stem = text.strip_suffix(".pem").unwrap_or_default();
        let fits = !stem.is_empty() && !stem.starts_with('.') && text.len() <= FILE_MAX;
        if fits && text.bytes().all(known) {
            Ok(Self(text))
        } else {
            Err(BadName::Certificate(text))
        }
    }
}

impl ObjectId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CertificateName {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let long = "a".repeat(65);
        let rows = [
            ("a uuid", "40c52c12-68e1-5926-83e7-88107bce47cb", true),
            ("a letter", "x", true),
            ("empty", "", false),
            ("too long", &long, false),
            ("a dot", ".", false),
            ("its parent", "..", false),
            ("a path", "a/b", false),
            ("NUL", "a\0", false),
            ("a blank", "a b", false),
            ("two bytes", "\u{e9}", false),
            ("a directory of ours", "lvs", false),
        ];
        for (row, text, good) in rows {
            assert_eq!(ObjectId::try_from(text.to_owned()).is_ok(), good, "{row}");
        }
    }

    #[test]
    fn certificates() {
        let long = format!("{}.pem", "a".repeat(125));
        let rows = [
            ("a digest", "9965834d856a7e24459522af0b91df69323947b3.pem", true),
            ("a uuid", "40c52c12-68e1-5926-83e7-88107bce47cb.pem", true),
            ("two dots", "a.b.pem", true),
            ("another ending", "a.crt", false),
            ("more behind it", "a.pem.sh", false),
            ("nothing before it", ".pem", false),
            ("hidden", ".a.pem", false),
            ("a path", "a/b.pem", false),
            ("up", "../b.pem", false),
            ("NUL", "a\0.pem", false),
            ("too long", &long, false),
        ];
        for (row, text, good) in rows {
            assert_eq!(CertificateName::try_from(text.to_owned()).is_ok(), good, "{row}");
        }
    }
}
