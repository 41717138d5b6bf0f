//! Sends the heartbeats: the first at once, then one each interval, to one health manager after the
//! other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent_api::AgentConfig;
use agent_api::config::{Destination, HeartbeatEnvelope};
use agent_api::door::Door;
use agent_api::durable;
use agent_api::heartbeat::shrink::{Shrunk, shrink};
use agent_api::heartbeat::{Message, envelope, sealed};
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::journal::{Figures, Journal, deliver};
use super::machine::{Machine, Seen};
use super::message::{Known, message, withheld};
use crate::volatile;

/// Mode of the file of totals, as the stock agent has it.
const MODE: u32 = 0o640;

/// For the address of a health manager that is given by name.
const LOOKUP: Duration = Duration::from_secs(2);

pub struct Heart {
    door: Arc<Door<Machine>>,
    config: watch::Receiver<Arc<AgentConfig>>,
    /// Where the totals of the last message are kept over a restart.
    file: PathBuf,
    /// As the last heartbeat left it.
    journal: Journal,
    seq: u64,
    /// Of the destinations.
    turn: usize,
    sealer: Option<(Vec<u8>, sealed::Sealer)>,
    /// Where names led the last time.
    addresses: HashMap<Destination, SocketAddr>,
    /// What was left out of the last message, if it was too long.
    shrunk: Option<Shrunk>,
    /// What was told last: the same is not told each ten seconds.
    trouble: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no health manager is configured")]
    Nowhere,
    #[error("VRRP is configured and keepalived does not run")]
    NoVrrp,
    #[error("it cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    #[error(transparent)]
    Sealed(#[from] sealed::Error),
    #[error("/dev/urandom: {0}")]
    Random(io::Error),
    #[error("{to}: {error}")]
    Send { to: Destination, error: io::Error },
}

impl Heart {
    pub fn new(door: Arc<Door<Machine>>) -> Self {
        let config = door.config();
        let file = config.borrow().base_path.join("stats_counters.json");
        let (journal, seq, turn) = (kept(&file), 0, 0);
        Self {
            door,
            config,
            file,
            journal,
            seq,
            turn,
            sealer: None,
            addresses: HashMap::new(),
            shrunk: None,
            trouble: None,
        }
    }

    /// Does not return.
    pub async fn beat(mut self) {
        loop {
            let config = Arc::clone(&self.config.borrow());
            let told = self.send(&config).await.err().map(|error| error.to_string());
            if told != self.trouble {
                match &told {
                    Some(why) => warn!("no heartbeat: {why}"),
                    None => debug!("heartbeats are sent"),
                }
                self.trouble = told;
            }
            sleep(Duration::from_secs(config.heartbeat_interval_s.into())).await;
        }
    }

    async fn send(&mut self, config: &AgentConfig) -> Result<(), Error> {
        // Without it the VIP is nobody's to keep, and only who hears nothing takes this amphora down.
        if self.door.amphora().vrrp_is_dead() {
            return Err(Error::NoVrrp);
        }
        let destinations = &config.controller_ip_port_list;
        let to = destinations.get(self.turn % destinations.len().max(1)).ok_or(Error::Nowhere)?;
        self.turn = self.turn.wrapping_add(1);

        let listeners = self.door.listeners();
        let Seen { forwarded, standings, rows, .. } = self.door.amphora().observe().await;
        let known = Known {
            listeners: &listeners,
            forwarded: forwarded.as_ref(),
            standings: &standings,
            rows: &rows,
            starting: self.door.amphora().is_starting(),
        };
        let (message, next) = message(config.amphora_id.as_str(), self.seq, known, &self.journal);
        self.seq += 1;
        let mut journal = std::mem::take(&mut self.journal);
        let file = self.file.clone();
        let write = |journal: &Journal| write(&file, journal);
        let sent = deliver(&mut journal, next, write, async |figures| {
            let message = match figures {
                Figures::Told => message,
                Figures::Withheld => withheld(message),
            };
            let datagram = self.fit(message, config)?;
            let failed = |error| Error::Send { to: to.clone(), error };
            let address = self.address(to).await.map_err(failed)?;
            send(address, &datagram).await.map_err(failed)
        });
        let sent = sent.await;
        self.journal = journal;
        if sent.is_ok() {
            self.door.amphora().told();
        }
        sent
    }

