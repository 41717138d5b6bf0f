//! The lab of Vagrant without its machines: containers that were provisioned by its scripts, on the wires of
//! a lab of namespaces.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use xdp_lb_tests::container::{LOOK, output};
use xdp_lb_tests::lab::{Host, Lab, LabOptions};
use xdp_lb_tests::system::System;

use super::package::Package;
use super::scripts::workspace;

/// For members to be found well, and neighbours to be known.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn carries_traffic(debian: &System, package: &Package) {
    // Its addresses, but for the client's, which is its neighbour.
    let lab = Lab::up(LabOptions { members: 2, neighbour: true, ..LabOptions::default() });
    let lab = lab.expect("a lab");
    let client = lab.neighbour.as_ref().expect("asked for");
    let machine = |name: &str, host: &Host| {
        let system = provisioned(debian, package, name, host).expect("provisioned");
        let container = system.boot(name, &host.netns).expect("it boots");
        (system, container)
    };
    let [m1, m2] = &lab.members[..] else { panic!("two members") };
    let _members = [machine("m1", m1), machine("m2", m2)];
    let (_system, amphora) = machine("amphora", &lab.amphora);
    let (_system, client) = machine("client", client);

    let names = BTreeSet::from(["m1".to_owned(), "m2".to_owned()]);
    let rows = [
        ("TCP over IPv4", "curl -s http://192.0.2.10/"),
        ("TCP over IPv6", "curl -s http://[2001:db8:1::10]/"),
        ("UDP over IPv4", "echo | socat -T2 - UDP:192.0.2.10:9000"),
        ("UDP over IPv6", "echo | socat -T2 - UDP:[2001:db8:1::10]:9000"),
    ];
    for (row, ask) in rows {
        let mut answered = BTreeSet::new();
        let began = Instant::now();
        while answered != names {
            let state = || amphora.run("xdp-lb", &["status"]).expect("status");
            assert!(began.elapsed() < PATIENCE, "{row}: {answered:?}\n{}", state());
            match client.run("sh", &["-c", ask]) {
                Ok(name) if !name.is_empty() => drop(answered.insert(name.trim().to_owned())),
                // Nobody is up yet.
                _ => thread::sleep(LOOK),
            }
        }
    }
    let status = amphora.run("xdp-lb", &["status"]).expect("status");
    assert!(status.contains("native"), "{status}");
}

/// By the scripts that the Vagrantfile names for this machine. Packages come by way of this machine's
/// network, all else is done on the lab's wires.
fn provisioned(debian: &System, package: &Package, name: &str, host: &Host) -> Result<System> {
    let system = debian.try_clone()?;
    let scripts = workspace().join("vagrant/provision");
    for script in ["network.sh", "amphora.sh", "member.sh", "client.sh"] {
        system.take(&scripts.join(script), &format!("/tmp/{script}"))?;
    }
    system.take(&package.file, "/tmp/xdp-lb.deb")?;
    system.take(&workspace().join("vagrant/lb.toml"), "/tmp/lb.toml")?;
    let (role, more): (_, &[&str]) = match name {
        "m1" => ("member", &["2001:db8:1::101/64"]),
        "m2" => ("member", &["2001:db8:1::102/64"]),
        "client" => ("client", &["2001:db8:1::20/64"]),
        _ => ("amphora", &["2001:db8:1::5/64", "192.0.2.10/32", "2001:db8:1::10/128"]),
    };
    let mut network = system.command("/tmp/network.sh", more);
    host.netns.enter(|| output(&mut network))?;
    system.run(&format!("/tmp/{role}.sh"), &[])?;
    Ok(system)
}
