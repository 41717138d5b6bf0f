//! The objects that the driver starts and stops, and what all of them together come to.
//!
//! An object is a load balancer, whose HAProxy configuration holds most of its listeners, or a listener
//! of UDP or SCTP, each of which has a keepalived configuration of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Serialize;

use crate::amphora::{Haproxy, Wanted};
use crate::lvs;
use crate::names::ObjectId;
use crate::understood::{Listener, Pool, Protocol, Understood, Unserved};

/// What an object asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub kind: Kind,
    load_balancer: String,
    listeners: Vec<Listener>,
    haproxy: Option<Haproxy>,
}

/// All objects that are there, started or not.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    by_id: BTreeMap<ObjectId, Object>,
    /// How many starts there were.
    starts: u64,
}

#[derive(Clone, Debug)]
struct Object {
    started: bool,
    /// Which start it was: of two objects the later one knows a shared pool better.
    start: u64,
    /// As it was started; a configuration that is newer waits for a reload.
    part: Part,
}

/// What an object is; the driver does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    LoadBalancer,
    UdpListener,
}

/// A listener, for `GET /listeners`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    status: &'static str,
    uuid: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Part {
    pub fn of_load_balancer(whole: &Haproxy) -> Self {
        Self {
            kind: Kind::LoadBalancer,
            load_balancer: whole.config.load_balancer.clone(),
            listeners: whole.config.listeners(),
            haproxy: Some(whole.clone()),
        }
    }

    /// The id is the one it was uploaded under; the driver reports and deletes it by that.
    pub fn of_udp_listener(id: &ObjectId, config: &lvs::Config) -> Self {
        let listener = config.listener().map(|mut listener| {
            listener.id = id.to_string();
            listener
        });
        Self {
            kind: Kind::UdpListener,
            load_balancer: config.load_balancer().to_owned(),
            listeners: listener.into_iter().collect(),
            haproxy: None,
        }
    }

    pub fn vips(&self) -> Vec<IpAddr> {
        let mut vips: Vec<_> = self.listeners.iter().flat_map(|it| it.vips.clone()).collect();
        vips.sort_unstable();
        vips.dedup();
        vips
    }
}

impl Objects {
    pub fn start(&mut self, id: &ObjectId, part: Part) {
        self.starts += 1;
        self.by_id.insert(id.clone(), Object { started: true, start: self.starts, part });
    }

    /// Nothing changes for one that is there already.
    pub fn add(&mut self, id: &ObjectId, part: Part) {
        self.by_id.entry(id.clone()).or_insert(Object { started: false, start: 0, part });
    }

    pub fn stop(&mut self, id: &ObjectId) {
        if let Some(object) = self.by_id.get_mut(id) {
            object.started = false;
        }
    }

    pub fn remove(&mut self, id: &ObjectId) {
        self.by_id.remove(id);
    }

    /// All that are started together, if they do not contradict each other.
    ///
    /// Listeners of UDP or SCTP may share a pool, and the driver uploads and reloads one after the
    /// other (Octavia 19, `rest_api_driver.py`, `update_amphora_listeners`): in between, the pool is
    /// what the last one says.
    pub fn wanted(&self) -> Result<Wanted, Unserved> {
        let started = || self.by_id.values().filter(|object| object.started);
        let parts = || started().map(|object| &object.part);
        let Some(first) = parts().next() else {
            return Ok(Wanted::default());
        };
        let mut listeners: Vec<_> = parts().flat_map(|part| part.listeners.clone()).collect();
        let shared = newest_pools(started().filter(|it| it.part.kind == Kind::UdpListener));
        let udp = |it: &&mut Listener| matches!(it.protocol, Protocol::Udp | Protocol::Sctp);
        for pool in listeners.iter_mut().filter(udp).flat_map(|listener| &mut listener.pools) {
            if let Some(newest) = shared.get(&pool.id[..]) {
                *pool = (*newest).clone();
            }
        }
        let understood = Understood { load_balancer: first.load_balancer.clone(), listeners };
        let desired = understood.desired()?;
        let haproxy = parts().filter_map(|part| part.haproxy.clone());
        Ok(Wanted {
            served: Some((understood, desired)),
            haproxy: haproxy.map(|it| (it.config.load_balancer.clone(), it)).collect(),
        })
    }

    /// First those of load balancers, which the stock agent never calls anything but active.
    pub fn rows(&self) -> Vec<Row> {
        let row = |object: &Object, listener: &Listener| Row {
            status: match object.part.kind {
                Kind::UdpListener if !object.started => "OFFLINE",
                Kind::UdpListener | Kind::LoadBalancer => "ACTIVE",
            },
            uuid: listener.id.clone(),
            kind: kind(listener.protocol),
        };
        let mut objects: Vec<&Object> = self.by_id.values().collect();
        objects.sort_by_key(|object| object.part.kind == Kind::UdpListener);
        let rows = objects.into_iter().flat_map(|object| {
            object.part.listeners.iter().map(move |listener| row(object, listener))
        });
        rows.collect()
    }

    /// Ids of all listeners, sorted.
    pub fn listeners(&self) -> Vec<String> {
        let listeners = self.by_id.values().flat_map(|object| &object.part.listeners);
        let mut ids: Vec<_> = listeners.map(|listener| listener.id.clone()).collect();
        ids.sort_unstable();
        ids
    }

    /// How many of a kind are started.
    pub fn started(&self, kind: Kind) -> usize {
        self.by_id.values().filter(|object| object.started && object.part.kind == kind).count()
    }
}

/// By id, each as the object that was started last has it.
fn newest_pools<'a>(objects: impl Iterator<Item = &'a Object>) -> HashMap<&'a str, &'a Pool> {
    let mut objects: Vec<_> = objects.collect();
    objects.sort_by_key(|object| object.start);
    let listeners = objects.into_iter().flat_map(|object| &object.part.listeners);
    listeners.flat_map(|it| &it.pools).map(|pool| (&pool.id[..], pool)).collect()
}

/// The stock agent calls SCTP listeners UDP too.
fn kind(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Http | Protocol::Prometheus => "HTTP",
        Protocol::TerminatedHttps => "TERMINATED_HTTPS",
        Protocol::Udp | Protocol::Sctp => "UDP",
    }
}
