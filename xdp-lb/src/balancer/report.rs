//! What the daemon writes down for those who look.

use std::net::IpAddr;

use agent_api::understood::Persistence;
use xdp_lb_ebpf::abi::{self, BACKEND_STICKY, BACKEND_UP};

use super::Balancer;
use crate::record::{Backend, Leaving, Listener, Pool, Record, State};
use crate::tables::{BackendName, Tables, address};

impl Balancer {
    pub(super) fn describe(&self) -> Record {
        let nothing = Tables::default();
        let actual = self.actual.as_ref().unwrap_or(&nothing);
        Record {
            name: self.options.name.to_string(),
            pid: std::process::id(),
            error: self.refused.clone(),
            interfaces: self.ports.interfaces().to_vec(),
            listeners: self.listeners(actual),
            leaving: self.leaving(actual),
            beside: self.serving.beside.clone(),
            pools: self.serving.desired.pools.iter().map(pool).collect(),
            backends: actual
                .backends
                .iter()
                .map(|(id, backend)| self.backend(*id, backend, actual))
                .collect(),
        }
    }

    fn listeners(&self, actual: &Tables) -> Vec<Listener> {
        let number = |id: &String| {
            let mut names = actual.names.listeners.iter();
            names.find(|(_, name)| *name == id).map(|(number, _)| *number)
        };
        let listener = |listener: &agent_api::Listener| Listener {
            number: number(&listener.id).filter(|_| listener.enabled),
            id: listener.id.clone(),
            vips: listener.vips.clone(),
            port: listener.port,
            protocol: listener.protocol.to_string(),
            pool: listener.pool.clone(),
            connection_limit: listener.connection_limit,
            counted: number(&listener.id)
                .and_then(|number| self.counted.get(&number).copied())
                .unwrap_or_default(),
        };
        self.serving.desired.listeners.iter().map(listener).collect()
    }

    fn leaving(&self, actual: &Tables) -> Vec<Leaving> {
        let wanted =
            |id: &String| self.serving.desired.listeners.iter().any(|listener| listener.id == *id);
        let left = actual.names.listeners.iter().filter(|(_, id)| !wanted(id));
        let counted = |number| self.counted.get(number).copied().unwrap_or_default();
        left.map(|(number, id)| Leaving {
            number: *number,
            id: id.clone(),
            counted: counted(number),
        })
        .collect()
    }

    fn backend(&self, number: u32, backend: &abi::Backend, actual: &Tables) -> Backend {
        let name = actual.names.backends.get(&number);
        let pool = self
            .serving
            .desired
            .pools
            .iter()
            .find(|pool| name.is_some_and(|name| name.pool == pool.id));
        let member = pool.and_then(|pool| {
            pool.members.iter().find(|member| name.is_some_and(|name| name.member == member.id))
        });
        let (state, why, change) = match (member, pool) {
            _ if backend.flags & BACKEND_UP != 0 => (State::Up, None, None),
            (Some(member), _) if backend.flags & BACKEND_STICKY != 0 => match member.weight {
                0 => (State::Draining, None, Some("a weight above 0".to_owned())),
                _ => (State::Backup, None, Some("the loss of all others".to_owned())),
            },
            (Some(member), Some(pool)) if !member.enabled || !pool.enabled => {
                let who = if member.enabled { "its pool" } else { "it" };
                (
                    State::Disabled,
                    Some(format!("{who} is disabled")),
                    Some(format!("enabling {who}")),
                )
            }
            (Some(_), _) => {
                let (why, change) = self.down(address(backend.addr), pool, name);
                (State::Down, why, change)
            }
            (None, _) => (State::Leaving, None, None),
        };
        let text = |part: Option<&String>| part.cloned().unwrap_or_else(|| "?".to_owned());
        Backend {
            number,
            listener: text(name.map(|name| &name.listener)),
            pool: text(name.map(|name| &name.pool)),
            member: text(name.map(|name| &name.member)),
            address: address(backend.addr),
            port: u16::from_be_bytes(backend.port),
            weight: backend.weight,
            state,
            why,
            change,
        }
    }

    /// Why a member is down, and what would bring it back.
    fn down(
        &self,
        member: IpAddr,
        pool: Option<&agent_api::Pool>,
        name: Option<&BackendName>,
    ) -> (Option<String>, Option<String>) {
        if let Err(why) = self.hop(member) {
            return (Some(why.to_string()), Some(why.mend()));
        }
        let ill = name.and_then(|name| self.down.get(&(name.pool.clone(), name.member.clone())));
        let monitor = pool.and_then(|pool| pool.monitor.as_ref()).filter(|_| ill.is_some());
        let passing = monitor.map(|monitor| match monitor.rise {
            0 | 1 => format!("a probe that passes ({monitor})"),
            rise => format!("{rise} probes in a row that pass ({monitor})"),
        });
        (ill.cloned(), passing)
    }
}

fn pool(pool: &agent_api::Pool) -> Pool {
    Pool {
        id: pool.id.clone(),
        algorithm: pool.algorithm,
        persistence: pool.persistence.map(Persistence::SourceIp),
        monitor: pool.monitor.clone(),
    }
}
