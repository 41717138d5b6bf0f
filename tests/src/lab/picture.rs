//! The lab drawn with characters.

use super::LabOptions;
use super::plan::{Address, BRIDGE, MTU, Node, Plan, SWITCH, VIP, VIP_NET};

pub fn draw(plan: &Plan, options: &LabOptions, prefix: &str) -> String {
    let mut picture = Picture::default();
    picture.host("", "  |", &plan.client);
    picture.line(&format!("  |{}", mtu(options.client_link_mtu)));
    picture.host("", "  |", &plan.router);
    if let Some(member) = &plan.routed_member {
        picture.host(&format!("  +--{} ", mtu(options.routed_link_mtu)), "", member);
    }
    picture.line("  |");
    picture.line(&format!("==+== {SWITCH} ({BRIDGE}) =="));
    picture.host("  +-- ", "  |   ", &plan.amphora);
    if let Some(member) = &plan.second_member {
        picture.host("  |   +-- ", "", member);
    }
    for node in plan.neighbour.iter().chain(&plan.members) {
        picture.host("  +-- ", "", node);
    }
    picture.line(&format!("namespaces: {prefix}<name>"));
    picture.text
}

#[derive(Default)]
struct Picture {
    text: String,
}

impl Picture {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// `edge` before the name, `margin` before the interfaces that follow.
    fn host(&mut self, edge: &str, margin: &str, node: &Node) {
        let mut start = format!("{edge}{}", node.name);
        for Address { dev, v4, v6, .. } in &node.addresses {
            let vip = if *v4 == VIP_NET.v4(VIP) { "  VIP" } else { "" };
            self.line(&format!("{start:<19} {dev}  {v4:<15}  {v6}{vip}"));
            start = margin.to_owned();
        }
    }
}

/// What the router lets pass into a wire, where that is less than the wire could carry.
fn mtu(mtu: u32) -> String {
    if mtu < MTU { format!(" mtu {mtu}") } else { String::new() }
}
