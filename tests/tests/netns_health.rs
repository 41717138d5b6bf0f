//! Members that come and go, as their monitors see them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;
use xdp_lb_tests::agent::{Agent, Options};
use xdp_lb_tests::balancer::{Balancer, Listener, Value, until};
use xdp_lb_tests::clients::{Connection, Connections, TIMEOUT, http_get, requests, udp_ask};
use xdp_lb_tests::lab::{FAMILIES, Family, Host, Lab, LabOptions};
use xdp_lb_tests::servers::Server;
use xdp_lb_tests::uploads::{self, Frontend, LOAD_BALANCER, Speaks, uuid};

/// Where members are asked whether they are well.
const ASKED: u16 = 81;

const EACH_SECOND: &str = "monitor = { type = \"http\", delay_s = 1, rise = 1, fall = 1 }";
const MONITOR_PORT: &str = "monitor_port = 81";

fn lab(members: u8) -> Lab {
    Lab::up(LabOptions { members, ..LabOptions::default() }).expect("a lab")
}

/// A listener of HTTP over TCP and one of UDP, with the same members.
fn web_and_dns(lab: &Lab) -> [Listener<'_>; 2] {
    [("web", "tcp", 80), ("dns", "udp", 53)].map(|(id, protocol, port)| Listener {
        pool: EACH_SECOND,
        member: MONITOR_PORT,
        ..Listener::new(id, protocol, port, &lab.members)
    })
}

/// What serves on a member, and what says that it is well.
struct Serving {
    _servers: [Server; 2],
    well: Option<Server>,
}

fn serve(lab: &Lab) -> Vec<Serving> {
    let serving = |host: &Host| Serving {
        _servers: [Server::http(host, 80).expect("HTTP"), Server::udp(host, 80).expect("UDP")],
        well: Some(well(host)),
    };
    lab.members.iter().map(serving).collect()
}

fn well(host: &Host) -> Server {
    Server::http(host, ASKED).expect("HTTP")
}

/// The states of a member in both families, as one listener has it, and why.
fn states(status: &Value, listener: &str, member: &str) -> Vec<(String, String)> {
    let members = status["members"].as_array().into_iter().flatten();
    let own = members.filter(|it| {
        let id = it["id"].as_str().unwrap_or_default();
        it["listener"] == listener && id.starts_with(&format!("{listener}-{member}-"))
    });
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    own.map(|it| (text(&it["state"]), text(&it["why"]))).collect()
}

fn until_member(balancer: &Balancer<'_>, member: &str, state: &str) {
    for listener in ["web", "dns"] {
        until(&format!("{member} of {listener} is {state}"), || {
            let states = states(&balancer.status(), listener, member);
            (states.len() == 2 && states.iter().all(|(is, _)| is == state)).then_some(())
        });
    }
}

/// Who answers, of many requests over both families.
fn answering(lab: &Lab) -> [BTreeSet<String>; 2] {
    let mut members = [BTreeSet::new(), BTreeSet::new()];
    lab.client.netns.enter(|| {
        for family in FAMILIES {
            for _ in 0..12 {
                let web = http_get(lab.vip(family, 80), "/").expect("a response");
                members[0].insert(web.member);
                let dns = udp_ask(lab.vip(family, 53), b"?", TIMEOUT).expect("an answer");
                members[1].insert(dns.member);
            }
        }
    });
    members
}

#[test]
fn netns_edge_27_a_member_that_fails_its_probes_gets_no_traffic() {
    let lab = lab(3);
    let mut serving = serve(&lab);
    let balancer = Balancer::start(&lab, &web_and_dns(&lab), &[]);
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let all: BTreeSet<String> = named(&["m1", "m2", "m3"]);
    assert_eq!(answering(&lab), [all.clone(), all.clone()]);

    serving[0].well = None;
    until_member(&balancer, "m1", "down");
    let others: BTreeSet<String> = named(&["m2", "m3"]);
    assert_eq!(answering(&lab), [others.clone(), others]);
    let status = balancer.status();
    for (listener, times) in [("web", 1), ("dns", 2)] {
        for (_, why) in states(&status, listener, "m1") {
            assert!(why.starts_with("connection refused at "), "{why}");
            assert_eq!(why.ends_with(", 2 times in a row"), times == 2, "{listener}: {why}");
        }
    }

    serving[0].well = Some(well(&lab.members[0]));
    until_member(&balancer, "m1", "up");
    assert_eq!(answering(&lab), [all.clone(), all]);
}

