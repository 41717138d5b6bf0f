//! A datagram, read by whoever looks at it: also one that no receiver would take, and why it would not.

use std::fmt;

use agent_api::heartbeat::{Message, envelope, sealed};
use serde::Serialize;
use serde_json::Value;

/// What a datagram is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// Signed, for all to read.
    Octavia,
    /// Encrypted.
    Sealed,
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Heartbeat {
    pub envelope: Envelope,
    /// Why a receiver would refuse it, if so: what it says is then not to be believed.
    pub refused: Option<String>,
    pub message: Value,
}

/// Why a datagram says nothing to us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    #[error(transparent)]
    Sealed(#[from] sealed::Error),
    #[error("what is inside is no JSON: {0}")]
    NotJson(String),
}

/// Reads what amphorae of one key send, in their order.
pub struct Reader {
    key: Vec<u8>,
    /// Knows what has come already.
    opener: sealed::Opener,
}

impl Reader {
    pub fn new(key: &[u8]) -> Self {
        Self { key: key.to_owned(), opener: sealed::Opener::new(key) }
    }

    pub fn read(&mut self, datagram: &[u8]) -> Result<Heartbeat, Unread> {
        let (envelope, json, refused) = if sealed::is_sealed(datagram) {
            let (json, refused) = self.opened(datagram)?;
            (Envelope::Sealed, json, refused)
        } else {
            let (json, refused) = self.unwrapped(datagram)?;
            (Envelope::Octavia, json, refused)
        };
        let message = serde_json::from_slice(&json);
        let message = message.map_err(|error| Unread::NotJson(error.to_string()))?;
        Ok(Heartbeat { envelope, refused, message })
    }

    fn opened(&mut self, datagram: &[u8]) -> Result<(Vec<u8>, Option<String>), sealed::Error> {
        use sealed::Error::{
            Content, CounterUsedUp, EarlierStart, Id, NoKey, Replayed, TooManyAmphorae, TooOld,
            Truncated, Unauthentic, WrongMagic,
        };
        match self.opener.open(datagram) {
            Ok(opened) => Ok((opened.json, None)),
            // Authentic, and not for the first time.
            Err(
                error @ (Replayed { .. } | TooOld { .. } | EarlierStart { .. } | TooManyAmphorae),
            ) => {
                let opened = sealed::Opener::new(&self.key).open(datagram)?;
                Ok((opened.json, Some(error.to_string())))
            }
            Err(
                error @ (WrongMagic
                | Truncated { .. }
                | Id { .. }
                | NoKey
                | Unauthentic
                | CounterUsedUp
                | Content(_)),
            ) => Err(error),
        }
    }

    fn unwrapped(&self, datagram: &[u8]) -> Result<(Vec<u8>, Option<String>), envelope::Error> {
        match envelope::unwrap(datagram, &self.key) {
            Ok(json) => Ok((json, None)),
            Err(error @ envelope::Error::Signature) => {
                // Of noise, that it is not signed is all there is to say.
                let json = envelope::unverified(datagram).map_err(|_| error.clone())?;
                Ok((json, Some(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }
}

impl Heartbeat {
    /// Whose it is, as it says.
    pub fn amphora(&self) -> &str {
        self.message["id"].as_str().unwrap_or("?")
    }

    /// In our own types; none of another version than 3.
    pub fn typed(&self) -> Option<Message> {
        serde_json::from_value(self.message.clone()).ok()
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Octavia => "octavia",
            Self::Sealed => "sealed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"insecure";

    #[test]
    fn both_envelopes() {
        let json = br#"{"id":"a","seq":1}"#;
        let signed = envelope::wrap(json, KEY).unwrap();
        let seal = |key| sealed::Sealer::new(key, "a", 1, [1; 32]).unwrap().seal(json).unwrap();
        let (sealed, other) = (seal(KEY), seal(b"other"));
        let forged = envelope::wrap(json, b"other").unwrap();
        let noise = envelope::wrap(b"no json", KEY).unwrap();
        let good = |envelope| Ok((envelope, None));
        let not_good = |envelope, why: &str| Ok((envelope, Some(why.to_owned())));
        let signature = "the signature is not that of the key";
        let no_json = "expected ident at line 1 column 2".to_owned();
        let rows = [
            ("signed", &signed, good(Envelope::Octavia)),
            ("sealed", &sealed, good(Envelope::Sealed)),
            ("signed, again", &signed, good(Envelope::Octavia)),
            (
                "sealed, again",
                &sealed,
                not_good(Envelope::Sealed, "message 0 of amphora a came already"),
            ),
            ("signed with another key", &forged, not_good(Envelope::Octavia, signature)),
            ("sealed with another key", &other, Err(Unread::Sealed(sealed::Error::Unauthentic))),
            ("no JSON", &noise, Err(Unread::NotJson(no_json))),
            ("noise", &vec![7; 99], Err(Unread::Envelope(envelope::Error::Signature))),
            ("short", &vec![7; 9], Err(Unread::Envelope(envelope::Error::TooShort { bytes: 9 }))),
        ];
        let mut reader = Reader::new(KEY);
        for (row, datagram, want) in rows {
            let read = reader.read(datagram).map(|it| {
                assert_eq!(it.amphora(), "a", "{row}");
                (it.envelope, it.refused)
            });
            assert_eq!(read, want, "{row}");
        }
    }
}
