//! Where members stand, for the next start: a member that is down stays down over it.
//!
//! What HAProxy does by its `server-state-file`, without which each restart would send clients to members
//! that are known to be ill. Not over a boot: it is in `/run`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use agent_api::{Monitor, durable};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Standings;
use super::member::{Member, Standing};
use super::schedule::Known;
use super::target::{Manner, Target};
use crate::volatile;

/// By pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept(BTreeMap<String, KeptPool>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptPool {
    manner: Manner,
    monitor: Monitor,
    members: BTreeMap<String, KeptMember>,
}

/// A member as its probes saw it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMember {
    serves_at: SocketAddr,
    at: SocketAddr,
    pub member: Member,
    /// Why it is down.
    pub why: Option<String>,
}

impl Kept {
    pub fn of<'a>(members: impl Iterator<Item = (&'a Target, Member, Option<String>)>) -> Self {
        let mut kept = Self::default();
        for (target, member, why) in members {
            let (pool, id) = &target.name;
            let pool = kept.0.entry(pool.clone()).or_insert_with(|| KeptPool {
                manner: target.manner,
                monitor: Monitor::clone(&target.monitor),
                members: BTreeMap::new(),
            });
            pool.members.insert(
                id.clone(),
                KeptMember { serves_at: target.serves_at, at: target.at, member, why },
            );
        }
        kept
    }

    /// What is known of a member. If it was probed elsewhere or otherwise, that it was down, if so; of
    /// one that serves elsewhere nothing.
    pub fn find(&self, target: &Target) -> Option<Known> {
        let (pool, id) = &target.name;
        let pool = self.0.get(pool)?;
        let KeptMember { serves_at, at, member, why } = pool.members.get(id)?;
        let is_same = (pool.manner, *at) == (target.manner, target.at)
            && pool.monitor.probe == target.monitor.probe;
        match member {
            member if is_same => Some((*member, why.clone())),
            Member::Down { .. } if *serves_at == target.serves_at => {
                Some((Member::Down { passed: 0 }, why.clone()))
            }
            Member::Down { .. } | Member::Up { .. } => None,
        }
    }

    pub fn standings(&self) -> Standings {
        let pools = self.0.iter().flat_map(|(pool, kept)| {
            let thresholds = kept.manner.thresholds(&kept.monitor);
            let members = kept.members.iter();
            members.map(move |(id, kept)| {
                ((pool.clone(), id.clone()), Standing { member: kept.member, thresholds })
            })
        });
        pools.collect()
    }

    /// Nothing where there is no file, or none that is understood: then all members begin anew.
    pub fn read(path: &Path) -> Self {
        let parsed = match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| error.to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        };
        parsed.unwrap_or_else(|why| {
            warn!("{}: {why}; all members count as up", path.display());
            Self::default()
        })
    }

    /// A reader finds the old one or the new one, whole.
    pub fn write(&self, path: &Path) -> Result<(), durable::Error> {
        let json = serde_json::to_vec(self);
        let json = json.map_err(|error| durable::Error {
            path: path.to_owned(),
            doing: "write",
            error: error.into(),
        })?;
        volatile::write(path, 0o644, &json)
    }
}
