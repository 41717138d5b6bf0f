//! `xdp-lb doctor`: what it finds is broken for real, and it says what mends it. What cannot be broken in a
//! namespace (a virtio device, the clock, systemd) is broken in the rows beside its checks.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use xdp_lb_tests::agent::{Agent, Options};
use xdp_lb_tests::balancer::{Balancer, Listener, program, until};
use xdp_lb_tests::lab::{FAMILIES, Lab, LabOptions, Netns, Offloads, occupy};
use xdp_lb_tests::pki::{Authority, Kind};
use xdp_lb_tests::uploads::{Frontend, LOAD_BALANCER, Speaks, haproxy};

/// No configuration of an agent.
const NONE: &str = "/nowhere/amphora-agent.conf";

/// What it found, and whether it came back with success.
struct Report {
    findings: Vec<Value>,
    success: bool,
}

impl Report {
    /// Of a command that ends in `xdp-lb doctor` and its arguments.
    fn of(netns: &Netns, command: &mut Command) -> Self {
        let output = netns.output(command).expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {said}");
        });
        let findings = report["findings"].as_array().expect("findings").clone();
        Self { findings, success: output.status.success() }
    }

    fn has(&self, check: &str, about: &str, level: &str, words: &str) -> bool {
        self.findings.iter().any(|it| {
            let said = format!("{} {}", text(&it["found"]), text(&it["mend"]));
            let is = |key: &str, want: &str| it[key] == want;
            is("check", check)
                && is("level", level)
                && text(&it["about"]).contains(about)
                && said.contains(words)
        })
    }

    /// A finding of this check, about this, of this level, with these words in it or in its advice.
    fn must(&self, check: &str, about: &str, level: &str, words: &str) {
        let of_check: Vec<_> = self.findings.iter().filter(|it| it["check"] == check).collect();
        let has = self.has(check, about, level, words);
        assert!(has, "no {level} of {check} about {about:?} says {words:?}: {of_check:#?}");
        let failed = self.findings.iter().any(|it| it["level"] == "failure");
        assert_eq!(self.success, !failed, "the exit status");
    }

    fn failures(&self) -> Vec<&Value> {
        self.findings.iter().filter(|it| it["level"] == "failure").collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn doctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["doctor", "--json"]).args(arguments);
    command
}

fn lab(second_member: bool) -> Lab {
    Lab::up(LabOptions { second_member, ..LabOptions::default() }).expect("a lab")
}

#[test]
fn netns_a_load_balancer_that_falls_ill() {
    let lab = lab(true);
    let amphora = &lab.amphora.netns;
    let web = Listener::new("web", "tcp", 80, lab.all_members());
    let both = ["--interface", "eth1", "--interface", "eth2"];
    let mut balancer = Balancer::start(&lab, &[web], &both);
    let name = balancer.name.clone();
    // From outside of its namespace, which it finds by the daemon.
    let look = || Report::of(&lab.client.netns, &mut doctor(&["--name", &name, "--config", NONE]));
    let must = |check, about, level, words| look().must(check, about, level, words);

    let well = look();
    assert_eq!(well.failures(), Vec::<&Value>::new());
    well.must("driver", "eth1", "ok", "veth");
    well.must("attached", "eth2", "ok", "native");
    well.must("neighbours", "", "ok", "8 members");
    well.must("ports", "", "ok", "1024-60999");

    amphora.sysctl("ipv4/ip_local_reserved_ports", "\n").expect("a sysctl");
    must("ports", "", "failure", "sysctl -w net.ipv4.ip_local_reserved_ports=1024-60999");
    amphora.sysctl("ipv4/ip_local_reserved_ports", "1024-65500").expect("a sysctl");
    must("ports", "ip_local_port_range", "warning", "35 ports are left");

    let shadow =
        amphora.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))).expect("a socket");
    must("sockets", "listener web", "warning", "ss -tlnp sport = :80");
    drop(shadow);

    amphora.ip(&["link set eth2 mtu 1400".to_owned()]).expect("a lower MTU");
    must("mtu", "", "warning", "openstack network set --mtu 1400");

    // Who is there no more does not answer for its MAC, once the kernel has asked.
    let gone = &lab.members[0];
    let address = gone.v4.to_string();
    gone.netns.ip(&["link set eth0 down".to_owned()]).expect("it is gone");
    amphora.ip(&[format!("neighbour flush {address} dev eth1")]).expect("it is forgotten");
    let silent = || {
        let report = look();
        report.has("neighbours", &address, "failure", "its Neutron port").then_some(report)
    };
    assert!(!until("the kernel gives up", silent).success);
    amphora.ip(&[format!("route add unreachable {address}")]).expect("a route");
    must("neighbours", &address, "failure", "blackhole, unreachable or prohibit");

    amphora.ip(&["link set eth2 down".to_owned()]).expect("down");
    must("attached", "eth2", "failure", "ip link set eth2 up");
    amphora.ip(&["link delete eth2".to_owned()]).expect("gone");
    balancer
        .until_record("that it is gone", |record| record["interfaces"][1]["standing"] == "missing");
    must("attached", "eth2", "failure", "no such interface");

    balancer.stop();
    let netns = &amphora.name;
    let look = || {
        let arguments = ["--name", &name, "--config", NONE, "--netns", netns];
        Report::of(&lab.client.netns, &mut doctor(&arguments))
    };
    look().must("daemon", &name, "failure", "xdp-lb run");
    let pin = Path::new("/sys/fs/bpf/xdp-lb").join(&name).join("link_eth1");
    fs::remove_file(pin).expect("it is detached");
    // The kernel lets go of a link a moment after its last name.
    until("it is off", || look().has("attached", "eth1", "failure", "was taken off").then_some(()));
}

