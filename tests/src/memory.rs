//! An amphora that exists in memory: what the door is tested with.
//!
//! It has interfaces by name and can be told to fail; all it does is remember.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_api::amphora::{
    Action, Amphora, Cpu, Disk, Failed, Haproxy, Memory as MemoryKib, PlugError, Plugged, Traffic,
    Versions, Vitals, Wanted,
};
use agent_api::document::Plugs;
use agent_api::plug::{Mac, NetworkPlug, VipPlug};
use agent_api::rules::Rule;
use agent_api::understood::Listener;
use serde::Deserialize;

/// The amphora; its machine can be looked at and changed from outside.
#[derive(Debug, Default)]
pub struct Memory {
    /// A folder by which another process changes the machine: `nics.json` is its `host` and
    /// `addresses`, and the text of `fail` is its `fault`. Read before every request.
    control: Option<PathBuf>,
    machine: Mutex<Machine>,
}

#[derive(Debug, Default)]
pub struct Machine {
    /// Interfaces that are not plugged yet.
    pub host: BTreeMap<Mac, String>,
    /// Interfaces in the namespace.
    pub inside: BTreeMap<Mac, String>,
    pub addresses: BTreeMap<IpAddr, String>,
    /// While there is one, whatever is applied fails for this reason.
    pub fault: Option<String>,
    pub applied: Wanted,
    /// How often something else was applied than before.
    pub changes: usize,
    pub announced: Vec<IpAddr>,
    pub rules: BTreeMap<String, Vec<Rule>>,
    pub vrrp: Option<Action>,
}

#[derive(Deserialize)]
struct Nics {
    host: BTreeMap<Mac, String>,
    addresses: BTreeMap<IpAddr, String>,
}

impl Memory {
    pub fn controlled_by(folder: PathBuf) -> Self {
        Self { control: Some(folder), machine: Mutex::default() }
    }

    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &self.control {
            machine.fault = fs::read_to_string(folder.join("fail")).ok();
            let nics = fs::read(folder.join("nics.json")).ok();
            if let Some(nics) = nics.and_then(|json| serde_json::from_slice::<Nics>(&json).ok()) {
                machine.host = nics.host;
                machine.addresses = nics.addresses;
            }
        }
        machine
    }
}

impl Machine {
    fn works(&self) -> Result<(), Failed> {
        self.fault.clone().map_or(Ok(()), |fault| Err(Failed(fault)))
    }

    fn plug(&mut self, mac: Mac, name: String, own: Option<IpAddr>) -> Plugged {
        self.host.remove(&mac);
        self.addresses.extend(own.map(|own| (own, name.clone())));
        match self.inside.insert(mac, name.clone()) {
            Some(_) => Plugged::Updated(name),
            None => Plugged::New(name),
        }
    }

    fn first_free(&self) -> String {
        let free = |name: &String| !self.inside.values().any(|taken| taken == name);
        (2..).map(|number| format!("eth{number}")).find(free).unwrap_or_default()
    }
}

impl Amphora for Memory {
    async fn versions(&self) -> Result<Versions, Failed> {
        Ok(Versions {
            hostname: "amphora".into(),
            haproxy_version: "2.6.12-1+deb12u2".into(),
            keepalived_version: "1:2.2.7-1+b2".into(),
            ipvsadm_version: "1:1.31-1+b1".into(),
        })
    }

    async fn metrics(&self, listeners: &[Listener]) -> Result<String, Failed> {
        Ok(format!("listeners {}\n", listeners.len()))
    }

    async fn vitals(&self) -> Result<Vitals, Failed> {
        let traffic = |name: &String| (name.clone(), Traffic { network_tx: 11, network_rx: 22 });
        Ok(Vitals {
            networks: self.machine().inside.values().map(traffic).collect(),
            cpu_count: 2,
            cpu: Cpu {
                total: 946_610,
                user: "220469".into(),
                system: "156308".into(),
                soft_irq: "1049".into(),
            },
            memory: MemoryKib {
                total: 1_000_000,
                free: 500_000,
                buffers: 10_000,
                cached: 100_000,
                swap_used: 0,
                shared: 1000,
                slab: 2000,
            },
            disk: Disk { used: 1 << 30, available: 2 << 30 },
            load: ["0.10".into(), "0.20".into(), "0.30".into()],
        })
    }

    async fn interface(&self, ip: IpAddr) -> Result<Option<String>, Failed> {
        Ok(self.machine().addresses.get(&ip).cloned())
    }

    async fn restore(&self, plugs: &Plugs) -> Result<(), Failed> {
        if let Some(vip) = &plugs.vip {
            self.machine().plug(vip.mac, "eth1".into(), vip.own);
        }
        for network in plugs.networks.values().filter(|network| network.vip.is_none()) {
            let mut machine = self.machine();
            let name = machine.first_free();
            machine.plug(network.mac, name, None);
        }
        Ok(())
    }

    async fn plug_vip(&self, plug: &VipPlug) -> Result<Plugged, PlugError> {
        let mut machine = self.machine();
        if machine.inside.contains_key(&plug.mac) {
            return Err(PlugError::Exists);
        }
        if !machine.host.contains_key(&plug.mac) {
            return Err(PlugError::NotFound);
        }
        machine.works()?;
        Ok(machine.plug(plug.mac, "eth1".into(), plug.own))
    }

    async fn plug_network(&self, plug: &NetworkPlug) -> Result<Plugged, PlugError> {
        let mut machine = self.machine();
        let own = plug.addresses.iter().flatten().map(|address| address.address).next();
        if let Some(name) = machine.inside.get(&plug.mac).cloned() {
            return Ok(machine.plug(plug.mac, name, own));
        }
        if !machine.host.contains_key(&plug.mac) {
            return Err(PlugError::NotFound);
        }
        machine.works()?;
        let name = machine.first_free();
        Ok(machine.plug(plug.mac, name, own))
    }

    async fn guard(&self, interface: &str, rules: &[Rule]) -> Result<(), Failed> {
        let mut machine = self.machine();
        machine.works()?;
        machine.rules.insert(interface.to_owned(), rules.to_vec());
        Ok(())
    }

    async fn check(&self, _: &Haproxy) -> Result<(), Failed> {
        Ok(())
    }

    async fn apply(&self, wanted: &Wanted, announce: &[IpAddr]) -> Result<(), Failed> {
        let mut machine = self.machine();
        machine.works()?;
        if machine.applied != *wanted {
            machine.applied = wanted.clone();
            machine.changes += 1;
        }
        machine.announced = announce.to_vec();
        Ok(())
    }

    async fn vrrp(&self, action: Action) -> Result<(), Failed> {
        let mut machine = self.machine();
        machine.works()?;
        machine.vrrp = Some(action);
        Ok(())
    }
}
