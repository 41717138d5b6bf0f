//! The configurations that Octavia uploads, each kept as it came.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names::ObjectId;
use crate::paths::Paths;

/// One of them. Written as its path below Octavia's `base_path`.
///
/// Not a certificate: those are on a RAM disk, which a reboot clears.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Original {
    /// The HAProxy configuration of this load balancer.
    Haproxy(ObjectId),
    /// The keepalived configuration of this UDP or SCTP listener.
    Lvs(ObjectId),
    /// The keepalived configuration of VRRP.
    Vrrp,
}

/// A path that is none of an original.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the path of an uploaded configuration")]
pub struct BadPath(pub String);

impl Original {
    pub fn path(&self, paths: &Paths) -> PathBuf {
        match self {
            Self::Haproxy(id) => paths.haproxy(id.as_str()),
            Self::Lvs(id) => paths.lvs(id.as_str()),
            Self::Vrrp => paths.vrrp(),
        }
    }

    /// Mode of its file, as the stock agent has it.
    pub fn mode(&self) -> u32 {
        match self {
            Self::Haproxy(_) => 0o600,
            Self::Lvs(_) | Self::Vrrp => 0o644,
        }
    }

    /// The object that it describes; VRRP is none.
    pub fn id(&self) -> Option<&ObjectId> {
        match self {
            Self::Haproxy(id) | Self::Lvs(id) => Some(id),
            Self::Vrrp => None,
        }
    }
}

impl TryFrom<String> for Original {
    type Error = BadPath;

    fn try_from(path: String) -> Result<Self, BadPath> {
        let id = |text: &str| ObjectId::try_from(text.to_owned()).ok();
        let lvs = path.strip_prefix("lvs/octavia-keepalivedlvs-");
        let found = if path == "vrrp/octavia-keepalived.conf" {
            Some(Self::Vrrp)
        } else if let Some(name) = lvs.and_then(|name| name.strip_suffix(".conf")) {
            id(name).map(Self::Lvs)
        } else {
            path.strip_suffix("/haproxy.cfg").and_then(id).map(Self::Haproxy)
        };
        found.ok_or(BadPath(path))
    }
}

impl fmt::Display for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path(&Paths::new("", "")).display().fmt(f)
    }
}

impl From<Original> for String {
    fn from(original: Original) -> Self {
        original.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let id = || ObjectId::try_from("x".to_owned()).unwrap();
        let rows = [
            ("x/haproxy.cfg", Some(Original::Haproxy(id()))),
            ("lvs/octavia-keepalivedlvs-x.conf", Some(Original::Lvs(id()))),
            ("vrrp/octavia-keepalived.conf", Some(Original::Vrrp)),
            ("", None),
            ("haproxy.cfg", None),
            ("/haproxy.cfg", None),
            ("../haproxy.cfg", None),
            ("/x/haproxy.cfg", None),
            ("a/b/haproxy.cfg", None),
            ("lvs/haproxy.cfg", None),
            ("x/haproxy.cfg.last", None),
            ("lvs/octavia-keepalivedlvs-.conf", None),
            ("lvs/octavia-keepalivedlvs-../x.conf", None),
            ("lvs/octavia-keepalivedlvs-x.pid", None),
            ("vrrp/octavia-keepalived.pid", None),
        ];
        for (path, want) in rows {
            let found = Original::try_from(path.to_owned());
            assert_eq!(found.clone().ok(), want, "{path}");
            if let Ok(original) = found {
                assert_eq!(original.to_string(), path);
                let below = PathBuf::from("/base").join(path);
                assert_eq!(original.path(&Paths::new("/base", "/certs")), below);
            }
        }
    }
}
