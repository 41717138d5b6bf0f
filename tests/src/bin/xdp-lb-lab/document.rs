//! The `lb.toml` of the lab: one TCP and one UDP listener, each on a VIP of both families.

use std::fmt::Write;
use std::net::IpAddr;

use xdp_lb_tests::lab::{Family, Lab};

pub const HTTP: u16 = 80;
pub const UDP: u16 = 53;

/// Share of new connections of each member, in the order of the lab.
pub const WEIGHTS: [u16; 3] = [1, 1, 2];

/// `out` is the name of a member that is disabled.
pub fn document(name: &str, lab: &Lab, out: Option<&str>) -> String {
    let ip = |family| lab.vip(family, 0).ip();
    let vips = format!("vips = [\"{}\", \"{}\"]", ip(Family::V4), ip(Family::V6));
    let mut text = format!("name = \"{name}\"\n");
    let kinds = [("http", "tcp", HTTP, "round_robin"), ("dns", "udp", UDP, "source_ip_port")];
    for (id, protocol, port, _) in kinds {
        text += &format!(
            "\n[[listener]]\nid = \"{id}\"\n{vips}\nport = {port}\nprotocol = \"{protocol}\"\n\
             pool = \"{id}\"\n"
        );
    }
    for (pool, _, port, algorithm) in kinds {
        text += &format!("\n[[pool]]\nid = \"{pool}\"\nalgorithm = \"{algorithm}\"\nmember = [\n");
        for (member, weight) in lab.members.iter().zip(WEIGHTS) {
            for (suffix, address) in [("", IpAddr::from(member.v4)), ("-v6", member.v6.into())] {
                let id = format!("{pool}-{}{suffix}", member.name);
                let enabled = if out == Some(&member.name) { ", enabled = false" } else { "" };
                // A `String` takes whatever is written.
                let _ = writeln!(
                    text,
                    "  {{ id = \"{id}\", address = \"{address}\", port = {port}, \
                     weight = {weight}{enabled} }},"
                );
            }
        }
        text += "]\n";
    }
    text
}
