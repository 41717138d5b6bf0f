//! What happens to traffic when amphorae are replaced, or die.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Group, Scenario, scenario};
use crate::clients;
use crate::lab::Family::V4;
use crate::octavia::balancer::{Listener, LoadBalancer, Run};
use crate::octavia::cloud::{Topology, eventually};

pub const SCENARIOS: [Scenario; 4] = [
    scenario("failover by the API", Group::Failover, by_api),
    scenario("the amphora is killed", Group::Failover, killed),
    scenario("pair: failover by the API", Group::Failover, pair_by_api),
    scenario("pair: the master is killed", Group::Pair, master_killed),
];

/// For the health manager to notice, and build another; `heartbeat_timeout` is 20 s.
const REPLACED_MAX_S: u64 = 120;
/// Between two clients that knock.
const KNOCK: Duration = Duration::from_millis(20);
/// How long one waits.
const WAIT: Duration = Duration::from_millis(250);

/// TCP, so that in ours it is the packet path that moves.
fn serving<'a>(run: &'a Run<'a>, topology: Topology) -> Result<(LoadBalancer<'a>, Listener)> {
    let lb = LoadBalancer::create(run, topology, json!({}))?;
    let (web, _) = lb.web("TCP", 81, json!({}))?;
    // A pair waits for keepalived's checks before one of them takes the VIP.
    eventually(40, || lb.get(&web, V4))?;
    lb.settles(&[])?;
    Ok((lb, web))
}

/// Clients knock while `acts` goes on: how many found nobody, and for how long at once.
fn knocked<T>(
    lb: &LoadBalancer<'_>,
    web: &Listener,
    acts: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let vip = lb.vip(V4, web.port)?;
    let client = lb.run.cloud.client.netns.try_clone()?;
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let (acted, lost) = thread::scope(|scope| {
        let knocking = scope.spawn(move || client.enter(|| knock_until(vip, stop)));
        let acted = acts();
        stop.store(true, Ordering::Relaxed);
        let lost = knocking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (acted, lost)
    });
    lb.run.seen.borrow_mut().lost = Some(lost);
    acted
}

fn knock_until(vip: SocketAddr, stop: &AtomicBool) -> (u64, Duration) {
    let (mut failed, mut longest, mut since) = (0, Duration::ZERO, None::<Instant>);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        if clients::knock(vip, WAIT).is_ok() {
            longest = longest.max(since.take().map_or(Duration::ZERO, |since| since.elapsed()));
        } else {
            failed += 1;
            since.get_or_insert(began);
        }
        thread::sleep(KNOCK.saturating_sub(began.elapsed()));
    }
    (failed, longest.max(since.map_or(Duration::ZERO, |since| since.elapsed())))
}

fn ids(lb: &LoadBalancer<'_>) -> Result<Vec<String>> {
    Ok(lb.amphorae()?.into_iter().map(|amphora| amphora.id).collect())
}

/// Until none of `old` is there any more, and as many as there were; then traffic again.
fn replaced(lb: &LoadBalancer<'_>, web: &Listener, old: &[String], count: usize) -> Result<()> {
    eventually(REPLACED_MAX_S, || {
        let now = ids(lb)?;
        let is_left = old.iter().any(|id| now.contains(id));
        ensure!(now.len() == count && !is_left, "there are {now:?}, there were {old:?}");
        Ok(())
    })?;
    lb.active()?;
    eventually(40, || lb.get(web, V4))?;
    lb.settles(&[])
}

fn by_api(run: &Run<'_>) -> Result<()> {
    failed_over(run, Topology::Single)
}

fn pair_by_api(run: &Run<'_>) -> Result<()> {
    failed_over(run, Topology::ActiveStandby)
}

fn failed_over(run: &Run<'_>, topology: Topology) -> Result<()> {
    let (lb, web) = serving(run, topology)?;
    let old = ids(&lb)?;
    knocked(&lb, &web, || {
        lb.change("PUT", &format!("loadbalancers/{}/failover", lb.id), None)?;
        replaced(&lb, &web, &old, old.len())
    })?;
    lb.delete()
}

fn killed(run: &Run<'_>) -> Result<()> {
    let (lb, web) = serving(run, Topology::Single)?;
    let old = ids(&lb)?;
    knocked(&lb, &web, || {
        lb.amphora()?.kill()?;
        replaced(&lb, &web, &old, 1)
    })?;
    lb.delete()
}

fn master_killed(run: &Run<'_>) -> Result<()> {
    let (lb, web) = serving(run, Topology::ActiveStandby)?;
    let mut roles: Vec<_> = lb.amphorae()?.into_iter().map(|amphora| amphora.role).collect();
    roles.sort();
    ensure!(roles == ["BACKUP", "MASTER"], "{roles:?}");
    let master = lb.master()?;
    knocked(&lb, &web, || {
        master.kill()?;
        // Its packet path forwards for a moment longer than its processes live.
        eventually(30, || {
            lb.get(&web, V4)?;
            ensure!(lb.master()?.id != master.id, "the dead one answers");
            Ok(())
        })
    })?;
    replaced(&lb, &web, &[master.id], 2)?;
    lb.delete()
}
