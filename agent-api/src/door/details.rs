//! What the amphora says of itself.

use std::collections::BTreeMap;

use serde::Serialize;

use super::objects::{Kind, Objects};
use super::{API_VERSION, Answer, Door};
use crate::amphora::{Amphora, Cpu, Disk, Failed, Memory, Traffic, Versions, Vitals};

impl<A: Amphora> Door<A> {
    pub(super) async fn info(&self) -> Answer {
        #[derive(Serialize)]
        struct Info {
            #[serde(flatten)]
            versions: Versions,
            api_version: &'static str,
        }
        match self.amphora.versions().await {
            Ok(versions) => Answer::json(&Info { versions, api_version: API_VERSION }),
            Err(Failed(why)) => Answer::failed("Error reading versions", &why),
        }
    }

    pub(super) async fn details(&self) -> Answer {
        let facts = (self.amphora.versions().await, self.amphora.vitals().await);
        match facts {
            (Ok(versions), Ok(vitals)) => {
                Answer::json(&Details::new(versions, vitals, &self.objects()))
            }
            (Err(Failed(why)), _) | (_, Err(Failed(why))) => {
                Answer::failed("Error reading details", &why)
            }
        }
    }

    pub(super) async fn metrics(&self) -> Answer {
        match self.amphora.metrics(&self.listeners()).await {
            Ok(text) => Answer::exposition(text),
            Err(Failed(why)) => Answer::failed("Error reading metrics", &why),
        }
    }

    pub(super) fn list(&self) -> Answer {
        Answer::json(&self.objects().rows())
    }
}

/// For `GET /details`: what the controller reads, in the stock agent's order.
#[derive(Serialize)]
struct Details {
    hostname: String,
    haproxy_version: String,
    api_version: &'static str,
    networks: BTreeMap<String, Traffic>,
    active: bool,
    /// Load balancers that are started, whoever serves their listeners.
    haproxy_count: usize,
    cpu_count: u32,
    cpu: Cpu,
    memory: Memory,
    disk: Disk,
    load: [String; 3],
    /// Profiles of tuned. With `amphora` among them the controller would lay out HAProxy's threads.
    active_tuned_profiles: &'static str,
    /// Always this, as in the stock agent.
    topology: &'static str,
    topology_status: &'static str,
    listeners: Vec<String>,
    packages: BTreeMap<String, String>,
    lvs_listener_process_count: usize,
    keepalived_version: String,
    ipvsadm_version: String,
}

impl Details {
    fn new(versions: Versions, vitals: Vitals, objects: &Objects) -> Self {
        Self {
            hostname: versions.hostname,
            haproxy_version: versions.haproxy_version,
            api_version: API_VERSION,
            networks: vitals.networks,
            active: true,
            haproxy_count: objects.started(Kind::LoadBalancer),
            cpu_count: vitals.cpu_count,
            cpu: vitals.cpu,
            memory: vitals.memory,
            disk: vitals.disk,
            load: vitals.load,
            active_tuned_profiles: "",
            topology: "SINGLE",
            topology_status: "OK",
            listeners: objects.listeners(),
            packages: BTreeMap::new(),
            lvs_listener_process_count: objects.started(Kind::UdpListener),
            keepalived_version: versions.keepalived_version,
            ipvsadm_version: versions.ipvsadm_version,
        }
    }
}