/// While `m1` is down, its servers have nobody to answer: whoever was sent there would hear of it.
#[test]
fn netns_edge_27_what_is_down_stays_down_over_reloads_and_restarts() {
    let lab = lab(3);
    let mut serving = serve(&lab);
    let mut balancer = Balancer::start(&lab, &web_and_dns(&lab), &[]);
    drop(serving.remove(0));
    until_member(&balancer, "m1", "down");

    let done = AtomicBool::new(false);
    let ask = |family| {
        let more = |_| !done.load(Ordering::Relaxed);
        lab.client.netns.enter(|| requests(lab.vip(family, 80), Connections::Fresh, 2, more))
    };
    thread::scope(|scope| {
        let asking = FAMILIES.map(|family| scope.spawn(move || ask(family)));
        let look = |balancer: &Balancer<'_>| {
            let status = balancer.status();
            let states = [states(&status, "web", "m1"), states(&status, "dns", "m1")].concat();
            assert!(states.iter().all(|(is, _)| is == "down"), "{states:?}");
            assert_eq!(states.len(), 4);
        };
        for weight in [2, 3, 1] {
            let listeners = web_and_dns(&lab).map(|mut listener| {
                listener.members.iter_mut().for_each(|(_, its)| *its = weight);
                listener
            });
            balancer.reload(&listeners);
            look(&balancer);
        }
        for end in [Balancer::stop, Balancer::kill9] {
            end(&mut balancer);
            balancer.run();
            look(&balancer);
        }
        done.store(true, Ordering::Relaxed);
        for asked in asking {
            let outcome = asked.join().expect("clients");
            assert_eq!(outcome.errors, [""; 0]);
            assert!(outcome.ok > 0 && !outcome.by_member.contains_key("m1"), "{outcome:?}");
        }
    });
}

#[test]
fn netns_flows_of_a_member_that_is_down_are_kept_or_reset() {
    let lab = lab(2);
    let mut serving = serve(&lab);
    let reset = "monitor = { type = \"http\", delay_s = 1, rise = 1, fall = 1, on_marked_down = \"reset\" }";
    let listener = |id, port, pool| Listener {
        pool,
        member: MONITOR_PORT,
        ..Listener::new(id, "tcp", port, &lab.members)
    };
    let listeners = [listener("web", 80, reset), listener("kept", 8080, EACH_SECOND)];
    let balancer = Balancer::start(&lab, &listeners, &[]);
    let mut open = Vec::new();
    for (family, port) in FAMILIES.into_iter().flat_map(|family| [(family, 80), (family, 8080)]) {
        let connections = lab.client.netns.enter(|| {
            let open = |_| Connection::open(lab.vip(family, port)).expect("open");
            (0..4).map(open).collect::<Vec<_>>()
        });
        for mut connection in connections {
            let member = connection.get("/").expect("an answer").member;
            open.push((family, port, member, connection));
        }
    }
    let on = |port: u16, name: &str| open.iter().filter(|it| it.1 == port && it.2 == name).count();
    assert_eq!([on(80, "m1"), on(80, "m2"), on(8080, "m1"), on(8080, "m2")], [4; 4]);

    serving[0].well = None;
    for listener in ["web", "kept"] {
        until("m1 is down", || {
            let states = states(&balancer.status(), listener, "m1");
            states.iter().all(|(is, _)| is == "down").then_some(())
        });
    }
    until("what is reset is not counted", || {
        (balancer.listener("web", "/connections") == 4).then_some(())
    });
    for (family, port, member, mut connection) in open {
        let again = connection.get("/").map(|answer| answer.member);
        let row = format!("{family:?} {port} {member}");
        if (port, &member[..]) == (80, "m1") {
            assert_eq!(again.expect_err(&row).kind(), ErrorKind::ConnectionReset, "{row}");
        } else {
            assert_eq!(again.expect(&row), member, "{row}");
        }
    }
}

