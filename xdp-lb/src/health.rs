//! Which members of layer-4 pools are well: probes, from inside the namespace.
//!
//! The schedule says whose turn it is and what a result means, the [`probe`] asks, and a thread
//! brings them together. Whoever serves is told what to probe, and is woken when a member turns.

mod kept;
pub mod member;
pub mod probe;
mod schedule;
mod target;
mod thread;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agent_api::Desired;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use crate::lock::run_file;
use kept::Kept;
pub use member::{Member, Standing, Thresholds};
use schedule::Schedule;
pub use schedule::Turned;

/// Of a member: its pool's id and its own.
pub type Name = (String, String);

/// By pool and member; of those alone that are probed.
pub type Standings = BTreeMap<Name, Standing>;

/// After a member has turned, others that do so within this time are told of together: when a rack of
/// them fails, the maps are not made anew for each. A member's turn is in the maps within 100 ms.
const GATHERED: Duration = Duration::from_millis(20);

/// The probes of one load balancer. Dropped, they end, and what is known is kept.
pub struct Health {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// When it was last told that something has turned.
    told: Option<Instant>,
    /// Something has, and it is not told yet.
    heard: bool,
}

/// What the thread and its owner have in common. Neither holds a lock for longer than it takes to look.
struct Shared {
    schedule: Mutex<Schedule>,
    /// Members that turned and have not been asked for.
    turned: Mutex<Vec<Turned>>,
    /// Wakes the owner.
    news: Notify,
    /// Wakes the thread: the schedule is another, or it is to end.
    work: Notify,
    ends: AtomicBool,
    /// Where members' standings are kept over a restart.
    file: PathBuf,
}

/// Where they are kept over a restart, of the load balancer of this name.
pub fn file(name: &agent_api::Name) -> PathBuf {
    run_file(name, "health")
}

impl Health {
    /// Goes on from what an earlier start has kept in the file. Nothing is probed before it is
    /// [`set`](Self::set).
    pub fn new(file: PathBuf) -> Self {
        let schedule = Mutex::new(Schedule::after(Kept::read(&file)));
        let shared = Shared {
            schedule,
            turned: Mutex::default(),
            news: Notify::new(),
            work: Notify::new(),
            ends: AtomicBool::new(false),
            file,
        };
        Self { shared: Arc::new(shared), thread: None, told: None, heard: false }
    }

    /// What is to be probed from now on, from the network namespace of this thread. Members that stay
    /// keep their standing.
    pub fn set(&mut self, desired: &Desired) {
        self.shared.schedule().set(desired, Instant::now().into_std());
        self.shared.work.notify_one();
        self.supervise();
    }

    /// Has the probes go on where they have ended: it would look as if all was as well as it was.
    pub fn supervise(&mut self) {
        let ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        if ended {
            error!("the thread of the probes has come to an end");
            self.shared.schedule().forget_under_way(Instant::now().into_std());
        }
        if (self.thread.is_none() || ended) && !self.shared.schedule().is_empty() {
            match thread::start(Arc::clone(&self.shared)) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => error!("no thread for the probes, so nothing is probed: {error}"),
            }
        }
    }

    /// Returns when a member has turned that was not asked for. May be given up at any time.
    pub async fn changed(&mut self) {
        if !self.heard {
            self.shared.news.notified().await;
            self.heard = true;
        }
        if let Some(told) = self.told {
            sleep_until(told + GATHERED).await;
        }
        (self.told, self.heard) = (Some(Instant::now()), false);
    }

    /// Members that have turned since this was asked, in their order.
    pub fn turned(&self) -> Vec<Turned> {
        std::mem::take(&mut *lock(&self.shared.turned))
    }

    /// Members that are down, and why.
    pub fn down(&self) -> BTreeMap<Name, String> {
        self.shared.schedule().down()
    }

    pub fn standings(&self) -> Standings {
        self.shared.schedule().standings()
    }
}

impl Shared {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        lock(&self.schedule)
    }
}

/// Where members stood when nobody probes them yet: what the file of [`Health`] says.
pub fn kept(file: &Path) -> Standings {
    Kept::read(file).standings()
}

/// What a panic has left is whole: nothing is changed in two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Health {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // That it panicked it has said itself.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("file", &self.shared.file).finish_non_exhaustive()
    }
}
