//! `xdp-lb agent`: the daemon of an Octavia amphora.
//!
//! The door answers the controller, the machine does what it says, the heart tells the health manager.
//! It stops at a signal and leaves everything in place: packets go on, HAProxy and keepalived too, and
//! the next start finds them.

mod engines;
mod forwarder;
mod heart;
mod journal;
mod machine;
mod message;
pub mod metrics;
mod pools;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_api::config::{TlsMinimum, wait_for};
use agent_api::door::tls::Identity;
use agent_api::door::{self, Door, listen};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use crate::lock;
use crate::run::tell_systemd;
use heart::Heart;
use machine::Machine;
pub use machine::{KEEPALIVED, Setup};

/// Certificates come with the configuration, and not before it.
const RETRY: Duration = Duration::from_secs(1);
const SUPERVISION: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Door(#[from] door::Error),
    /// What stays, forwards and serves until the next start.
    #[error("{0} has come to an end")]
    Ended(&'static str),
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
}

fn io_error(what: impl ToString) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Io { what: what.to_string(), error }
}

/// Runs until SIGTERM or SIGINT. `file` is `amphora-agent.conf`; it is waited for, and so are the
/// certificates that it names.
pub async fn agent(file: PathBuf, setup: Setup) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(io_error("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io_error("SIGINT"))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = serve(file, setup) => match ended? {},
    }
    info!("stopping; what forwards, HAProxy and keepalived go on");
    Ok(())
}

/// What never is.
enum Never {}

async fn serve(file: PathBuf, setup: Setup) -> Result<Never, Error> {
    let config = wait_for(&file).await.map_err(io_error(file.display()))?;
    let _lock = lock::take(&config.amphora_id)?;
    let address = SocketAddr::new(config.bind_host, config.bind_port);
    let (certificate, authorities) =
        (config.agent_server_cert.clone(), config.agent_server_ca.clone());
    let oldest = config.agent_tls_protocol;

    let config = watch::Sender::new(Arc::new(config));
    let machine = Machine::new(config.subscribe(), setup);
    let door = Arc::new(Door::open(machine, file, config)?);
    // At once, and whatever the machine is at: the health manager counts the seconds.
    let heart = tokio::spawn(Heart::new(Arc::clone(&door)).beat());
    door.restore().await;

    let identity = identity(&certificate, &authorities, oldest).await;
    let listener = TcpListener::bind(address).await.map_err(io_error(address))?;
    info!(%address, "listening");
    let metrics = tokio::spawn(metrics::serve::serve(Arc::clone(&door)));
    let answers = tokio::spawn(listen(listener, Arc::new(identity), Arc::clone(&door)));
    tell_systemd(&[NotifyState::Ready]);
    // None of them ends but by a panic, which says why; without one of them, the others look well.
    tokio::select! {
        _ = heart => Err(Error::Ended("the task of the heartbeats")),
        _ = metrics => Err(Error::Ended("the task of the metrics")),
        _ = answers => Err(Error::Ended("the task of the door")),
        ended = supervise(&door) => ended,
    }
}

/// Waits until they are there and good.
async fn identity(certificate: &Path, authorities: &Path, oldest: TlsMinimum) -> Identity {
    let mut told = None;
    loop {
        match Identity::load(certificate, authorities, oldest) {
            Ok(identity) => return identity,
            Err(error) => {
                let why = error.to_string();
                if told.as_ref() != Some(&why) {
                    warn!("waiting for the certificates: {why}");
                    told = Some(why);
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// Each second. systemd, where it wants to know, is told that we are alive where those are who must be:
/// this loop, and the packet path's thread. Else it starts us again, which changes no packet.
async fn supervise(door: &Door<Machine>) -> Result<Never, Error> {
    let watched = sd_notify::watchdog_enabled().is_some();
    let mut due = interval(SUPERVISION);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        due.tick().await;
        let machine = door.amphora();
        machine.supervise().await;
        if machine.is_lost() {
            return Err(Error::Ended("the packet path's thread"));
        }
        match machine.is_alive().await {
            // Not unasked: to tell one who does not listen blocks when ten have been told.
            true if watched => tell_systemd(&[NotifyState::Watchdog]),
            true => {}
            false => error!("the packet path's thread does not answer"),
        }
    }
}
