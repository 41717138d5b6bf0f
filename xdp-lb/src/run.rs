//! `xdp-lb run`: a load balancer by one file, followed. It stops at a signal and leaves everything in
//! place.

use std::io;
use std::path::{Path, PathBuf};

use agent_api::{Desired, Name};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::balancer::{self, Balancer, Interfaces, Serving, ticks};
use crate::follow::Follow;
use crate::kernel::{FrameLog, Sizes, SourcePorts};
use crate::lock;
use crate::net::Watch;

#[derive(Clone, Debug)]
pub struct Options {
    pub file: PathBuf,
    /// The first is that of the VIPs.
    pub interfaces: Vec<String>,
    pub sizes: Sizes,
    pub source_ports: SourcePorts,
    /// Keep the kernel's own sockets off the source ports.
    pub reserve: bool,
    /// What the program tells of frames.
    pub frame_log: Option<FrameLog>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", .file.display())]
    Document { file: PathBuf, error: agent_api::Error },
    #[error("{}: the name is {found}, and this is {name}: it cannot change while it runs", .file.display())]
    OtherName { file: PathBuf, name: Name, found: Name },
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Balancer(#[from] balancer::Error),
    #[error("{what}: {error}")]
    Io { what: &'static str, error: io::Error },
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Io { what, error }
}

/// Runs until SIGTERM or SIGINT. In the network namespace of the calling thread.
pub async fn run(options: Options) -> Result<(), Error> {
    let desired = read(&options.file)?;
    let name = desired.name.clone();
    let _lock = lock::take(&name)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io_error("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io_error("SIGINT"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(io_error("SIGHUP"))?;
    let mut follow = Follow::new(&options.file).map_err(io_error("inotify"))?;
    let mut watch = Watch::new().map_err(io_error("netlink"))?;
    let mut ticks = ticks();

    let file = options.file;
    let options = balancer::Options {
        name: name.clone(),
        interfaces: Interfaces::Named(options.interfaces),
        sizes: options.sizes,
        source_ports: options.source_ports,
        reserve: options.reserve,
        frame_log: options.frame_log,
        // Its file does not say how.
        log_socket: None,
    };
    let mut balancer = Balancer::start(options, Serving { desired, beside: Vec::new() })?;
    balancer.look(&watch).await?;
    tell_systemd(&[NotifyState::Ready]);
    info!(%name, "running");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&mut balancer, &file, &name),
            changed = follow.changed() => {
                changed.map_err(io_error("inotify"))?;
                reload(&mut balancer, &file, &name);
            }
            changed = watch.changed() => {
                changed.map_err(io_error("netlink"))?;
                balancer.look(&watch).await?;
            }
            () = balancer.turned() => balancer.turn(),
            _ = ticks.tick() => balancer.tick(&watch).await?,
        }
    }
    info!("stopping; the program, its links and its maps stay");
    Ok(())
}

/// Reads the document again, as a service of type `notify-reload` does: systemd hears when the
/// maps are what it asks for. A document that is not good changes nothing.
fn reload(balancer: &mut Balancer, file: &Path, name: &Name) {
    let since = NotifyState::monotonic_usec_now().ok();
    tell_systemd(&[Some(NotifyState::Reloading), since].into_iter().flatten().collect::<Vec<_>>());
    let taken = read(file).and_then(|desired| {
        if desired.name != *name {
            let (file, name, found) = (file.into(), name.clone(), desired.name);
            return Err(Error::OtherName { file, name, found });
        }
        Ok(balancer.serve(Serving { desired, beside: Vec::new() })?)
    });
    match taken {
        Ok(()) => info!("reloaded {}", file.display()),
        Err(error) => {
            warn!("{error}; the document before it stays in force");
            balancer.refuse(error.to_string());
        }
    }
    tell_systemd(&[NotifyState::Ready]);
}

/// Does nothing where systemd, or whoever stands in for it, does not want to be told.
pub fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("systemd: {error}");
    }
}

fn read(file: &Path) -> Result<Desired, Error> {
    Desired::read(file).map_err(|error| Error::Document { file: file.into(), error })
}
