//! Who serves which listener: the packet path, HAProxy beside it, or nobody.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::amphora::{Haproxy, Wanted};
use agent_api::rules::Rule;
use agent_api::understood::{Engine, Listener, Protocol};
use agent_api::{Desired, Name};

use crate::balancer::Serving;
use crate::guard;
use crate::record::Beside;

/// What can forward, and whom it may let in.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Why the packet path cannot be where the VIPs are, if so.
    pub broken: Option<&'a str>,
    /// The rules of a VIP that no security group guards; where none have come yet, nobody is let in.
    pub guarded: Option<&'a [Rule]>,
}

/// A division of all listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engines {
    /// What the packet path does, and is to tell of the rest.
    pub serving: Serving,
    /// Ids of the listeners that are HAProxy's.
    pub haproxy: BTreeSet<String>,
}

impl Engines {
    /// Of all that is wanted. `name` is that of the amphora, for where nothing is.
    pub fn of(wanted: &Wanted, name: &Name, means: Means<'_>) -> Self {
        let (listeners, mut desired) = match &wanted.served {
            Some((understood, desired)) => (&understood.listeners[..], desired.clone()),
            None => {
                let (listeners, pools) = (Vec::new(), Vec::new());
                (&[][..], Desired { name: name.clone(), listeners, pools })
            }
        };
        if means.broken.is_some() {
            desired.listeners.clear();
        }
        if let Some(rules) = means.guarded {
            desired.listeners.retain_mut(|listener| {
                let allowed = guard::allowed(rules, listener.protocol, listener.port);
                allowed.map(|networks| listener.allowed_networks = networks).is_some()
            });
        }
        let forwarded: BTreeSet<&str> = desired.listeners.iter().map(|it| &it.id[..]).collect();
        // Without a VIP there is nothing to serve: it is disabled, or its load balancer is.
        let others =
            listeners.iter().filter(|it| !it.vips.is_empty() && !forwarded.contains(&it.id[..]));
        let others: Vec<_> = others.map(|listener| beside(listener, means)).collect();
        let haproxy = others.iter().filter(|it| it.by.is_some()).map(|it| it.id.clone()).collect();
        Self { serving: Serving { desired, beside: others }, haproxy }
    }

    /// HAProxy's part of each load balancer, where it has one, with `more` listeners than its own.
    pub fn parts(&self, wanted: &Wanted, more: &BTreeSet<String>) -> BTreeMap<String, Haproxy> {
        let has = |id: &str| self.haproxy.contains(id) || more.contains(id);
        let parts = wanted.haproxy.iter().map(|(id, whole)| (id.clone(), whole.only(has)));
        parts.filter_map(|(id, part)| Some((id, part?))).collect()
    }
}

fn beside(listener: &Listener, means: Means<'_>) -> Beside {
    let (by, why) = match (&listener.engine, listener.protocol, means.broken) {
        (Engine::Haproxy(why), _, _) => (Some("haproxy"), why.to_string()),
        (Engine::Xdp, Protocol::Udp | Protocol::Sctp, Some(broken)) => (None, broken.to_owned()),
        (Engine::Xdp, _, Some(broken)) => (Some("haproxy"), broken.to_owned()),
        (Engine::Xdp, _, None) => (None, "no rule lets anybody in".to_owned()),
    };
    Beside {
        id: listener.id.clone(),
        vips: listener.vips.clone(),
        port: listener.port,
        protocol: listener.protocol.to_string(),
        by: by.map(str::to_owned),
        why,
    }
}