#[test]
fn netns_interfaces_before_a_start() {
    let lab = lab(false);
    let amphora = &lab.amphora.netns;
    let look = |interface| {
        let netns = &amphora.name;
        let of = ["--name", "nobody", "--config", NONE, "--netns", netns, "--interface", interface];
        Report::of(&lab.client.netns, &mut doctor(&of))
    };
    let before = look("eth1");
    before.must("attached", "eth1", "note", "nothing has been started");
    before.must("daemon", "nobody", "failure", "xdp-lb run");

    let another = occupy(&lab.amphora, "eth1").expect("a program");
    look("eth1").must("attached", "eth1", "failure", "ip link set dev eth1 xdp off");
    drop(another);

    let lines = [
        "link add q0 numrxqueues 2 numtxqueues 2 type veth peer name q1 numrxqueues 2 numtxqueues 2",
        "link add e0 type bridge",
    ];
    amphora.ip(&lines.map(str::to_owned)).expect("interfaces");
    look("e0").must("driver", "e0", "note", "bridge");
    look("e0").must("queues", "e0", "note", "does not tell");
    amphora.ip(&["link set q0 mtu 9000".to_owned()]).expect("a higher MTU");
    look("q0").must("mtu", "q0", "warning", "openstack network set --mtu 1500");
    amphora.run("ethtool", &["-L", "q0", "rx", "1", "tx", "1"]).expect("one queue");
    look("q0").must("queues", "q0", "warning", "ethtool -L q0 rx 2 tx 2");

    let of = ["--name", "nobody", "--config", NONE, "--netns", "nowhere"];
    let nowhere = Report::of(&lab.client.netns, &mut doctor(&of));
    nowhere.must("namespace", "", "failure", "--netns");
}

#[test]
fn netns_virtual_links_as_they_are_made() {
    let options = LabOptions { offloads: Offloads::AsMade, ..LabOptions::default() };
    let lab = Lab::up(options).expect("a lab");
    let web = || Listener::new("web", "tcp", 80, &lab.members);
    let look = |name: &str| {
        Report::of(&lab.client.netns, &mut doctor(&["--name", name, "--config", NONE]))
    };
    let native = Balancer::start(&lab, &[web()], &[]);
    // Its checksum is not complete when the program sees it: no answer comes.
    let vip = lab.vip(FAMILIES[0], 80);
    let connect = || TcpStream::connect_timeout(&vip, Duration::from_millis(200));
    lab.client.netns.enter(connect).expect_err("no answer");
    look(&native.name).must("checksums", "", "failure", "ethtool -K <interface> tx off");
    drop(native);

    let jumbo = |dev: &str| [format!("link set {dev} mtu 9000")];
    lab.switch.ip(&jumbo(&lab.amphora.name)).expect("a higher MTU");
    lab.amphora.netns.ip(&jumbo("eth1")).expect("a higher MTU");
    let generic = Balancer::start(&lab, &[web()], &[]);
    let report = look(&generic.name);
    report.must("attached", "eth1", "warning", "generic mode");
    report.must("mtu", "eth1", "warning", "openstack network set --mtu 1500");
}

