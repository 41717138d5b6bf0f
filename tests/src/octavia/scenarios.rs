//! What users of Octavia do with load balancers, from the call to the traffic: the same for every kind of
//! amphorae, whether it is tested or compared.

mod failover;
mod listeners;
mod members;
mod monitors;
mod protocols;

use anyhow::Result;

use super::balancer::Run;

/// One thing that must work. It ends with nothing left.
pub struct Scenario {
    pub name: &'static str,
    pub group: Group,
    pub run: fn(&Run<'_>) -> Result<()>,
}

/// Scenarios that are tested one after the other, on a stack of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Protocols,
    Members,
    Monitors,
    Listeners,
    Failover,
    Pair,
}

pub fn all() -> impl Iterator<Item = &'static Scenario> {
    let parts: [&[Scenario]; 5] = [
        &protocols::SCENARIOS,
        &members::SCENARIOS,
        &monitors::SCENARIOS,
        &listeners::SCENARIOS,
        &failover::SCENARIOS,
    ];
    parts.into_iter().flatten()
}

const fn scenario(name: &'static str, group: Group, run: fn(&Run<'_>) -> Result<()>) -> Scenario {
    Scenario { name, group, run }
}
