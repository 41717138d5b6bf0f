//! What the door was told that stands in no file of the controller's, and which files it accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::names::ObjectId;
use crate::plug::{Mac, NetworkPlug, VipPlug};
use crate::rules::Rule;

/// Kept as JSON in `BASE/xdp-lb.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Of this format.
    pub version: u32,
    pub plugs: Plugs,
    /// Objects that were stopped on request, and stay so after a restart.
    pub stopped: BTreeSet<ObjectId>,
    /// Uploaded originals by their path below the base, and the SHA-256 of each in hex: a file that was
    /// torn by a crash is told from one that is whole.
    pub originals: BTreeMap<PathBuf, String>,
}

/// The interfaces, as the controller described them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugs {
    pub vip: Option<VipPlug>,
    pub networks: BTreeMap<Mac, NetworkPlug>,
    /// None where none were told: then nothing is guarded.
    pub rules: Option<Vec<Rule>>,
}

/// What [`Document::version`] is.
pub const VERSION: u32 = 1;

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

/// Why there is no document in a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is not whole: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it is of version {0}, and this knows {VERSION}")]
    Version(u32),
}

impl Document {
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let document: Self = serde_json::from_slice(json)?;
        match document.version {
            VERSION => Ok(document),
            other => Err(Error::Version(other)),
        }
    }

    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}

/// How an original is known in [`Document::originals`].
pub fn digest(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}
