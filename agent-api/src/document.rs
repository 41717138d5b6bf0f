//! What the door was told that stands in no uploaded file, and the proof of those files.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::names::ObjectId;
use crate::original::Original;
use crate::plug::{Mac, NetworkPlug, VipPlug};
use crate::rules::Rule;

/// Kept as JSON in `BASE/xdp-lb.json`, 0600; equal documents are the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Of the format: [`VERSION`].
    version: u32,
    pub plugs: Plugs,
    /// Load balancers, and UDP and SCTP listeners, that were stopped on request and stay so after a
    /// restart.
    pub stopped: BTreeSet<ObjectId>,
    /// The uploaded configurations that are in force. The store's own.
    pub(crate) originals: BTreeMap<Original, Proof>,
}

/// The interfaces, as the controller described them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugs {
    /// `POST /plug/vip`; None until then.
    pub vip: Option<VipPlug>,
    /// `POST /plug/network`, the last one of each MAC address.
    pub networks: BTreeMap<Mac, NetworkPlug>,
    /// `PUT /interface/<ip>/rules`; None until then.
    pub rules: Option<Vec<Rule>>,
}

/// What an uploaded configuration must look like for its file to be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proof {
    pub bytes: usize,
    /// In hex.
    pub sha256: String,
    /// That of the upload before it, which is kept as `NAME.last`. None for the first.
    pub before_sha256: Option<String>,
}

/// The format that [`Document::from_json`] reads.
pub const VERSION: u32 = 1;

/// Why there is no document in a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("is not a document: {0}")]
    Form(#[from] serde_json::Error),
    #[error("is of format {0}, and this program knows {VERSION}")]
    Version(u32),
}

impl Default for Document {
    fn default() -> Self {
        Self {
            version: VERSION,
            plugs: Plugs::default(),
            stopped: BTreeSet::new(),
            originals: BTreeMap::new(),
        }
    }
}

impl Document {
    /// From the content of the file, whole and of this version.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        /// Another format may differ in all the rest.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        match serde_json::from_slice(json)? {
            Head { version: VERSION } => Ok(serde_json::from_slice(json)?),
            Head { version } => Err(Error::Version(version)),
        }
    }

    /// For the file, with a line end. Fails only where serde does.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Of an original that is gone, nothing stays: an object of the same id would be another one.
    pub(crate) fn forget(&mut self, original: &Original) {
        self.originals.remove(original);
        if let Some(id) = original.id() {
            self.stopped.remove(id);
        }
    }
}

impl Proof {
    pub fn new(content: &[u8], before_sha256: Option<String>) -> Self {
        Self { bytes: content.len(), sha256: sha256_hex(content), before_sha256 }
    }

    pub fn is_of(&self, content: &[u8]) -> bool {
        self.sha256 == sha256_hex(content)
    }

    /// Whether that is the upload, or the one before it.
    pub fn is_of_either(&self, content: &[u8]) -> bool {
        let sha256 = sha256_hex(content);
        self.sha256 == sha256 || self.before_sha256.as_ref() == Some(&sha256)
    }
}

pub(crate) fn sha256_hex(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::of_mtu;
    use crate::rules;

    fn full() -> Document {
        let id = |text: &str| ObjectId::try_from(text.to_owned()).unwrap();
        let mut document = Document::default();
        let vip = of_mtu(1500);
        let network =
            NetworkPlug { mac: vip.mac, mtu: Some(1450), addresses: None, sriov: true, vip: None };
        document.plugs.networks.insert(vip.mac, network);
        document.plugs.vip = Some(vip);
        let rule = r#"[{ "protocol": "vrrp", "cidr": "10.0.0.12/32", "port": 112 }]"#;
        document.plugs.rules = Some(rules::from_json(rule.as_bytes()).unwrap());
        document.stopped.insert(id("u"));
        document.originals.insert(Original::Vrrp, Proof::new(b"", Some("00".to_owned())));
        document.originals.insert(Original::Haproxy(id("x")), Proof::new(b"abc", None));
        document
    }

    /// What is on disks out there: a change here is another version.
    const FULL: &str = r#"{
  "version": 1,
  "plugs": {
    "vip": {
      "mac": "fa:16:3e:00:00:01",
      "mtu": 1500,
      "own": null,
      "vips": [],
      "sriov": false
    },
    "networks": {
      "fa:16:3e:00:00:01": {
        "mac": "fa:16:3e:00:00:01",
        "mtu": 1450,
        "addresses": null,
        "sriov": true,
        "vip": null
      }
    },
    "rules": [
      {
        "protocol": "vrrp",
        "cidr": "10.0.0.12/32",
        "port": 112
      }
    ]
  },
  "stopped": [
    "u"
  ],
  "originals": {
    "x/haproxy.cfg": {
      "bytes": 3,
      "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      "before_sha256": null
    },
    "vrrp/octavia-keepalived.conf": {
      "bytes": 0,
      "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "before_sha256": "00"
    }
  }
}
"#;

    #[test]
    fn format() {
        assert_eq!(String::from_utf8(full().to_json().unwrap()).unwrap(), FULL);
        assert_eq!(Document::from_json(FULL.as_bytes()).unwrap(), full());
    }

    #[test]
    fn refused() {
        let rows = [
            ("empty", String::new(), "is not a document: EOF"),
            ("not an object", "[]".to_owned(), "is not a document: invalid"),
            ("more behind it", FULL.to_owned() + "{", "is not a document: trailing characters"),
            ("no version", FULL.replace("version", "v"), "is not a document: missing field"),
            ("a later version", FULL.replace(": 1,", ": 2,"), "is of format 2, and this program"),
            (
                "a later version of another shape",
                r#"{ "version": 2, "more": {} }"#.to_owned(),
                "is of format 2, and this program",
            ),
            ("an unknown key", FULL.replace("plugs", "plug"), "is not a document: unknown field"),
            ("a path upwards", FULL.replace("x/", "../"), "is not a document: \"../haproxy.cfg\""),
            ("a bad id", FULL.replace("\"u\"", "\"..\""), "is not a document: id \"..\""),
        ];
        for (row, json, want) in rows {
            let error = Document::from_json(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(want), "{row}: {error}");
        }
    }

    #[test]
    fn forgets() {
        let mut document = full();
        document.forget(&Original::Lvs(ObjectId::try_from("u".to_owned()).unwrap()));
        document.forget(&Original::Vrrp);
        let mut want = full();
        want.stopped.clear();
        want.originals.remove(&Original::Vrrp);
        assert_eq!(document, want);
    }
}
