//! The image of an amphora: what its element installs, and that the agent answers in what boots.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xdp_lb_tests::container::{LOOK, output};
use xdp_lb_tests::door::{AMPHORA, Trust, response};
use xdp_lb_tests::lab::Netns;
use xdp_lb_tests::pki::Kind;
use xdp_lb_tests::system::System;

use super::package::Package;
use super::scripts::workspace;

const ELEMENT: &str = "xdp-lb/elements/xdp-lb-amphora";
/// Where diskimage-builder has the scripts while it runs them.
const HOOKS: &str = "/tmp/in_target.d";
const ANSWERING: Duration = Duration::from_secs(20);

/// What Octavia's config drive brings.
const CONFIG: &str = "\
[DEFAULT]
[haproxy_amphora]
base_path = /var/lib/octavia
base_cert_dir = /var/lib/octavia/certs
bind_host = 0.0.0.0
bind_port = 9443
[health_manager]
controller_ip_port_list = 127.0.0.1:5555
heartbeat_interval = 10
heartbeat_key = insecure
[amphora_agent]
agent_server_ca = /etc/octavia/certs/client_ca.pem
agent_server_cert = /etc/octavia/certs/server.pem
amphora_id = 2fb5067a-1d18-5a82-80f6-079512bfcd7b
[controller_worker]
loadbalancer_topology = SINGLE
";

/// What `systemctl is-enabled` says in the image.
const UNITS: [(&str, &str); 6] = [
    ("amphora-agent.service", "enabled"),
    ("haproxy.service", "masked"),
    ("keepalived.service", "masked"),
    ("rsyslog.service", "enabled"),
    ("systemd-networkd.service", "enabled"),
    ("xdp-lb-heartbeat-relay.service", "disabled"),
];

pub fn boots_and_answers(debian: &System, package: &Package) {
    let system = debian.try_clone().expect("a copy");
    install(&system, package).expect("installed");
    for (unit, want) in UNITS {
        let state = system.command("systemctl", &["is-enabled", unit]).output().expect("systemctl");
        assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), want, "{unit}");
    }
    let without = system.command("sh", &["-c", "dpkg --list | grep -i octavia"]).output();
    assert_eq!(String::from_utf8_lossy(&without.expect("dpkg").stdout), "", "no stock agent");
    system.run("logrotate", &["--debug", "/etc/logrotate.conf"]).expect("logrotate understands");

    let trust = config_drive(&system).expect("a config drive");
    let netns = Netns::unnamed("image").expect("a namespace");
    netns.ip(&["link set lo up".into()]).expect("lo");
    let amphora = system.boot("amphora", &netns).expect("it boots");

    let shown = trust.client_ca.issue("controller", Kind::Octavia).expect("a certificate");
    let told = netns.enter(|| {
        let stream = knock(([127, 0, 0, 1], 9443).into()).expect("the agent listens");
        let mut tls = trust.connect(stream, AMPHORA, Some(&shown)).expect("TLS");
        tls.write_all(b"GET /1.0/info HTTP/1.1\r\nHost: a\r\n\r\n").expect("asked");
        response(tls).expect("an answer")
    });
    assert_eq!(told.status, 200, "{}", told.body);
    assert!(told.body.contains("\"haproxy_version\":\"2."), "{}", told.body);

    let run = |words: &[&str]| amphora.run(words[0], &words[1..]).expect("it runs");
    let rows: [(&[&str], &str); 4] = [
        (&["ip", "netns", "list"], "amphora-haproxy\n"),
        (&["findmnt", "-no", "FSTYPE", "/var/lib/octavia/certs"], "tmpfs\n"),
        (
            &["ip", "netns", "exec", "amphora-haproxy", "sysctl", "-n", "net.core.somaxconn"],
            "65534\n",
        ),
        (&["stat", "-c", "%F", "/run/rsyslog/octavia/log"], "socket\n"),
    ];
    for (words, want) in rows {
        assert_eq!(run(words), want, "{words:?}");
    }
}

/// What diskimage-builder does for the element, in its order.
fn install(system: &System, package: &Package) -> Result<()> {
    let element = workspace().join(ELEMENT);
    let listed = fs::read_to_string(element.join("package-installs.yaml"))?;
    let names = listed.lines().filter(|line| !line.starts_with([' ', '#']));
    let names: Vec<_> = names.map(|line| line.trim_end_matches(':')).collect();
    system.run("apt-get", &["-qq", "update"])?;
    let install = ["-qq", "install", "--no-install-recommends"];
    system.run("apt-get", &[&install, &names[..]].concat())?;

    let hooks = system.path(HOOKS);
    output(Command::new("cp").arg("-r").arg(&element).arg(&hooks))?;
    output(Command::new("cp").arg("-r").arg(element.join("static/.")).arg(system.path("/")))?;
    let mut extra = Command::new(element.join("extra-data.d/50-xdp-lb-package"));
    output(extra.env("TMP_HOOKS_PATH", &hooks).env("XDP_LB_DEB", &package.file))?;
    for folder in ["install.d", "post-install.d"] {
        for script in scripts(&element.join(folder))? {
            let name = script.file_name().and_then(|name| name.to_str()).context("a name")?;
            system.run(&format!("{HOOKS}/{folder}/{name}"), &[])?;
        }
    }
    Ok(())
}

fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder.read_dir()?;
    let mut scripts: Vec<_> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    scripts.sort();
    Ok(scripts)
}

fn config_drive(system: &System) -> Result<Trust> {
    let trust = Trust::new()?;
    fs::write(system.path("/etc/octavia/amphora-agent.conf"), CONFIG)?;
    let certs = system.path("/etc/octavia/certs");
    fs::write(certs.join("server.pem"), trust.server_ca.issue(AMPHORA, Kind::Octavia)?.pem()?)?;
    fs::write(certs.join("client_ca.pem"), trust.client_ca.pem()?)?;
    Ok(trust)
}

/// It is ready, and listens a moment later.
fn knock(agent: SocketAddr) -> io::Result<TcpStream> {
    let began = Instant::now();
    loop {
        match TcpStream::connect(agent) {
            Err(_) if began.elapsed() < ANSWERING => thread::sleep(LOOK),
            knocked => return knocked,
        }
    }
}