    /// In one datagram, whatever must be left out for it.
    fn fit(&mut self, message: Message, config: &AgentConfig) -> Result<Vec<u8>, Error> {
        let whole = self.wrap(&message.to_json()?, config);
        use envelope::Error::DatagramTooLong;
        let (Err(Error::Envelope(DatagramTooLong { .. }))
        | Err(Error::Sealed(sealed::Error::Content(DatagramTooLong { .. })))) = whole
        else {
            self.shrunk = None;
            return whole;
        };
        let (message, shrunk) = shrink(message)?;
        if self.shrunk.is_none_or(|before| !before.is_like(shrunk)) {
            warn!("{shrunk}");
            self.shrunk = Some(shrunk);
        }
        self.wrap(&message.to_json()?, config)
    }

    /// The first address of a health manager. Where the name cannot be looked up now, the last known one.
    async fn address(&mut self, to: &Destination) -> io::Result<SocketAddr> {
        let looked_up = timeout(LOOKUP, lookup_host((&to.host[..], to.port))).await;
        let first = match looked_up {
            Ok(Ok(mut addresses)) => addresses.next().ok_or(io::ErrorKind::AddrNotAvailable.into()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "its name is not looked up")),
        };
        match (first, self.addresses.get(to)) {
            (Ok(address), _) => {
                self.addresses.insert(to.clone(), address);
                Ok(address)
            }
            (Err(_), Some(known)) => Ok(*known),
            (Err(error), None) => Err(error),
        }
    }

    fn wrap(&mut self, json: &[u8], config: &AgentConfig) -> Result<Vec<u8>, Error> {
        let key = config.heartbeat_key.reveal().as_bytes();
        if config.heartbeat_envelope == HeartbeatEnvelope::Octavia {
            return Ok(envelope::wrap(json, key)?);
        }
        let mut sealer = match self.sealer.take() {
            Some((of, sealer)) if of == key => sealer,
            _ => sealer(config)?,
        };
        let sealed = sealer.seal(json);
        self.sealer = Some((key.to_owned(), sealer));
        Ok(sealed?)
    }
}

/// That of the last heartbeat before the start. Of one that is not understood nothing is taken, and then
/// what has been counted so far is told again.
fn kept(file: &Path) -> Journal {
    let read = durable::read(file).map_err(|error| error.to_string());
    let parse = |json: Vec<u8>| {
        serde_json::from_slice(&json).map_err(|error| format!("{}: {error}", file.display()))
    };
    read.and_then(|json| json.map_or_else(|| Ok(Journal::default()), parse)).unwrap_or_else(|why| {
        warn!("{why}: traffic is counted twice");
        Journal::default()
    })
}

/// It need not survive a crash of the machine: no counter does either.
fn write(file: &Path, journal: &Journal) -> bool {
    let written = serde_json::to_vec(journal)
        .map_err(|error| error.to_string())
        .and_then(|json| volatile::write(file, MODE, &json).map_err(|error| error.to_string()));
    if let Err(error) = &written {
        warn!("{error}: what is counted is told when it can be written that it was");
    }
    written.is_ok()
}

/// By a salt of its own, so that no restart and no copy of this machine seals with the same numbers.
fn sealer(config: &AgentConfig) -> Result<sealed::Sealer, Error> {
    let mut salt = [0; 32];
    let random = File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut salt));
    random.map_err(Error::Random)?;
    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let start = start.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0));
    let (key, id) = (config.heartbeat_key.reveal().as_bytes(), config.amphora_id.as_str());
    Ok(sealed::Sealer::new(key, id, start, salt)?)
}

async fn send(to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    let from: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(from).await?.send_to(datagram, to).await.map(drop)
}
