//! The way to each member: route, interface, neighbour.

use std::net::IpAddr;

use super::{Facts, Finding};
use crate::net::Unreachable;

/// A member, and what is missing of the way to it.
#[derive(Clone, Debug)]
pub struct Way {
    pub member: String,
    pub address: IpAddr,
    pub way: Result<(), Unreachable>,
}

/// Named are so many of those who have the same trouble.
const NAMED_MAX: usize = 3;

pub fn ways(facts: &Facts) -> Vec<Finding> {
    let Ok(network) = &facts.network else { return Vec::new() };
    let mut troubles: Vec<(&Unreachable, Vec<&Way>)> = Vec::new();
    for way in &network.ways {
        let Err(why) = &way.way else { continue };
        match troubles.iter_mut().find(|(known, _)| *known == why) {
            Some((_, ways)) => ways.push(way),
            None => troubles.push((why, vec![way])),
        }
    }
    let reached = network.ways.iter().filter(|way| way.way.is_ok()).count();
    let ok = (reached > 0).then(|| Finding::ok("", format!("a way to {reached} members")));
    ok.into_iter().chain(troubles.iter().map(|(why, ways)| trouble(why, ways))).collect()
}

fn trouble(why: &Unreachable, ways: &[&Way]) -> Finding {
    let named = ways.iter().take(NAMED_MAX).map(|way| format!("{} ({})", way.address, way.member));
    let mut about = named.collect::<Vec<_>>().join("\n");
    if let more @ 1.. = ways.len().saturating_sub(NAMED_MAX) {
        about += &format!("\nand {more} more");
    }
    match why {
        Unreachable::Unresolved { .. } => Finding::warning(&about, why.to_string(), why.mend()),
        Unreachable::NoRoute
        | Unreachable::Forbidden
        | Unreachable::LinkGone { .. }
        | Unreachable::LinkDown { .. }
        | Unreachable::NotAttached { .. }
        | Unreachable::NotEthernet { .. }
        | Unreachable::NoSource { .. }
        | Unreachable::Silent { .. } => Finding::failure(&about, why.to_string(), why.mend()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Ok, Warning};
    use super::super::facts::tests::{inside, said, well};
    use super::*;

    fn way(last: u8, way: Result<(), Unreachable>) -> Way {
        Way { member: format!("m{last}"), address: [10, 0, 0, last].into(), way }
    }

    #[test]
    fn troubles() {
        let interface = || "eth1".to_owned();
        let next_hop = [10, 0, 0, 1].into();
        let silent = || Err(Unreachable::Silent { next_hop, interface: interface() });
        let asked = Err(Unreachable::Unresolved { next_hop, interface: interface() });
        let rows = [
            ("nobody", vec![], vec![]),
            (
                "all",
                vec![way(5, Result::Ok(())), way(6, Result::Ok(()))],
                vec![(Ok, "", "a way to 2 members")],
            ),
            (
                "one gateway for two",
                vec![way(5, silent()), way(6, silent()), way(7, Result::Ok(()))],
                vec![
                    (Ok, "", "1 members"),
                    (Failure, "10.0.0.5 (m5)\n10.0.0.6 (m6)", "Neutron port"),
                ],
            ),
            (
                "one gateway for many",
                (5..10).map(|last| way(last, silent())).collect(),
                vec![(
                    Failure,
                    "10.0.0.5 (m5)\n10.0.0.6 (m6)\n10.0.0.7 (m7)\nand 2 more",
                    "10.0.0.1 on eth1 does not answer",
                )],
            ),
            ("just asked", vec![way(5, asked)], vec![(Warning, "10.0.0.5 (m5)", "not known yet")]),
            (
                "no route, and one that forbids",
                vec![way(5, Err(Unreachable::NoRoute)), way(6, Err(Unreachable::Forbidden))],
                vec![
                    (Failure, "10.0.0.5 (m5)", "subnet_id"),
                    (Failure, "10.0.0.6 (m6)", "blackhole"),
                ],
            ),
            (
                "interfaces",
                vec![
                    way(5, Err(Unreachable::LinkDown { interface: interface() })),
                    way(6, Err(Unreachable::NotAttached { interface: interface() })),
                    way(7, Err(Unreachable::NoSource { interface: interface() })),
                    way(8, Err(Unreachable::LinkGone { ifindex: 3 })),
                    way(9, Err(Unreachable::NotEthernet { interface: interface() })),
                ],
                vec![
                    (Failure, "10.0.0.5 (m5)", "ip link set eth1 up"),
                    (Failure, "10.0.0.6 (m6)", "--interface eth1"),
                    (Failure, "10.0.0.7 (m7)", "fixed IP"),
                    (Failure, "10.0.0.8 (m8)", "failover"),
                    (Failure, "10.0.0.9 (m9)", "Ethernet"),
                ],
            ),
        ];
        for (row, ways_to, want) in rows {
            let mut facts = well();
            inside(&mut facts).ways = ways_to;
            said(&ways(&facts), &want, row);
        }
    }
}
