//! The amphora agent's API, as an unmodified Octavia speaks it (`amphorae/backends/agent/api_server`).
//!
//! [`Door::answer`] takes a request and gives the answer; [`listen()`] is the server around it. What is
//! uploaded is checked, stored and, when the controller says so, applied: always all that is wanted at
//! once, so that a request may come twice or be lost and nothing is left half done.

mod answer;
mod details;
mod listen;
mod objects;
mod own;
mod plugs;
mod routes;
pub mod tls;
mod uploads;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use hyper::Method;
use hyper::body::Bytes;
use tokio::sync::watch;
use tracing::warn;

pub use answer::Answer;
use answer::Framework;
pub use listen::listen;
use objects::Objects;
use routes::{Call, NoCall};

use crate::amphora::{Amphora, Failed};
use crate::config::AgentConfig;
use crate::store::{self, Store};
use crate::understood::Listener;

/// The version of the API that this is; the driver knows exactly this one.
const API_VERSION: &str = "1.0";

/// A request, its body read.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    /// As on the wire, without a query.
    pub path: String,
    /// `Content-Type`, if there is one.
    pub content_type: Option<String>,
    pub body: Bytes,
}

/// The door of one amphora.
pub struct Door<A> {
    amphora: A,
    /// Where the configuration was read from, and is written to.
    file: PathBuf,
    config: watch::Sender<Arc<AgentConfig>>,
    store: Mutex<Store>,
    objects: Mutex<Objects>,
    /// Held by the one request that changes something.
    turn: tokio::sync::Mutex<()>,
}

/// Why the door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl<A: Amphora> Door<A> {
    /// Reads what was stored. The machine is left as it is until [`restore`](Self::restore).
    ///
    /// What is wrong with a stored file is told and left out: the controller must find an amphora that
    /// answers, or it cannot mend it. The configuration is what `config` holds now, and what the
    /// controller changes in it is sent there.
    pub fn open(
        amphora: A,
        file: PathBuf,
        config: watch::Sender<Arc<AgentConfig>>,
    ) -> Result<Self, Error> {
        let paths = config.borrow().paths();
        let (store, troubles) = Store::open(paths)?;
        for trouble in &troubles {
            warn!("{trouble}");
        }
        let door = Self {
            amphora,
            file,
            config,
            store: Mutex::new(store),
            objects: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        door.set_objects(door.stored());
        Ok(door)
    }

    /// The configuration, now and whenever it changes.
    pub fn config(&self) -> watch::Receiver<Arc<AgentConfig>> {
        self.config.subscribe()
    }

    /// The machine behind it.
    pub fn amphora(&self) -> &A {
        &self.amphora
    }

    /// All listeners that are wanted.
    pub fn listeners(&self) -> Vec<Listener> {
        // Contradictions were refused before.
        let wanted = self.objects().wanted().unwrap_or_default();
        wanted.served.map(|(understood, _)| understood.listeners).unwrap_or_default()
    }

    /// Brings the machine to what was stored. What cannot be brought back is told: the next request
    /// tries all of it again.
    pub async fn restore(&self) {
        let _turn = self.turn.lock().await;
        let plugs = self.store().document().plugs.clone();
        if let Err(failed) = self.amphora.restore(&plugs).await {
            warn!("what was plugged is not back: {failed}");
        }
        if let Err(Failed(why)) = self.commit(self.objects(), &[]).await {
            warn!("what was served before is not: {why}");
        }
    }

    /// What is stored, as far as it is understood and without contradictions.
    fn stored(&self) -> Objects {
        let mut objects = Objects::default();
        let (stored, stopped) = {
            let store = self.store();
            let stored = [store.load_balancers(), store.lvs_listeners()].concat();
            (stored, store.document().stopped.clone())
        };
        for id in stored {
            let started = !stopped.contains(&id);
            let part = match self.part(&id) {
                Ok(Some(part)) => part,
                Ok(None) => continue,
                Err(why) => {
                    warn!("{id} is not served: {why}");
                    continue;
                }
            };
            if started {
                let mut with = objects.clone();
                with.start(&id, part.clone());
                match with.wanted() {
                    Ok(_) => objects = with,
                    Err(why) => warn!("{id} is not served: {why}"),
                }
            }
            objects.add(&id, part);
        }
        objects
    }

    /// The answer, which is never later than the amphora's.
    pub async fn answer(&self, request: Request) -> Answer {
        let Request { method, path, .. } = &request;
        match routes::find(method, path) {
            Ok((call, captured)) => {
                let answer = self.call(call, &captured, &request).await;
                if method == Method::HEAD { answer.without_body() } else { answer }
            }
            Err(NoCall::NotFound) => Answer::framework(Framework::NotFound),
            Err(NoCall::MethodNotAllowed) => Answer::framework(Framework::MethodNotAllowed),
            Err(NoCall::Options(methods)) => Answer::options(&methods),
        }
    }

    async fn call(&self, call: Call, captured: &[String], request: &Request) -> Answer {
        let part = |at: usize| captured.get(at).map_or("", |part| &part[..]);
        let body = &request.body;
        match call {
            Call::Discovery => Answer::json(&serde_json::json!({ "api_version": API_VERSION })),
            Call::Info => self.info().await,
            Call::Details => self.details().await,
            Call::Listeners => self.list(),
            Call::PutHaproxy => self.put_haproxy(part(1), body).await,
            Call::GetHaproxy => self.get_haproxy(part(0)).await,
            Call::Act => self.act(part(0), part(1)).await,
            Call::Delete => self.delete(part(0)).await,
            Call::PutLvs => self.put_lvs(part(1), body).await,
            Call::GetLvs => self.get_lvs(part(0)).await,
            Call::PutCertificate => self.put_certificate(part(0), part(1), body).await,
            Call::GetCertificate => self.get_certificate(part(0), part(1)).await,
            Call::DeleteCertificate => self.delete_certificate(part(0), part(1)).await,
            Call::PlugVip => self.plug_vip(part(0), request).await,
            Call::PlugNetwork => self.plug_network(request).await,
            Call::PutServerCertificate => self.put_server_certificate(body).await,
            Call::PutConfig => self.put_config(body).await,
            Call::PutVrrp => self.put_vrrp(body).await,
            Call::ActVrrp => self.act_vrrp(part(0)).await,
            Call::Interface => self.interface(part(0)).await,
            Call::Metrics => self.metrics().await,
            Call::PutRules => self.put_rules(part(0), request).await,
        }
    }

    /// Applies all that is wanted; the objects are what they were where that fails.
    async fn commit(&self, objects: Objects, announce: &[IpAddr]) -> Result<(), Failed> {
        let wanted = objects.wanted().map_err(|error| Failed(error.to_string()))?;
        self.amphora.apply(&wanted, announce).await?;
        self.set_objects(objects);
        Ok(())
    }

    fn set_objects(&self, objects: Objects) {
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = objects;
    }

    fn objects(&self) -> Objects {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Held for the length of a call: what it does is on the disk before an answer says so, and the
    /// files are small.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