/// What the kernel shows, hidden or put over in a mount namespace of the doctor's own.
#[test]
fn netns_kernels() {
    let lab = lab(false);
    let over = |path: &str, content: &str| {
        format!("F=$(mktemp) && printf '%s' '{content}' > $F && mount --bind $F {path} && rm $F")
    };
    let jit = "/proc/sys/net/core/bpf_jit_enable";
    let cpus = format!(
        "{} && {}",
        over("/sys/devices/system/cpu/online", "0-63"),
        over("/sys/devices/system/cpu/possible", "0-63")
    );
    let without_btf = "mount -t tmpfs none /sys/kernel/btf".to_owned();
    let rows = [
        ("umount /sys/fs/bpf".to_owned(), "bpffs", "failure", "mount -t bpf bpf /sys/fs/bpf"),
        (without_btf, "btf", "note", "CONFIG_DEBUG_INFO_BTF"),
        (over(jit, "0"), "jit", "warning", "sysctl -w net.core.bpf_jit_enable=1"),
        (cpus, "queues", "warning", "64 CPUs could forward"),
    ];
    let of = ["--name", "nobody", "--config", NONE];
    let netns = ["--netns", &lab.amphora.netns.name, "--interface", "eth1"];
    // Where this runs: the JIT's sysctl is of the first network namespace alone.
    let own = Netns::of(std::process::id() as i32).expect("a namespace");
    for (script, check, level, words) in rows {
        let script = format!("mount --make-rprivate / && {script} && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &script, "sh"]).arg(program());
        command.args(["doctor", "--json"]).args(of).args(netns);
        Report::of(&own, &mut command).must(check, "", level, words);
    }

    let mut old = Command::new("setarch");
    old.arg("--uname-2.6").arg(program()).args(["doctor", "--json"]).args(of).args(netns);
    Report::of(&own, &mut old).must("kernel", "", "failure", "amp_image_tag");

    let mut poor = Command::new("setpriv");
    poor.args(["--bounding-set", "-net_admin"]).arg(program());
    poor.args(["doctor", "--json"]).args(of).args(netns);
    let poor = Report::of(&own, &mut poor);
    poor.must("rights", "this process", "failure", "CAP_NET_ADMIN in CapabilityBoundingSet");
}

#[test]
fn netns_an_amphora_that_is_well() {
    let lab = lab(false);
    let mut agent = Agent::start(&lab).expect("an agent");
    agent.plug_vip(json!({})).expect("plugged");
    let members = || lab.members.iter().map(|host| (host.v4.into(), 80, 1)).collect();
    let frontends = [(1, 80, Speaks::Tcp), (2, 8080, Speaks::Http)]
        .map(|(id, port, speaks)| Frontend::new(id, port, speaks, members()));
    let vips = [lab.vip(FAMILIES[0], 0).ip()];
    agent.serve(LOAD_BALANCER, &haproxy(&agent.base(), &vips, &frontends)).expect("served");
    let config = agent.folder().join("amphora-agent.conf");
    let of = ["--config", config.to_str().expect("UTF-8"), "--netns", &agent.namespace()];
    let look = || Report::of(&lab.client.netns, &mut doctor(&of));

    let well = look();
    assert_eq!(well.failures(), Vec::<&Value>::new());
    well.must("fit", "xdp-lb check", "ok", "well");
    well.must("managers", "127.0.0.1:5555", "ok", "nobody objects");
    well.must("rights", "process", "ok", "all");

    agent.kill9();
    let alone = look();
    alone.must("daemon", &agent.id, "failure", "systemctl start amphora-agent");
    alone.must("fit", "xdp-lb check", "ok", "well");
    alone.must("attached", "eth1", "ok", "native");
    let pins = Path::new("/sys/fs/bpf/xdp-lb").join(&agent.id);
    fs::remove_file(pins.join("link_eth1")).expect("it is detached");
    until("it is off", || {
        look().has("fit", "", "failure", "no XDP program is attached to eth1").then_some(())
    });
}

#[test]
fn netns_an_amphora_that_is_not_set_up() {
    let lab = lab(false);
    let agent = Agent::prepare(&lab, &lab.amphora, Options::default()).expect("an amphora");
    agent.write_certificates().expect("certificates");
    agent.write_config().expect("a configuration");
    let folder = agent.folder();
    let config = folder.join("amphora-agent.conf");
    let written = fs::read_to_string(&config).expect("it is written");
    let namespace = agent.namespace();
    let look_in = |netns: &Netns| {
        let path = config.to_str().expect("UTF-8");
        Report::of(netns, &mut doctor(&["--config", path, "--netns", &namespace]))
    };
    let look = || look_in(&lab.amphora.netns);

    let new = look();
    new.must("configuration", "amphora-agent.conf", "ok", "");
    new.must("daemon", &agent.id, "failure", "systemctl start amphora-agent");
    new.must("namespace", "", "note", "nothing has been plugged");
    new.must("certificates", "server.pem", "ok", "valid until");
    new.must("certificates", "client_ca.pem", "ok", "valid until");
    new.must("programs", "/usr/sbin/haproxy", "ok", "");
    new.must("managers", "127.0.0.1:5555", "ok", "nobody objects");

    let taken = lab.amphora.netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9443)));
    look().must("daemon", "port 9443", "failure", "ss -tlnp sport = :9443");
    drop(taken);

    let change = |old: &str, new: &str| {
        assert!(written.contains(old), "{old}");
        fs::write(&config, written.replace(old, new)).expect("it is written");
    };
    change("[haproxy_amphora]\n", "[haproxy_amphora]\nhaproxy_cmd = /nowhere/haproxy\n");
    look().must("programs", "/nowhere/haproxy", "failure", "apt-get install haproxy");
    change("amphora_id", "amphora");
    look().must("configuration", "amphora-agent.conf", "failure", "amphora configure");

    let refused = "octavia-health-manager started";
    let managers = [
        ("127.0.0.1:5556", "127.0.0.1:5556", "failure", refused),
        ("[::1]:5555", "[::1]:5555", "failure", refused),
        ("nowhere.invalid:5555", "nowhere.invalid:5555", "failure", "dns-nameserver"),
        ("", "", "failure", "controller_ip_port_list"),
    ];
    for (list, about, level, words) in managers {
        change("127.0.0.1:5555", list);
        look().must("managers", about, level, words);
    }
    change("127.0.0.1:5555", "192.0.2.5");
    look().must("configuration", "", "warning", "192.0.2.5");
    // Without a route.
    change("127.0.0.1:5555", "192.0.2.5:5555");
    let nowhere = Netns::unnamed("nowhere").expect("a namespace");
    look_in(&nowhere).must("managers", "192.0.2.5:5555", "failure", "host_routes");
    // With one, to nobody.
    nowhere.ip(&["link add e0 up type veth peer name e1".to_owned()]).expect("a wire");
    nowhere
        .ip(&["address add 192.0.2.1/24 dev e0".to_owned(), "link set e1 up".to_owned()])
        .expect("an address");
    nowhere.ip(&["route add prohibit 192.0.2.5".to_owned()]).expect("a route");
    look_in(&nowhere).must("managers", "192.0.2.5:5555", "failure", "nothing leaves");
    fs::write(&config, &written).expect("as it was");

    let authority = Authority::new("another").expect("an authority");
    let expired = authority.issue(&agent.id, Kind::Expired).expect("a certificate");
    let expired = expired.pem().expect("PEM");
    fs::write(folder.join("server.pem"), &expired).expect("it is written");
    look().must("certificates", "server.pem", "failure", "has expired");
    fs::write(folder.join("server.pem"), "nothing").expect("it is written");
    look().must("certificates", "server.pem", "failure", "holds no certificate");
    fs::remove_file(folder.join("client_ca.pem")).expect("it was there");
    look().must("certificates", "client_ca.pem", "failure", "No such file");
    let tenants = agent.base().join("certs/lb");
    fs::create_dir_all(&tenants).expect("a folder");
    fs::write(tenants.join("a.pem"), &expired).expect("it is written");
    look().must("certificates", "certs/lb/a.pem", "failure", "Barbican");
    let lost = agent.base().join("certs/lb/b.pem");
    fs::create_dir_all(agent.base().join("lb")).expect("a folder");
    let bind = format!("    bind 192.0.2.10:443 ssl crt-list {}\n", lost.display());
    fs::write(agent.base().join("lb/haproxy.cfg"), bind).expect("it is written");
    look().must("certificates", "certs/lb/b.pem", "failure", "gone after a reboot");
}
