//! Who may reach the VIPs where they are on a virtual function of the host's NIC, which no security
//! group of Neutron stands in front of (Octavia 19 `nftable_utils.py`).
//!
//! The rules hold twice: nftables guards what the kernel serves, and [`allowed`] is for the packet
//! path, which comes before it.

use std::fmt::Write;
use std::fs::File;
use std::process::Command;
use std::time::Duration;

use agent_api::amphora::Failed;
use agent_api::rules::{self, Rule};
use agent_api::{IpNet, Protocol};

use crate::child;

/// Takes the table out if it is there: naming it makes it.
const WITHOUT: &str = "table inet amphora_table {}\ndelete table inet amphora_table\n";

/// Paths of MTU, neighbours, and answers of DHCP.
const NEEDED: &str = "    icmp type destination-unreachable accept
    icmpv6 type { nd-neighbor-solicit, nd-router-advert, nd-neighbor-advert, packet-too-big, \
     destination-unreachable } accept
    udp sport 67 udp dport 68 accept
    udp sport 547 udp dport 546 accept
";
/// Connections of our own, and what we say to ourselves.
const OWN: &str = "    ct state vmap { established : accept, related : accept, invalid : drop }
    iif lo accept
    ip saddr 127.0.0.0/8 drop
    ip6 saddr ::1 drop
";

/// VRRP has a protocol of its own.
const VRRP: u8 = 112;
const NFT: &str = "nft";
const PATIENCE: Duration = Duration::from_secs(10);

/// For `nft -f -` in the namespace: in place of the table that is there, at once or not at all.
///
/// No rules at all, as before the controller has sent any, let nothing in but what an interface
/// needs. An empty list lets also answers in. Rules are of `interface` alone.
///
/// Where the stock agent fails or ignores them, it is what they mean: rules are in force from the
/// first time on, an empty list too, and VRRP of IPv6 is let in (`ip6 saddr` beside `ip protocol`
/// is a contradiction for nft).
pub fn ruleset(interface: &str, rules: Option<&[Rule]>) -> String {
    let mut text = format!(
        "{WITHOUT}table inet amphora_table {{\n  chain amphora_chain {{\n    \
         type filter hook input priority filter; policy drop;\n"
    );
    let Some(rules) = rules else { return text + NEEDED + "  }\n}\n" };
    text += OWN;
    text += NEEDED;
    // Writing into a string does not fail, here and below.
    let _ = writeln!(text, "    iifname \"{interface}\" goto amphora_vip_chain\n  }}");
    text += "  chain amphora_vip_chain {\n";
    for rule in rules {
        let _ = writeln!(text, "    {}accept", condition(rule));
    }
    text + "  }\n}\n"
}

/// For `nft -f -`: where the VIP is no virtual function (any more).
pub fn off() -> &'static str {
    WITHOUT
}

/// Gives nft a ruleset, in the namespace.
pub fn load(namespace: &File, ruleset: &str) -> Result<(), Failed> {
    let mut nft = Command::new(NFT);
    let loaded = child::run(Some(namespace), nft.args(["-f", "-"]), ruleset.as_bytes(), PATIENCE);
    Ok(loaded.map(drop)?)
}

/// What the packet path lets in for a listener: none where no rule is of it, and it is not to be
/// served; everybody where the networks are empty.
pub fn allowed(rules: &[Rule], protocol: Protocol, port: u16) -> Option<Vec<IpNet>> {
    let of_it = |rule: &&Rule| forwarded(rule.protocol) == Some(protocol) && rule.port == port;
    let mut networks = Vec::new();
    for rule in rules.iter().filter(of_it) {
        match bounds(rule) {
            None => return Some(Vec::new()),
            Some(network) if !networks.contains(&network) => networks.push(network),
            Some(_) => {}
        }
    }
    if networks.is_empty() { None } else { Some(networks) }
}

/// Whence, if that is not from anywhere. `0.0.0.0/0` is from anywhere, over IPv6 too, as in a stock
/// amphora; `::/0` is all of IPv6.
fn bounds(rule: &Rule) -> Option<IpNet> {
    rule.cidr.filter(|cidr| !matches!(cidr, IpNet::V4(cidr) if cidr.prefix_len() == 0))
}

fn forwarded(protocol: rules::Protocol) -> Option<Protocol> {
    match protocol {
        rules::Protocol::Tcp => Some(Protocol::Tcp),
        rules::Protocol::Udp => Some(Protocol::Udp),
        rules::Protocol::Sctp => Some(Protocol::Sctp),
        rules::Protocol::Vrrp => None,
    }
}

