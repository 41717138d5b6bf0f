//! The systemd units: that they say what must be said, and that systemd understands them.

use std::fs;
use std::process::Command;

use agent_api::AgentConfig;
use tempfile::TempDir;
use xdp_lb_tests::unit::{Unit, folder};

const AGENT: &str = "amphora-agent.service";
const CERTS: &str = "var-lib-octavia-certs.mount";
const NETNS: &str = "amphora-netns.service";
const RELAY: &str = "xdp-lb-heartbeat-relay.service";

#[test]
fn edges_60_61_62_what_the_units_must_say() {
    let rows: [(&str, &str, &str, &[&str]); 24] = [
        // Octavia's cloud-init, and Debian's image.
        (AGENT, "Install", "Alias", &["octavia-agent.service"]),
        (AGENT, "Install", "WantedBy", &["multi-user.target"]),
        (AGENT, "Service", "ExecStart", &["/usr/bin/xdp-lb", "agent"]),
        (AGENT, "Service", "Type", &["notify"]),
        // HAProxy and keepalived go on, whatever becomes of the agent or of one of them.
        (AGENT, "Service", "KillMode", &["process"]),
        (AGENT, "Service", "OOMPolicy", &["continue"]),
        (AGENT, "Service", "Restart", &["always"]),
        (AGENT, "Unit", "StartLimitIntervalSec", &["0"]),
        // The configuration may come later.
        (AGENT, "Service", "TimeoutStartSec", &["infinity"]),
        (AGENT, "Service", "WatchdogSec", &["90"]),
        (AGENT, "Service", "LimitNOFILE", &["4096:2600000"]),
        (AGENT, "Service", "NoNewPrivileges", &["yes"]),
        (AGENT, "Service", "ProtectSystem", &["strict"]),
        // HAProxy could not compile regular expressions, and nobody would see the pins.
        (AGENT, "Service", "MemoryDenyWriteExecute", &[]),
        (AGENT, "Service", "ProtectKernelTunables", &[]),
        // Nobody else would see the namespace if the agent made it.
        (AGENT, "Unit", "Wants", &[NETNS]),
        (AGENT, "Unit", "After", &["network.target", NETNS]),
        (NETNS, "Service", "ExecStart", &["/usr/sbin/ip", "netns", "add", "amphora-haproxy"]),
        (AGENT, "Unit", "RequiresMountsFor", &["/var/lib/octavia/certs"]),
        (CERTS, "Mount", "Type", &["tmpfs"]),
        // Of a controller: it runs as nobody, and remembers what came.
        (RELAY, "Service", "StateDirectory", &["xdp-lb"]),
        (RELAY, "Service", "DynamicUser", &["yes"]),
        (RELAY, "Service", "CapabilityBoundingSet", &[]),
        (CERTS, "Mount", "Options", &["mode=0700,size=128M,nodev,nosuid,noexec"]),
    ];
    for (file, section, key, want) in rows {
        let unit = Unit::read(file).expect("a unit");
        assert_eq!(unit.words(section, key), want, "{file}: {section}: {key}");
    }
}

#[test]
fn no_more_files_than_the_kernel_is_told_to_allow() {
    let conf = fs::read_to_string(folder().join("90-xdp-lb.conf")).expect("settings");
    let allowed = conf.lines().find_map(|line| line.strip_prefix("fs.nr_open = "));
    let unit = Unit::read(AGENT).expect("a unit");
    let limits = unit.words("Service", "LimitNOFILE").concat();
    assert_eq!(limits.split(':').nth(1), allowed);
}

/// With a program that is there in the place of the one to be installed.
#[test]
fn systemd_understands_them() {
    let folder = folder();
    let copies = TempDir::new().expect("a folder");
    for file in [AGENT, CERTS, NETNS, RELAY] {
        let text = fs::read_to_string(folder.join(file)).expect("a unit");
        let text = text.replace("/usr/bin/xdp-lb", "/bin/sh");
        fs::write(copies.path().join(file), text).expect("a copy");
    }
    let paths = [AGENT, CERTS, NETNS, RELAY].map(|file| copies.path().join(file));
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(paths).output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        }
        Err(error) => eprintln!("not asked: systemd-analyze: {error}"),
    }
}

/// With what is commented out in force, it says what holds without it.
#[test]
fn the_example_of_our_own_configuration_is_what_holds_without_it() {
    let example = fs::read_to_string(folder().join("xdp-lb.example.conf")).expect("an example");
    let shown = example.replace("\n#heartbeat_", "\nheartbeat_").replace("\n#on_", "\non_");
    assert!(!shown.lines().any(|line| line.starts_with('#') && line.contains(" = ")), "{shown}");
    let least =
        "[amphora_agent]\namphora_id = a\n[controller_worker]\nloadbalancer_topology = SINGLE\n";
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("amphora-agent.conf");
    fs::write(&file, least).expect("written");
    let without = AgentConfig::read(&file).expect("a configuration");
    fs::write(folder.path().join("xdp-lb.conf"), shown).expect("written");
    assert_eq!(AgentConfig::read(&file).expect("a configuration"), without);
}
