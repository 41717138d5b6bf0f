//! From HAProxy's words to ours.

use std::net::SocketAddr;

use super::Config;
use super::backend::Backend;
use super::frontend::{DefaultBackend, Frontend, Mode};
use crate::classify::{self, DefaultPool};
use crate::desired::LogFormat;
use crate::understood::{Engine, Layer7, Listener, Member, Pool, Protocol, Server};

impl Config {
    /// All listeners, and who serves each. The exporter of metrics is none.
    pub fn listeners(&self) -> Vec<Listener> {
        self.meaning.frontends.iter().map(|frontend| self.listener(frontend)).collect()
    }

    fn listener(&self, frontend: &Frontend) -> Listener {
        let own = || {
            let all = self.meaning.backends.iter();
            all.filter(|((listener, _), _)| *listener == frontend.id).map(|(_, backend)| backend)
        };
        let default_pool = match &frontend.default {
            DefaultBackend::Pool(target) => Some(target.pool.clone()),
            DefaultBackend::Nowhere | DefaultBackend::Metrics => None,
        };
        let is_default = |backend: &&Backend| Some(&backend.name.pool) == default_pool.as_ref();
        let default = own().find(is_default);
        let mut pools: Vec<&Backend> = own().collect();
        pools.sort_by_key(|backend| !is_default(backend));
        let mut listener = Listener {
            id: frontend.id.clone(),
            vips: frontend.binds.iter().map(|bind| bind.address).collect(),
            port: frontend.binds.first().map_or(0, |bind| bind.port),
            protocol: protocol(frontend),
            engine: Engine::Haproxy(Layer7::NoPool),
            connection_limit: frontend.maxconn,
            client_timeout_ms: frontend.client_timeout_ms,
            server_timeout_ms: default.map_or(0, |backend| backend.server_timeout_ms),
            default_pool,
            pools: pools.into_iter().map(pool).collect(),
            log_format: self.log_format(frontend),
        };
        let default = default.map(|backend| DefaultPool {
            id: &backend.name.pool,
            speaks_http: backend.mode == Mode::Http,
            proxy_protocol: backend.servers.iter().any(|server| server.proxy.is_some()),
            tls: backend.servers.iter().any(|server| server.tls.enabled),
        });
        listener.engine = classify::engine(&listener, !frontend.rules.is_empty(), default);
        listener
    }

    /// HAProxy logs where all three say so: `log` where to, `log global` that, the listener how.
    fn log_format(&self, frontend: &Frontend) -> Option<LogFormat> {
        let facility = u8::try_from(self.meaning.global.user_facility?).ok()?;
        let text = frontend.log_format.clone().filter(|_| self.meaning.logs)?;
        Some(LogFormat { text, facility })
    }
}

fn protocol(frontend: &Frontend) -> Protocol {
    // Without a certificate of its own it has no `ssl`, and is still told by where it sends plain HTTP.
    let by_tls = frontend.binds.iter().any(|bind| bind.tls.enabled);
    let terminates = by_tls || frontend.redirects_to_tls;
    match (&frontend.default, terminates, frontend.mode) {
        (DefaultBackend::Metrics, _, _) => Protocol::Prometheus,
        (_, true, _) => Protocol::TerminatedHttps,
        (_, false, Mode::Http) => Protocol::Http,
        (_, false, Mode::Tcp) => Protocol::Tcp,
    }
}

fn pool(backend: &Backend) -> Pool {
    let members = backend.servers.iter().map(|server| {
        let check = server.check.as_ref();
        let address = check.and_then(|check| check.address);
        let port = check.and_then(|check| check.port);
        let elsewhere = address.is_some() || port.is_some();
        let (address, port) = (address.unwrap_or(server.address), port.unwrap_or(server.port));
        Member {
            id: server.id.clone(),
            enabled: !server.disabled,
            server: Some(Server {
                address: server.address,
                port: server.port,
                weight: server.weight,
                backup: server.backup,
                probed_at: elsewhere.then_some(SocketAddr::new(address, port)),
            }),
        }
    });
    Pool {
        id: backend.name.pool.clone(),
        algorithm: backend.algorithm,
        persistence: backend.persistence.clone(),
        monitor: backend.monitor.clone(),
        enabled: true,
        members: members.collect(),
    }
}