/// With a blank at its end.
fn condition(rule: &Rule) -> String {
    let source = match bounds(rule) {
        None => String::new(),
        Some(IpNet::V4(cidr)) => format!("ip saddr {cidr} "),
        Some(IpNet::V6(cidr)) => format!("ip6 saddr {cidr} "),
    };
    match forwarded(rule.protocol) {
        Some(protocol) => format!("{source}{protocol} dport {} ", rule.port),
        None => format!("{source}meta l4proto {VRRP} "),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    fn rule(protocol: rules::Protocol, cidr: &str, port: u16) -> Rule {
        Rule { protocol, cidr: (!cidr.is_empty()).then(|| cidr.parse().unwrap()), port }
    }

    #[test]
    fn edge_56_an_empty_list_lets_nobody_in_but_answers() {
        let text = ruleset("eth1", Some(&[]));
        assert_eq!(
            text,
            "table inet amphora_table {}
delete table inet amphora_table
table inet amphora_table {
  chain amphora_chain {
    type filter hook input priority filter; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iif lo accept
    ip saddr 127.0.0.0/8 drop
    ip6 saddr ::1 drop
    icmp type destination-unreachable accept
    icmpv6 type { nd-neighbor-solicit, nd-router-advert, nd-neighbor-advert, packet-too-big, \
destination-unreachable } accept
    udp sport 67 udp dport 68 accept
    udp sport 547 udp dport 546 accept
    iifname \"eth1\" goto amphora_vip_chain
  }
  chain amphora_vip_chain {
  }
}
"
        );
    }

    #[test]
    fn edge_56_conditions() {
        use rules::Protocol::{Sctp, Tcp, Udp, Vrrp};
        let rows = [
            (rule(Tcp, "", 80), "tcp dport 80 "),
            (rule(Tcp, "0.0.0.0/0", 81), "tcp dport 81 "),
            (rule(Udp, "192.0.2.0/24", 53), "ip saddr 192.0.2.0/24 udp dport 53 "),
            (rule(Sctp, "2001:db8::/32", 1), "ip6 saddr 2001:db8::/32 sctp dport 1 "),
            (rule(Tcp, "::/0", 82), "ip6 saddr ::/0 tcp dport 82 "),
            (rule(Vrrp, "10.0.0.12/32", 112), "ip saddr 10.0.0.12/32 meta l4proto 112 "),
            (rule(Vrrp, "2001:db8::12/128", 112), "ip6 saddr 2001:db8::12/128 meta l4proto 112 "),
        ];
        for (rule, want) in rows {
            assert_eq!(condition(&rule), want);
        }
    }

    /// What a ruleset says, in the words of both.
    #[derive(Debug, PartialEq, Eq)]
    struct Meaning {
        drops: bool,
        basics: BTreeSet<String>,
        vips: Vec<String>,
    }

    fn meaning(text: &str) -> Meaning {
        let mut meaning = Meaning { drops: false, basics: BTreeSet::new(), vips: Vec::new() };
        let mut chain = "";
        for line in text.lines().map(str::trim) {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["chain", name, "{"] => chain = name,
                ["type", "filter", "hook", "input", .., "policy", "drop;"] => meaning.drops = true,
                [] | ["}"] | ["table" | "delete", ..] => {}
                _ if chain == "amphora_vip_chain" => {
                    meaning.vips.push(line.replace("ip protocol 112", "meta l4proto 112"));
                }
                _ => {
                    meaning.basics.insert(line.replace('"', ""));
                }
            }
        }
        meaning
    }

    #[test]
    fn edge_56_as_octavia_renders_them_where_that_is_right() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/nft");
        let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap();
        for name in ["initial_drop_all", "update"] {
            let sidecar: Value = serde_json::from_str(&read(&format!("{name}.json"))).unwrap();
            let body = serde_json::to_vec(&sidecar["rules"]).unwrap();
            let rules = rules::from_json(&body).unwrap();
            // The first is of an interface that comes up, when nobody has sent rules.
            let rules = (sidecar["file_existed"] == true).then_some(&rules[..]);
            let own = meaning(&ruleset("eth1", rules));
            assert_eq!(own, meaning(&read(&format!("{name}.rules"))), "{name}");
        }
    }

    #[test]
    fn edge_56_what_the_packet_path_lets_in() {
        use rules::Protocol::{Sctp, Tcp, Udp, Vrrp};
        let one = [rule(Tcp, "192.0.2.0/24", 80)];
        let two = [
            rule(Tcp, "192.0.2.0/24", 80),
            rule(Tcp, "2001:db8::/32", 80),
            rule(Tcp, "192.0.2.0/24", 80),
            rule(Udp, "", 80),
        ];
        let open = [rule(Tcp, "192.0.2.0/24", 80), rule(Tcp, "", 80)];
        type Row<'a> = (&'a str, &'a [Rule], Protocol, u16, Option<&'a [&'a str]>);
        let rows: [Row<'_>; 10] = [
            ("no rules", &[], Protocol::Tcp, 80, None),
            ("one network", &one, Protocol::Tcp, 80, Some(&["192.0.2.0/24"])),
            ("another port", &one, Protocol::Tcp, 81, None),
            ("another protocol", &one, Protocol::Udp, 80, None),
            ("two", &two, Protocol::Tcp, 80, Some(&["192.0.2.0/24", "2001:db8::/32"])),
            ("everybody", &two, Protocol::Udp, 80, Some(&[])),
            ("everybody after all", &open, Protocol::Tcp, 80, Some(&[])),
            ("0.0.0.0/0", &[rule(Sctp, "0.0.0.0/0", 9)], Protocol::Sctp, 9, Some(&[])),
            ("::/0", &[rule(Sctp, "::/0", 9)], Protocol::Sctp, 9, Some(&["::/0"])),
            ("VRRP", &[rule(Vrrp, "", 112)], Protocol::Tcp, 112, None),
        ];
        for (row, rules, protocol, port, want) in rows {
            let want: Option<Vec<IpNet>> =
                want.map(|want| want.iter().map(|network| network.parse().unwrap()).collect());
            assert_eq!(allowed(rules, protocol, port), want, "{row}");
        }
    }
}
