//! All rows.

mod foreign;
mod forward;
mod fragments;
mod icmp;
mod limits;
mod local;
mod malformed;
mod ports;
mod refused;
mod reset;
mod select;
mod truncated;

use super::frame::{SCTP, TCP, UDP};
use super::world::{FAMILIES, Family, Flow};
use super::{Row, Step, sent};

pub fn all() -> Vec<Row> {
    let parts = [
        forward::rows(),
        ports::rows(),
        select::rows(),
        limits::rows(),
        refused::rows(),
        reset::rows(),
        icmp::rows(),
        fragments::rows(),
        foreign::rows(),
        local::rows(),
        malformed::rows(),
        truncated::rows(),
    ];
    parts.into_iter().flatten().collect()
}

const PROTOS: [(&str, u8); 3] = [("tcp", TCP), ("udp", UDP), ("sctp", SCTP)];

fn each() -> impl Iterator<Item = (Family, &'static str, u8)> {
    FAMILIES.into_iter().flat_map(|family| PROTOS.map(|(name, proto)| (family, name, proto)))
}

/// The client has spoken.
fn opened(flow: Flow) -> Vec<Step> {
    vec![sent(flow.sent(flow.opening()))]
}

/// The member has answered.
fn answered(flow: Flow) -> Vec<Step> {
    [opened(flow), vec![sent(flow.answered(flow.answer()))]].concat()
}

/// The client has answered that.
fn established(flow: Flow) -> Vec<Step> {
    [answered(flow), vec![sent(flow.sent(flow.confirmation()))]].concat()
}
