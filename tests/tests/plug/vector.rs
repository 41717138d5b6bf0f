//! The vectors of interfaces, and the kernel held against them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use agent_api::amphora::{PlugError, Plugged};
use agent_api::config::Topology;
use agent_api::plug::{Mac, NetworkPlug, VipPlug};
use serde_json::Value;

use super::{Bench, Route, ip_of, json};

/// A request, and the interface file that the stock agent makes of it.
pub struct Vector {
    pub name: String,
    pub request: Request,
    topology: Topology,
    pub file: Value,
}

#[derive(Clone)]
pub enum Request {
    Vip(VipPlug),
    Network(NetworkPlug),
}

impl Vector {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/interfaces");

    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir(Self::FOLDER).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: BTreeSet<_> = names.collect();
        let stems = names.iter().map(|name| name.strip_suffix(".json").unwrap());
        stems.filter(|stem| !stem.contains(".eth")).map(Self::named).collect()
    }

    pub fn named(name: &str) -> Self {
        let read = |file: &str| -> Value {
            let content = fs::read(Path::new(Self::FOLDER).join(file)).unwrap();
            serde_json::from_slice(&content).unwrap()
        };
        let sidecar = read(&format!("{name}.json"));
        let body = sidecar["request"]["json"].to_string();
        let path = sidecar["request"]["path"].as_str().unwrap();
        let request = match path.strip_prefix("/1.0/plug/vip/") {
            Some(vip) => Request::Vip(VipPlug::from_json(vip, body.as_bytes()).unwrap()),
            None => Request::Network(NetworkPlug::from_json(body.as_bytes()).unwrap()),
        };
        let pair = sidecar["topology"] == "ACTIVE_STANDBY";
        Self {
            name: name.to_owned(),
            request,
            topology: if pair { Topology::ActiveStandby } else { Topology::Single },
            file: read(sidecar["file"].as_str().unwrap()),
        }
    }

    pub fn mac(&self) -> String {
        let mac: Mac = match &self.request {
            Request::Vip(plug) => plug.mac,
            Request::Network(plug) => plug.mac,
        };
        mac.to_string()
    }

    pub fn plug(&self, bench: &Bench) -> Result<Plugged, PlugError> {
        match &self.request {
            Request::Vip(plug) => bench.plug_vip(plug, self.topology),
            Request::Network(plug) => bench.plug_network(plug, self.topology),
        }
    }
}

/// The kernel against the stock agent's interface file.
pub fn check(bench: &Bench, vector: &Vector) {
    let (name, file) = (&vector.name, &vector.file);
    let interface = file["name"].as_str().unwrap();
    let list = |key: &str| file[key].as_array().unwrap().iter();
    let own = list("addresses").filter(|own| own["address"].is_string());
    let own = own.filter(|own| own["octavia_owned"] != false);
    let own = own.map(|own| format!("{}/{}", ip_of(&own["address"]).unwrap(), own["prefixlen"]));
    assert_eq!(bench.addresses(interface), own.collect(), "{name}");

    let mut want: Vec<Route> = Vec::new();
    for route in list("routes") {
        let route = Route {
            to: route["dst"].as_str().unwrap().parse::<agent_api::IpNet>().unwrap().to_string(),
            table: route["table"].as_u64().map_or("main".to_owned(), |table| table.to_string()),
            gateway: ip_of(&route["gateway"]),
            source: ip_of(&route["prefsrc"]),
            ours: true,
        };
        // The kernel refuses the stock agent any further route to the same place.
        if !want.iter().any(|first| (&first.to, &first.table) == (&route.to, &route.table)) {
            want.push(route);
        }
    }
    let actual = bench.routes(interface);
    for want in &want {
        // The kernel makes one to the network of an address by itself, and refuses another.
        let made = |route: &&Route| {
            !route.ours
                && route.gateway.is_none()
                && (&route.to, &route.table) == (&want.to, &want.table)
        };
        let bare = want.gateway.is_none() && want.source.is_none();
        let there = actual.contains(want) || bare && actual.iter().any(|route| made(&route));
        assert!(there, "{name}: {want:?} of {actual:?}");
    }
    for route in actual.iter().filter(|route| route.ours) {
        assert!(want.contains(route), "{name}: {route:?} is not wanted");
    }

    if file["if_type"] == "vip" {
        let rules = list("rules").map(|rule| ip_of(&rule["src"]).unwrap().to_string());
        assert_eq!(bench.rules(), rules.collect(), "{name}");
    }
    let link = &json(&bench.inside, &["link", "show", interface])[0];
    assert_eq!(link["mtu"], file["mtu"].as_u64().unwrap_or(1500), "{name}");
    assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{name}: {link}");
    let slaac = list("addresses").any(|own| own["ipv6auto"] == true);
    assert_eq!(bench.accept_ra(interface), if slaac { "2" } else { "0" }, "{name}");
}
