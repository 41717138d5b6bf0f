//! Namespaces to plug interfaces into, and what the kernel has in them.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use agent_api::amphora::{Failed, PlugError, Plugged};
use agent_api::config::Topology;
use agent_api::document::Plugs;
use agent_api::plug::{NetworkPlug, VipPlug};
use serde_json::Value;
use tempfile::TempDir;
use xdp_lb::namespace::Namespace;
use xdp_lb::plug::{Nics, Places};
use xdp_lb_tests::lab::Lab;

use super::Events;

/// A route as `ip` tells of it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: String,
    pub to: String,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub ours: bool,
}

/// Three namespaces: management, load balancer, and whoever is at the other end of the wires.
pub struct Bench {
    pub outside: Namespace,
    pub peer: Namespace,
    /// Made by the library.
    pub inside: String,
    wires: AtomicU32,
    base: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Lab::sweep().unwrap();
        // The names of a lab, so that it removes what a killed test leaves.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |host: &str| format!("xl{}n{number}-{host}", std::process::id());
        let peer = Namespace::open_or_make(&name("peer")).unwrap();
        let bench = Self {
            outside: Namespace::open_or_make(&name("management")).unwrap(),
            inside: name("amphora"),
            wires: AtomicU32::new(0),
            base: tempfile::tempdir().unwrap(),
            peer,
        };
        fs::write(bench.places().pci_rescan, "").unwrap();
        bench
    }

    pub fn places(&self) -> Places {
        let base = self.base.path();
        Places { pci_rescan: base.join("rescan"), ..Places::of(base) }
    }

    pub fn names(&self) -> String {
        fs::read_to_string(self.places().names).unwrap()
    }

    /// Plugs an interface in, as Nova does; its other end is `p-` and its name.
    pub fn nova(&self, name: &str, mac: &str) {
        let peer = self.peer.name();
        // Numbers of their own: see `make_wires` of the lab.
        let index = 100 + 2 * self.wires.fetch_add(1, Ordering::Relaxed);
        let peer_index = index + 1;
        self.ip_outside(&format!(
            "link add {name} index {index} address {mac} type veth \
             peer name p-{name} index {peer_index} netns {peer}"
        ));
        ip_in(peer, &format!("link set p-{name} up"));
    }

    /// The library, at work in the namespace of the management network.
    pub fn run<T: Send>(&self, work: impl AsyncFnOnce(&Nics) -> T + Send) -> T {
        let worked = self.outside.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let namespace = Namespace::open_or_make(&self.inside).unwrap();
                work(&Nics::open(namespace, self.places()).unwrap()).await
            })
        });
        worked.unwrap()
    }

    pub fn plug_vip(&self, plug: &VipPlug, topology: Topology) -> Result<Plugged, PlugError> {
        self.run(async |nics: &Nics| nics.plug_vip(plug, topology).await)
    }

    pub fn plug_network(
        &self,
        plug: &NetworkPlug,
        topology: Topology,
    ) -> Result<Plugged, PlugError> {
        self.run(async |nics: &Nics| nics.plug_network(plug, topology).await)
    }

    pub fn restore(&self, plugs: &Plugs, topology: Topology) -> Result<(), Failed> {
        self.run(async |nics: &Nics| nics.restore(plugs, topology).await)
    }

    pub fn ip_outside(&self, line: &str) {
        ip_in(self.outside.name(), line);
    }

    pub fn ip_inside(&self, line: &str) {
        ip_in(&self.inside, line);
    }

    pub fn links(&self) -> Vec<String> {
        let links = json(&self.inside, &["link"]);
        let name = |link: &Value| link["ifname"].as_str().unwrap().to_owned();
        links.as_array().unwrap().iter().map(name).collect()
    }

    /// But the kernel's own. All of them can be used.
    pub fn addresses(&self, interface: &str) -> BTreeSet<String> {
        let all = &json(&self.inside, &["address", "show", interface])[0]["addr_info"];
        let mut addresses = BTreeSet::new();
        for own in all.as_array().unwrap() {
            if own["scope"] != "link" {
                assert!(own["tentative"].is_null() && own["dadfailed"].is_null(), "{own}");
                addresses.insert(format!("{}/{}", ip_of(&own["local"]).unwrap(), own["prefixlen"]));
            }
        }
        addresses
    }

    /// In order.
    pub fn routes(&self, interface: &str) -> Vec<Route> {
        let mut routes = Vec::new();
        for (family, any) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
            let all =
                json(&self.inside, &[family, "route", "show", "table", "all", "dev", interface]);
            for route in all.as_array().unwrap().iter().filter(|route| route["type"].is_null()) {
                let to = route["dst"].as_str().unwrap();
                let to = if to == "default" { any } else { to };
                let gateway = ip_of(&route["gateway"]);
                let onlink = route["flags"].as_array().unwrap().contains(&"onlink".into());
                let ours = route["protocol"] == "static";
                assert_eq!(onlink, gateway.is_some(), "{route}");
                if ours && gateway.is_none() && family == "-4" {
                    assert_eq!(route["scope"], "link", "{route}");
                }
                routes.push(Route {
                    table: route["table"].as_str().unwrap_or("main").to_owned(),
                    to: to
                        .parse::<agent_api::IpNet>()
                        .unwrap_or_else(|_| to.parse::<IpAddr>().unwrap().into())
                        .to_string(),
                    gateway,
                    source: ip_of(&route["prefsrc"]),
                    ours,
                });
            }
        }
        routes.sort();
        routes
    }

    /// Whose packets look into table 1.
    pub fn rules(&self) -> BTreeSet<String> {
        let mut rules = BTreeSet::new();
        for family in ["-4", "-6"] {
            let all = json(&self.inside, &[family, "rule"]);
            let own = all.as_array().unwrap().iter().filter(|rule| rule["table"] == "1");
            for rule in own {
                assert!(rule["srclen"].is_null(), "a single address: {rule}");
                rules.insert(ip_of(&rule["src"]).unwrap().to_string());
            }
        }
        rules
    }

    pub fn accept_ra(&self, interface: &str) -> String {
        let inside = Namespace::open_or_make(&self.inside).unwrap();
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra");
        inside.enter(|| fs::read_to_string(path).unwrap().trim().to_owned()).unwrap()
    }

    pub fn events(&self) -> Events {
        Events::new(&Namespace::open_or_make(&self.inside).unwrap())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in [&self.inside, self.peer.name(), self.outside.name()] {
            if Path::new("/run/netns").join(name).exists() {
                // A DHCP client, where there is one.
                let pids = Command::new("ip").args(["netns", "pids", name]).output();
                let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
                for pid in pids.unwrap_or_default().split_whitespace() {
                    let _ = Command::new("kill").args(["-9", pid]).status();
                }
                remove(name);
            }
        }
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Of a text in JSON; None where there is none.
pub fn ip_of(value: &Value) -> Option<IpAddr> {
    value.as_str().map(ip)
}

pub fn set<const N: usize>(all: [&str; N]) -> BTreeSet<String> {
    all.map(str::to_owned).into()
}

pub fn ip_in(namespace: &str, line: &str) {
    let output = Command::new("ip").args(["-n", namespace]).args(line.split_whitespace()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn json(namespace: &str, arguments: &[&str]) -> Value {
    let output = Command::new("ip").args(["-n", namespace, "-j"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn remove(namespace: &str) {
    let status = Command::new("ip").args(["netns", "delete", namespace]).status();
    assert!(status.unwrap().success(), "{namespace}");
}
