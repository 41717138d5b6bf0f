//! Real Octavia, from its API to the traffic: every scenario with amphorae that run on xdp-lb.

use std::time::Duration;

use xdp_lb_tests::balancer::program;
use xdp_lb_tests::octavia::STACKS;
use xdp_lb_tests::octavia::balancer::Run;
use xdp_lb_tests::octavia::cloud::{Cloud, Image};
use xdp_lb_tests::octavia::scenarios::{self, Group, Scenario};
use xdp_lb_tests::octavia::soak;
use xdp_lb_tests::octavia::stack::{Options, Stack};

/// What the older release is asked as well: each kind of traffic, and that it mends what dies.
const OLDER: [&str; 8] = [
    "TCP",
    "UDP",
    "HTTP",
    "TERMINATED_HTTPS",
    "VIPs of both families",
    "monitors of HTTP pools",
    "failover by the API",
    "the amphora is killed",
];

#[test]
fn netns_octavia_protocols() {
    group(Group::Protocols);
}

#[test]
fn netns_octavia_members() {
    group(Group::Members);
}

#[test]
fn netns_octavia_monitors() {
    group(Group::Monitors);
}

#[test]
fn netns_octavia_listeners() {
    group(Group::Listeners);
}

#[test]
fn netns_octavia_failover() {
    group(Group::Failover);
}

#[test]
fn netns_octavia_pair() {
    group(Group::Pair);
}

#[test]
fn netns_octavia_older() {
    let wanted = |scenario: &&Scenario| OLDER.contains(&scenario.name);
    let found: Vec<_> = scenarios::all().filter(wanted).collect();
    assert_eq!(found.len(), OLDER.len(), "all of them are scenarios");
    each(STACKS[1], &found);
}

/// A short one of what `cargo xtask octavia soak` does for a quarter of an hour.
#[test]
fn netns_octavia_soak() {
    let cloud = cloud(STACKS[0]);
    let run = Run::new(&cloud, Image::XdpLb);
    let wanted = soak::Options { count: 3, lasts: Duration::from_secs(20), seed: 1 };
    if let Err(error) = soak::run(&run, &wanted, &mut |_| ()) {
        panic!("{error:#}");
    }
}

fn group(group: Group) {
    let found: Vec<_> = scenarios::all().filter(|scenario| scenario.group == group).collect();
    assert!(!found.is_empty(), "{group:?} has scenarios");
    each(STACKS[0], &found);
}

fn each(release: &str, scenarios: &[&Scenario]) {
    let cloud = cloud(release);
    for scenario in scenarios {
        let run = Run::new(&cloud, Image::XdpLb);
        let done = (scenario.run)(&run).and_then(|()| cloud.is_bare());
        if let Err(error) = done {
            panic!("{}: {error:#}", scenario.name);
        }
    }
}

fn cloud(release: &str) -> Cloud {
    let options = Options { release, program: program(), settings: "" };
    let stack = Stack::up(&options).expect("Octavia is up");
    Cloud::around(stack).expect("clients and members")
}