/// An amphora that does not have the VIP, which is plugged and whose members are probed all the same.
#[test]
fn netns_edges_64_65_a_standby_probes_too_and_says_so() {
    const TCP: u32 = 1;
    const UDP: u32 = 4;
    let lab = lab(2);
    let _servers: Vec<_> = lab.members.iter().map(|host| Server::udp(host, 80)).collect();
    let asked = Asked::start(&lab.members[0]);
    let _well = well(&lab.members[1]);
    let options = Options { topology: "ACTIVE_STANDBY", ..Options::default() };
    let mut agent = Agent::start_on(&lab, &lab.amphora, options).expect("an agent");
    // As Neutron gives it, and the VIP is the other amphora's.
    agent.plug_vip(json!({})).expect("plugged");
    let vips = [lab.vip(Family::V4, 0).ip()];
    let members: Vec<(IpAddr, u16, u16)> =
        lab.members.iter().map(|host| (host.v4.into(), 80, 1)).collect();
    let frontend = Frontend {
        pool: "    timeout check 1s\n    option httpchk GET /\n    http-check expect rstatus 200\n",
        server: " check inter 1s fall 3 rise 2 port 81",
        ..Frontend::new(TCP, 80, Speaks::Tcp, members.clone())
    };
    let config = uploads::haproxy(&agent.base(), &vips, &[frontend]);
    agent.serve(LOAD_BALANCER, &config).expect("served");
    let config = with_checks(uploads::lvs(UDP, "UDP", &vips, 53, &members), UDP);
    agent.serve_lvs(&uuid(UDP), &config).expect("served");

    let pools = [format!("{}:{}", uuid(TCP + 1000), uuid(TCP)), uuid(UDP + 1000)];
    let said = |heartbeat: &Value, index: usize| {
        let of = |(pool, id): (&String, u32)| {
            let members = &heartbeat["pools"][pool]["members"];
            members[uploads::member(id, index)].as_str().unwrap_or_default().to_owned()
        };
        [of((&pools[0], TCP)), of((&pools[1], UDP))]
    };
    let is_well = |heartbeat: &Value| (0..2).all(|index| said(heartbeat, index) == ["UP", "UP"]);
    agent.heartbeat_when("members that are well", is_well).expect("a heartbeat");
    assert_eq!(asked.stop(), [lab.amphora.v4.into()].into(), "of the port, not of the VIP");
    let down = ["DOWN", "DOWN"];
    agent.heartbeat_when("one that is not", |it| said(it, 0) == down).expect("a heartbeat");

    // From the first heartbeat on, the next agent says the same.
    agent.stop().expect("it ends");
    agent.run().expect("it starts");
    for _ in 0..3 {
        let heartbeat = agent.next_heartbeat().expect("a heartbeat");
        assert_eq!(said(&heartbeat, 0), down, "{heartbeat}");
    }
}

/// A member that says it is well, and remembers who asks.
struct Asked {
    listener: TcpListener,
    thread: JoinHandle<BTreeSet<IpAddr>>,
}

impl Asked {
    fn start(host: &Host) -> Self {
        let bound = host.netns.enter(|| TcpListener::bind((host.v4, ASKED)));
        let listener = bound.expect("a port of the member");
        let accepting = listener.try_clone().expect("a socket");
        let thread = thread::spawn(move || {
            let mut asking = BTreeSet::new();
            while let Ok((mut stream, from)) = accepting.accept() {
                asking.insert(from.ip());
                stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
                // The checks of the UDP pool only connect.
                if stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
                }
            }
            asking
        });
        Self { listener, thread }
    }

    /// From now on it is not well. Who has asked.
    fn stop(self) -> BTreeSet<IpAddr> {
        SockRef::from(&self.listener).shutdown(Shutdown::Both).expect("it accepts");
        self.thread.join().expect("it ends")
    }
}

