//! What systemd's unit leaves to the agent is enough, and without systemd it is well too.

use std::collections::BTreeSet;

use serde_json::Value;
use xdp_lb_tests::agent::{Agent, Options};
use xdp_lb_tests::clients::{TIMEOUT, http_get, https_get, udp_ask};
use xdp_lb_tests::lab::FAMILIES;
use xdp_lb_tests::unit::Unit;
use xdp_lb_tests::uploads::{LOAD_BALANCER, Speaks, Vrrp, vrrp};

use super::world::{HTTP, TCP, TLS, UDP, engine, frontend, haproxy, lab, port, serve_all, servers};

#[test]
fn netns_the_capabilities_of_the_unit_suffice() {
    let unit = Unit::read("amphora-agent.service").expect("a unit");
    let lab = lab();
    let _servers = servers(&lab);
    let bounding_set = Some(unit.bounding_set());
    let options = Options { bounding_set, systemd: false, ..Options::default() };
    let mut agent = Agent::start_on(&lab, &lab.amphora, options).expect("an agent");
    serve_all(&agent).expect("served");
    for (id, by) in [(TCP, "xdp"), (HTTP, "haproxy"), (TLS, "haproxy"), (UDP, "xdp")] {
        assert_eq!(engine(&agent, id).expect("status").as_deref(), Some(by), "{id}");
    }
    for family in FAMILIES {
        let at = |id| lab.vip(family, port(id));
        lab.client.netns.enter(|| {
            for id in [TCP, HTTP] {
                assert_eq!(http_get(at(id), "/").expect("a response").status, 200, "{id}");
            }
            assert!(https_get(at(TLS), "/").expect("TLS").starts_with("HTTP/1.1 200"));
            udp_ask(at(UDP), b"?", TIMEOUT).expect("an answer");
        });
    }

    // HAProxy's master ends its worker, which is nobody.
    let workers = |agent: &Agent<'_>| -> BTreeSet<i32> {
        agent.processes("haproxy").expect("processes").into_iter().collect()
    };
    let before = workers(&agent);
    let http = [frontend(&lab, HTTP, Speaks::Http)];
    agent.serve(LOAD_BALANCER, &haproxy(&agent, &http)).expect("another one");
    let told = |_: &Value| workers(&agent).intersection(&before).count() == 1;
    agent.heartbeat_when("one worker", told).expect("the old worker is gone");

    let [vip, gateway] = [lab.vip(FAMILIES[0], 0).ip(), lab.router.v4.into()];
    let vips = [(vip, "192.0.2.0/24", gateway)];
    let source = lab.amphora.v4.into();
    let config = vrrp(&agent.base(), Vrrp { priority: 100, source, peer: None, vips: &vips });
    agent.must(200, "PUT", "/1.0/vrrp/upload", config.as_bytes()).expect("uploaded");
    agent.must(202, "PUT", "/1.0/vrrp/start", b"").expect("started");
    assert!(!agent.processes("keepalived").expect("processes").is_empty());

    let all = [agent.processes("haproxy"), agent.processes("keepalived")];
    let all = all.map(|processes| processes.expect("processes"));
    agent.stop().expect("it ends");
    agent.run().expect("it starts");
    agent.must(202, "PUT", "/1.0/vrrp/stop", b"").expect("it finds keepalived");
    let now = [agent.processes("haproxy"), agent.processes("keepalived")];
    assert_eq!(now.map(|processes| processes.expect("processes")), [all[0].clone(), vec![]]);
}
