//! What the machine sees of those who serve: what they have counted, how members stand, and all of it as
//! metrics. Never waits for what is being changed.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use agent_api::amphora::Failed;
use agent_api::durable;
use agent_api::understood::{Listener, Protocol};
use futures_util::future::join_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::Machine;
use crate::agent::forwarder::Observed;
use crate::agent::message::Known;
use crate::agent::metrics::{self, serve};
use crate::haproxy_stats::{self, Held, Row};
use crate::health::{self, Standings};
use crate::observe::stats::Stats;
use crate::observe::status::Count;
use crate::{haproxy, lock, vitals};

/// HAProxy's exporter is on this machine. With ten thousand members it takes a second.
const EXPORTER_TIMEOUT: Duration = Duration::from_secs(5);

/// What ends the names of HAProxy's sockets in the base path.
const SOCKET: &str = ".sock";

/// What all who serve have counted and know.
#[derive(Debug)]
pub struct Seen {
    /// None while the packet path does not run.
    pub forwarded: Option<Stats>,
    pub standings: Standings,
    /// What the packet path did not forward.
    pub frames: Vec<Count>,
    /// HAProxy's.
    pub rows: Vec<Row>,
}

impl Machine {
    /// What the packet path and the HAProxy processes have counted, and where the members stand that are
    /// probed; where nobody probes them yet, as before the start. Never waits for what is being changed.
    pub async fn observe(&self) -> Seen {
        let observed = match self.inside.get() {
            Some(inside) => inside.forwarder.observe().await,
            None => None,
        };
        let (forwarded, standings, frames) = match observed {
            Some(Observed { stats, standings, frames }) => (Some(stats), standings, frames),
            None => {
                let kept = health::kept(&health::file(&self.config.borrow().amphora_id));
                (None, kept, Vec::new())
            }
        };
        let mut rows = self.rows().await;
        rows.extend(self.last_words.hear());
        Seen { forwarded, standings, frames, rows }
    }

    /// What was observed is told.
    pub fn told(&self) {
        self.last_words.told();
    }

    /// What the HAProxy processes say now, also those that leave. Within seconds, whatever hangs.
    async fn rows(&self) -> Vec<Row> {
        let run = lock::run_directory(&self.config.borrow().amphora_id);
        let sockets = self.haproxy_sockets();
        let asked = sockets.iter().map(async |(load_balancer, socket)| {
            let master = haproxy::master_socket(&run, load_balancer);
            let (rows, leaving) =
                tokio::join!(haproxy_stats::rows(socket), haproxy_stats::leaving(&master));
            let rows = match rows {
                Ok(rows) => rows,
                // One that died is started again; one of before a reboot is nobody's.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Vec::new(),
                Err(error) => {
                    warn!("{}: {error}", socket.display());
                    Vec::new()
                }
            };
            [rows, leaving].concat()
        });
        join_all(asked).await.concat()
    }

    /// Of each load balancer that has, or had, HAProxy.
    fn haproxy_sockets(&self) -> Vec<(String, PathBuf)> {
        let base = self.config.borrow().base_path.clone();
        let names = durable::names(&base).unwrap_or_default();
        let load_balancers = names.iter().filter_map(|name| name.strip_suffix(SOCKET));
        load_balancers.map(|it| (it.to_owned(), base.join(format!("{it}{SOCKET}")))).collect()
    }

    /// Notes what the workers have counted that a reload may end at once, and takes hold of those that can
    /// still be asked then.
    pub(super) async fn hold_workers(&self) -> Vec<Held> {
        self.last_words.note(self.rows().await);
        self.last_words.hold(self.haproxy_sockets().into_iter().map(|(_, socket)| socket)).await
    }

    /// All metrics. Fails where nobody knows any.
    pub async fn exposition(&self, listeners: &[Listener]) -> Result<String, Failed> {
        let wanted = listeners.iter().any(|listener| listener.protocol == Protocol::Prometheus);
        let _turn = self.exposing.lock().await;
        let exporter = if wanted { Some(self.exporter().await) } else { None };
        let Seen { forwarded, standings, frames, rows } = self.observe().await;
        if let (Some(Err(why)), None, true) = (&exporter, &forwarded, rows.is_empty()) {
            return Err(Failed(format!("HAProxy's exporter: {why}")));
        }
        let starting = self.is_starting();
        let known = Known {
            listeners,
            forwarded: forwarded.as_ref(),
            standings: &standings,
            rows: &rows,
            starting,
        };
        let exporter = exporter.as_ref().map(|it| it.as_deref().map_err(|why| &why[..]));
        let (cpu, memory) = vitals::utilization()?;
        let utilization = metrics::Utilization { cpu, memory };
        let observed = metrics::Observed { known, frames: &frames, exporter, utilization };
        Ok(metrics::metrics(&observed).to_string())
    }

    async fn exporter(&self) -> Result<String, String> {
        let Some(inside) = self.inside.get() else {
            return Err("there is no namespace yet".to_owned());
        };
        let connect = || {
            let stream = std::net::TcpStream::connect_timeout(
                &(Ipv4Addr::LOCALHOST, serve::EXPORTER).into(),
                EXPORTER_TIMEOUT,
            )?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let namespace = inside.namespace.try_clone().map_err(|error| error.to_string())?;
        let asked = async {
            let connected = spawn_blocking(move || namespace.enter(connect).flatten()).await;
            serve::exported(TcpStream::from_std(connected.map_err(io::Error::other)??)?).await
        };
        match timeout(EXPORTER_TIMEOUT, asked).await {
            Ok(text) => text.map_err(|error: io::Error| error.to_string()),
            Err(_) => Err(format!("no answer within {EXPORTER_TIMEOUT:?}")),
        }
    }

    /// Listens on a port of the loopback interface in the namespace of the load balancer.
    pub async fn listen_inside(&self, port: u16) -> io::Result<TcpListener> {
        let Some(inside) = self.inside.get() else {
            return Err(io::Error::other("there is no namespace yet"));
        };
        let bind = || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        TcpListener::from_std(inside.namespace.enter(bind).flatten()?)
    }
}