/// Has the members of a keepalived configuration checked by a connection each second.
fn with_checks(text: String, id: u32) -> String {
    let pool = format!("    # Configuration for Pool {}\n", uuid(id + 1000));
    let timing = "    delay_loop 1\n    delay_before_retry 1\n    retry 1\n";
    let monitor = format!("{pool}    # Configuration for HealthMonitor {}\n", uuid(id + 2000));
    let text = text
        .replace("    protocol UDP\n", &format!("    protocol UDP\n{timing}"))
        .replace(&pool, &monitor);
    let mut checked = String::new();
    let mut address = "";
    for line in text.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("real_server ") {
            address = rest.split(' ').next().unwrap_or_default();
        }
        checked += &format!("{line}\n");
        if line.trim_start().starts_with("weight ") {
            checked += &format!(
                "        TCP_CHECK {{\n            connect_ip {address}\n            \
                 connect_port {ASKED}\n            connect_timeout 1\n        }}\n"
            );
        }
    }
    checked
}

/// Prints what 2,000 members cost that are probed every 5 s. Each of them is an address of one host's.
#[test]
fn netns_what_two_thousand_members_cost() {
    const MEMBERS: u32 = 2000;
    const ROUND: Duration = Duration::from_secs(5);
    let lab = lab(1);
    let member = &lab.members[0];
    member.netns.run("ip", &["route", "add", "local", "10.200.0.0/16", "dev", "lo"]).expect("ip");
    let by = member.v4.to_string();
    lab.amphora.netns.run("ip", &["route", "add", "10.200.0.0/16", "via", &by]).expect("ip");
    let _server = Server::http(member, 80).expect("HTTP");
    for monitor in ["tcp", "http"] {
        let address = |n: u32| format!("10.200.{}.{}", n / 250, n % 250 + 1);
        let members = (0..MEMBERS).map(|n| {
            format!("[[pool.member]]\nid = \"n{n}\"\naddress = \"{}\"\nport = 80\n", address(n))
        });
        let members: String = members.collect();
        let pool = format!("monitor = {{ type = \"{monitor}\" }}\n{members}");
        let listener = Listener { pool: &pool, ..Listener::new("web", "tcp", 80, []) };
        let balancer = Balancer::start(&lab, &[listener], &[]);
        let pid = balancer.pid();
        // In the first round neighbours are met. After it, whoever had failed would be down.
        thread::sleep(ROUND);
        let before = cpu_ms(pid);
        thread::sleep(ROUND);
        let after = cpu_ms(pid);
        let percent = |name: &str| {
            let of = |times: &BTreeMap<String, u64>| times.get(name).copied().unwrap_or_default();
            (of(&after) - of(&before)) as f64 / ROUND.as_millis() as f64 * 100.0
        };
        let all: f64 = after.keys().map(|name| percent(name)).sum();
        println!("{monitor}: {:.2} % of a core, the daemon {all:.2} % in all", percent("health"));
        let status = balancer.status();
        let up = status["members"].as_array().into_iter().flatten();
        let up = up.filter(|it| it["state"] == "up").count();
        assert_eq!(up, MEMBERS as usize);
    }
}

/// Milliseconds that each thread of a process has been on a processor, in its own code and the kernel's.
fn cpu_ms(pid: u32) -> BTreeMap<String, u64> {
    let mut times = BTreeMap::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    for task in tasks.map(|task| task.expect("a thread").path()) {
        let name = fs::read_to_string(task.join("comm")).expect("a name");
        let text = fs::read_to_string(task.join("schedstat")).expect("its times");
        let ns: u64 = text.split(' ').next().expect("a time").parse().expect("a number");
        *times.entry(name.trim().to_owned()).or_default() += ns / 1_000_000;
    }
    times
}
