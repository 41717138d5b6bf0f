//! Source ports towards members, against those that the kernel gives to local sockets.

use std::fs;

use super::{Facts, Finding};
use crate::kernel::SourcePorts;
use crate::net::source_ports::{self, LOCAL, LOCAL_MIN, RESERVED};

/// Of the namespace of the load balancer.
#[derive(Clone, Debug)]
pub struct Ports {
    /// What the maps were made with; none before a start.
    pub ours: Option<SourcePorts>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved: String,
    /// `net.ipv4.ip_local_port_range`.
    pub local: String,
}

impl Ports {
    /// In the network namespace of this thread.
    pub fn look(ours: Option<SourcePorts>) -> Result<Self, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        Ok(Self { ours, reserved: read(RESERVED)?, local: read(LOCAL)? })
    }
}

pub fn reserved(facts: &Facts) -> Vec<Finding> {
    let ports = match facts.network.as_ref().map(|network| &network.ports) {
        Ok(Ok(ports)) => ports,
        Ok(Err(why)) => return vec![Finding::unknown("", why)],
        Err(_) => return Vec::new(),
    };
    let Some(ours) = ports.ours else { return Vec::new() };
    let name = "net.ipv4.ip_local_reserved_ports";
    let wanted = source_ports::change(&ports.reserved, &ports.local, ours);
    let given = source_ports::given(&ports.reserved, &ports.local);
    let kept = source_ports::given(&wanted.reserved, &ports.local);
    let mut findings = vec![match given - kept {
        0 => Finding::ok(name, format!("{ours} are kept from local sockets")),
        taken => {
            let found = format!(
                "{taken} of the ports {ours}, which connections to members have, may be given to local \
                 sockets too: answers go astray"
            );
            let mend = format!("`sysctl -w {name}={}`, as each start does it", wanted.reserved);
            Finding::failure(name, found, mend)
        }
    }];
    if kept < LOCAL_MIN {
        let found = format!("{kept} ports are left to health checks and HAProxy");
        let mend =
            "`sysctl -w net.ipv4.ip_local_port_range=\"32768 65535\"`, or fewer --snat-ports";
        findings.push(Finding::warning("net.ipv4.ip_local_port_range", found, mend));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Ok, Warning};
    use super::super::facts::tests::{inside, said, well};
    use super::*;

    #[test]
    fn reservations() {
        let (reserved_name, range) =
            ("net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_local_port_range");
        let kept = (Ok, reserved_name, "are kept");
        let rows = [
            ("before a start", None, "", "32768 60999", vec![]),
            ("kept", Some("1024-49151"), "1024-49151\n", "32768 65535", vec![kept]),
            ("beside others", Some("1024-49151"), "1024-49151,50000", "32768\t65535", vec![kept]),
            ("never given anyway", Some("1024-2000"), "", "32768 60999", vec![kept]),
            (
                "lost",
                Some("1024-49151"),
                "",
                "32768 65535",
                vec![(Failure, reserved_name, "ip_local_reserved_ports=1024-49151")],
            ),
            (
                "in part",
                Some("1024-49151"),
                "1024-40000",
                "32768 65535",
                vec![(Failure, reserved_name, "9151 of the ports")],
            ),
            (
                "few are left",
                Some("1024-60999"),
                "1024-60999",
                "32768 61010",
                vec![kept, (Warning, range, "11 ports are left")],
            ),
        ];
        for (row, ours, reserved_ports, local, want) in rows {
            let mut facts = well();
            inside(&mut facts).ports = Result::Ok(Ports {
                ours: ours.map(|text: &str| text.parse().unwrap()),
                reserved: reserved_ports.to_owned(),
                local: local.to_owned(),
            });
            said(&reserved(&facts), &want, row);
        }
    }
}
