//! Which members of layer-4 pools are well: probes, from inside the namespace.

pub mod member;

use std::collections::BTreeMap;

pub use member::{Member, Standing, Thresholds};

/// By pool and member; of those alone that are probed.
pub type Standings = BTreeMap<(String, String), Standing>;
