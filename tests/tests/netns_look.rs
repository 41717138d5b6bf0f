//! What an operator is shown of traffic while it flows: frames in the log, rates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use xdp_lb_tests::balancer::{Balancer, Listener, until};
use xdp_lb_tests::clients::{self, Connections};
use xdp_lb_tests::lab::{FAMILIES, Lab, LabOptions};
use xdp_lb_tests::servers::Server;

/// Served by a member, served by none, nobody's.
const PORTS: [u16; 3] = [8080, 8081, 8082];
/// Of a test that does not come to its end.
const REQUESTS_MAX: u64 = 100_000;

#[test]
fn netns_frames_are_told_by_level() {
    let lab = Lab::up(LabOptions::default()).expect("a lab");
    let m1 = lab.members.first().expect("a member");
    let _server = Server::http(m1, 80).expect("a server");
    let [open, closed, nobody] = PORTS;
    let listeners =
        [Listener::new("open", "tcp", open, [m1]), Listener::new("closed", "tcp", closed, [])];
    for (level, flows, refused, passed) in [
        (None, false, false, false),
        (Some("info"), true, false, false),
        (Some("debug"), true, true, false),
        (Some("trace"), true, true, true),
    ] {
        let option = level.map(|level| format!("--frame-log={level}"));
        let options: Vec<_> = option.iter().map(String::as_str).collect();
        let balancer = Balancer::start(&lab, &listeners, &options);
        for family in FAMILIES {
            let ask =
                |port| lab.client.netns.enter(|| clients::http_get(lab.vip(family, port), "/"));
            assert!(ask(nobody).is_err(), "the kernel refuses it");
            assert!(ask(closed).is_err(), "it has no member");
            // The last one: when it is told, so is all that came before.
            assert_eq!(ask(open).expect("an answer").member, m1.name);
            let vip = lab.vip(family, 0).ip();
            for (wanted, word) in [
                (flows, format!("to {vip} port {open}: member {}", m1.addr(family, 0).ip())),
                (refused, format!("to {vip} port {closed}")),
                (passed, format!("to {vip} port {nobody}")),
            ] {
                let is_told = || balancer.log().contains(&word);
                if wanted {
                    until(&format!("{level:?}, {word}"), || is_told().then_some(()));
                } else {
                    assert!(!is_told(), "{level:?}, {word}");
                }
            }
        }
    }
}

#[test]
fn netns_rates_are_of_what_goes_through() {
    let lab = Lab::up(LabOptions::default()).expect("a lab");
    let m1 = lab.members.first().expect("a member");
    let _server = Server::http(m1, 80).expect("a server");
    let [open, closed, _] = PORTS;
    let listeners =
        [Listener::new("open", "tcp", open, [m1]), Listener::new("closed", "tcp", closed, [])];
    let balancer = Balancer::start(&lab, &listeners, &[]);
    let idle = balancer.top(0.2);
    let rate = |top: &serde_json::Value, listener: usize, key: &str| {
        top["listeners"][listener][key].as_f64().expect("a rate")
    };
    assert_eq!((rate(&idle, 0, "opened"), rate(&idle, 0, "bits_in")), (0.0, 0.0));
    let done = AtomicBool::new(false);
    let (lab, done) = (&lab, &done);
    let busy = thread::scope(|scope| {
        let vip = lab.vip(FAMILIES[0], open);
        let load = move || {
            let more = |request| request < REQUESTS_MAX && !done.load(Ordering::Relaxed);
            lab.client.netns.enter(|| clients::requests(vip, Connections::Fresh, 1, more))
        };
        let load = scope.spawn(load);
        let refused = lab.vip(FAMILIES[0], closed);
        until("requests", || (balancer.listener("open", "/moved/opened") > 0).then_some(()));
        let refuse = move || {
            for _ in (0..REQUESTS_MAX).take_while(|_| !done.load(Ordering::Relaxed)) {
                let asked = lab.client.netns.enter(|| clients::http_get(refused, "/"));
                assert!(asked.is_err(), "it has no member");
            }
        };
        let refuse = scope.spawn(refuse);
        until("refusals", || (balancer.listener("closed", "/unserved") > 0).then_some(()));
        let top = balancer.top(0.5);
        done.store(true, Ordering::Relaxed);
        load.join().expect("requests");
        refuse.join().expect("refusals");
        top
    });
    for key in ["opened", "packets_in", "packets_out", "bits_in", "bits_out"] {
        assert!(rate(&busy, 0, key) > 0.0, "{key}: {busy:#}");
        assert_eq!(rate(&busy, 1, key), 0.0, "{key} of who serves nobody");
    }
    assert!(rate(&busy, 1, "turned_away") > 0.0, "{busy:#}");
    assert_eq!(busy["members"][0]["member"], format!("open-{}-v4", m1.name), "the busiest");
    let reasons = busy["reasons"].as_array().expect("reasons");
    assert!(reasons.iter().any(|met| met["reason"] == "NoMember"), "{reasons:?}");
}
