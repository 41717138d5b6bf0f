//! The thread on which all probes are made, in the network namespace of the one that starts it.

use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::probe::{Failure, Prober};
use super::schedule::{Changed, Job};
use super::{Shared, lock};

/// Probes at a time, each with a socket: 2,000 members may hang all at once. Who is over it waits for
/// his turn.
const UNDER_WAY_MAX: usize = 2048;
/// For them and for all else, as the unit has it.
const FILES: u64 = 2 * UNDER_WAY_MAX as u64;

/// Probes that are due within this time begin together, and their answers are heard together.
const TOGETHER: Duration = Duration::from_millis(20);

/// Where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What is kept is written again this much later at the earliest.
const KEEPING: Duration = Duration::from_millis(300);

/// That probes cannot be made is told again this much later.
const COMPLAINTS: Duration = Duration::from_secs(60);

/// After what probes need could not be had.
const RETRY: Duration = Duration::from_secs(5);

pub fn start(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return error!("no member is probed: {error}"),
        };
        // A task of its own: each waking of the one that is blocked on would cost two system calls.
        if let Err(panicked) = runtime.block_on(runtime.spawn(Probing::new(shared).run())) {
            resume_unwind(panicked.into_panic());
        }
    };
    Builder::new().name("health".to_owned()).spawn(run)
}

struct Probing {
    shared: Arc<Shared>,
    /// When what is kept is to be written, if it differs from what is in the file.
    keep_at: Option<Instant>,
    kept: Option<Instant>,
    /// When it was last told that a probe could not be made.
    complained: Option<Instant>,
}

impl Probing {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, keep_at: None, kept: None, complained: None }
    }

    async fn run(mut self) {
        raise_files();
        let Some(prober) = self.prober().await else { return };
        let prober = &prober;
        let probe = async |job: Job| {
            let result = prober.probe(&job.monitor.probe, job.at, job.patience).await;
            (job, result)
        };
        let mut under_way = FuturesUnordered::new();
        let mut together = Instant::now();
        let mut waking = pin!(sleep(IDLE));
        while !self.shared.ends.load(Ordering::Relaxed) {
            let now = Instant::now();
            let next = {
                let mut schedule = self.shared.schedule();
                while now >= together
                    && under_way.len() < UNDER_WAY_MAX
                    && let Some(job) = schedule.due(now.into_std())
                {
                    under_way.push(probe(job));
                }
                schedule.next().filter(|_| under_way.len() < UNDER_WAY_MAX)
            };
            if now >= together {
                together = now + TOGETHER;
            }
            if self.keep_at.is_some_and(|at| at <= now) {
                self.keep();
            }
            let next = next.map(|next| Instant::from_std(next).max(together));
            let wake = next.into_iter().chain(self.keep_at).min().unwrap_or(now + IDLE);
            // Only where it differs: a timer that is the next to be due costs a system call.
            if waking.deadline() != wake {
                waking.as_mut().reset(wake);
            }
            tokio::select! {
                Some((job, result)) = under_way.next() => self.note(&job, result),
                () = &mut waking => {}
                () = self.shared.work.notified() => self.keep_soon(),
            }
        }
        self.keep();
    }

    /// What probes share. None where they are to end before it could be had.
    async fn prober(&self) -> Option<Prober> {
        let mut told = false;
        while !self.shared.ends.load(Ordering::Relaxed) {
            match Prober::new() {
                Ok(prober) => return Some(prober),
                Err(error) if !told => warn!("members are not probed: {error}"),
                Err(_) => {}
            }
            told = true;
            tokio::select! {
                () = sleep(RETRY) => {}
                () = self.shared.work.notified() => {}
            }
        }
        None
    }

    fn note(&mut self, job: &Job, result: Result<(), Failure>) {
        let now = Instant::now().into_std();
        // Of this machine alone: HAProxy does not count it either.
        let ours = result.as_ref().err().filter(|failure| failure.is_ours());
        if let Some(failure) = ours {
            if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINTS) {
                self.complained = Some(Instant::now());
                warn!("{failure}: where that is so, members count as what they were");
            }
            return self.shared.schedule().missed(job, now);
        }
        let result = result.map_err(|failure| failure.to_string());
        let changed = self.shared.schedule().result(job, result, now);
        match changed {
            Changed::Nothing => return,
            Changed::Count => {}
            Changed::Turned(turned) => {
                let (pool, member) = &turned.name;
                let word = if turned.up { "up" } else { "down" };
                info!("member {member} of pool {pool} is {word}: {}", turned.why);
                lock(&self.shared.turned).push(turned);
                self.shared.news.notify_one();
            }
        }
        self.keep_soon();
    }

    fn keep_soon(&mut self) {
        let earliest = self.kept.map_or_else(Instant::now, |kept| kept + KEEPING);
        self.keep_at.get_or_insert(earliest);
    }

    fn keep(&mut self) {
        self.kept = Some(Instant::now());
        self.keep_at = None;
        let kept = self.shared.schedule().to_keep();
        if let Err(error) = kept.write(&self.shared.file) {
            warn!("{error}: after a restart, members that are down count as up at first");
        }
    }
}

/// Where fewer may be open, those who made the process would hear of it only when half of a cloud is
/// down.
fn raise_files() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |most| most.min(FILES));
    if limit.current.is_some_and(|now| now < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!("no more than {:?} files may be open: {error}", limit.current);
        }
    }
}
