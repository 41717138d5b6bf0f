//! Whether the daemon may do what it must. Memory for maps is no right any more: since Linux 5.11 it is
//! the cgroup's (kernel commit d5299b67dd59), and RLIMIT_MEMLOCK does not count.

use std::fs;

use super::{Facts, Finding};

/// Of the process that is to do it.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// Process id of the daemon; none where this process stands for it.
    pub daemon: Option<u32>,
    /// `CapEff` of `/proc/<pid>/status`, a bit for each.
    pub effective: u64,
}

/// Number, name (`linux/capability.h`), and what it is for. The agent needs all, `xdp-lb run` the first two.
const NEEDED: [(u8, &str, &str); 7] = [
    (21, "CAP_SYS_ADMIN", "BPF, and entering the namespace"),
    (12, "CAP_NET_ADMIN", "XDP, links, addresses and routes"),
    (13, "CAP_NET_RAW", "gratuitous ARP and VRRP"),
    (10, "CAP_NET_BIND_SERVICE", "HAProxy's low ports"),
    (7, "CAP_SETUID", "HAProxy becoming nobody"),
    (6, "CAP_SETGID", "HAProxy becoming nobody"),
    (5, "CAP_KILL", "ending HAProxy's workers"),
];
const OF_RUN: usize = 2;
/// What stands for CAP_SYS_ADMIN where no namespace is entered.
const BPF: u8 = 39;
const PERFMON: u8 = 38;

impl Rights {
    pub fn look(daemon: Option<u32>) -> Result<Self, String> {
        let of = daemon.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let path = format!("/proc/{of}/status");
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = field.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        let effective = effective.ok_or_else(|| format!("{path} has no CapEff"))?;
        Ok(Self { daemon, effective })
    }

    fn has(self, capability: u8) -> bool {
        self.effective & (1 << capability) != 0
    }
}

pub fn rights(facts: &Facts) -> Vec<Finding> {
    let rights = match &facts.rights {
        Ok(rights) => *rights,
        Err(why) => return vec![Finding::unknown("", why)],
    };
    let about =
        rights.daemon.map_or_else(|| "this process".to_owned(), |it| format!("process {it}"));
    let needed = if facts.is_amphora() { &NEEDED[..] } else { &NEEDED[..OF_RUN] };
    let stands_in = !facts.is_amphora() && rights.has(BPF) && rights.has(PERFMON);
    let has = |capability| rights.has(capability) || (capability == NEEDED[0].0 && stands_in);
    let missing: Vec<_> = needed.iter().filter(|(capability, ..)| !has(*capability)).collect();
    if missing.is_empty() {
        return vec![Finding::ok(&about, "all that is needed")];
    }
    let finding = |(_, name, why): &&(u8, &str, &str)| {
        let found = format!("has no {name}, for {why}");
        let mend = format!("{name} in CapabilityBoundingSet= of amphora-agent.service, or root");
        Finding::failure(&about, found, mend)
    };
    missing.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Ok, Warning};
    use super::super::facts::tests::{said, well};
    use super::*;

    #[test]
    fn capabilities() {
        let all: u64 = NEEDED.iter().map(|(bit, ..)| 1 << bit).sum();
        let without = |bit: u8| all & !(1 << bit);
        let bpf = (1 << BPF) | (1 << PERFMON) | (1 << 12);
        let admin = "CAP_SYS_ADMIN in CapabilityBoundingSet";
        let rows = [
            ("all", true, all, vec![(Ok, "all that is needed")]),
            ("more", true, u64::MAX, vec![(Ok, "all that is needed")]),
            ("no admin", true, without(21), vec![(Failure, admin)]),
            ("no raw sockets", true, without(13), vec![(Failure, "VRRP")]),
            ("which `run` does not need", false, without(13), vec![(Ok, "all")]),
            ("BPF and PERFMON do for `run`", false, bpf, vec![(Ok, "all")]),
            ("none", false, 0, vec![(Failure, admin), (Failure, "CAP_NET_ADMIN")]),
        ];
        for (row, amphora, effective, want) in rows {
            let mut facts = well();
            if !amphora {
                facts.config = super::super::facts::Config::None;
            }
            facts.rights = Result::Ok(Rights { daemon: Some(7), effective });
            let want: Vec<_> = want.iter().map(|(level, it)| (*level, "process 7", *it)).collect();
            said(&rights(&facts), &want, row);
        }
        let mut facts = well();
        facts.rights = Err("gone".to_owned());
        said(&rights(&facts), &[(Warning, "", "cannot be told: gone")], "gone");
    }
}
