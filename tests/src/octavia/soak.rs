//! Many load balancers at once, changed at random: nothing is ever in ERROR, all that is asked is answered, no
//! agent grows, and nothing is left when they are deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{MapInfo, loaded_maps};
use serde_json::{Value, json};

use super::balancer::{Listener, LoadBalancer, Run, member};
use super::cloud::{Cloud, HTTP, UDP, eventually};
use crate::clients;
use crate::lab::Family::V4;
use crate::payload;

/// For what goes with a container, some time after it.
const GONE_MAX_S: u64 = 30;
/// What an agent's own memory may grow by, over any time: allocators round up.
const GROWTH_MAX_KIB: u64 = 2048;
const LISTENERS_MAX: usize = 3;
const LISTENER_PROTOCOLS: [&str; 3] = ["TCP", "UDP", "HTTP"];
const ALGORITHMS: [&str; 3] = ["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP"];

pub struct Options {
    /// Load balancers.
    pub count: usize,
    /// For how long they are changed.
    pub lasts: Duration,
    /// Of what is changed; the same one changes the same.
    pub seed: u64,
}

#[derive(Debug, Default)]
pub struct Report {
    /// How often each thing was done.
    pub done: BTreeMap<&'static str, u64>,
    /// Requests and datagrams that were answered; one that is not fails the run.
    pub answers: u64,
    /// Agents that lived throughout: their own memory in KiB when all load balancers were there, and at the end.
    pub memory: Vec<(u64, u64)>,
}

/// Numbers that look random.
struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        let mut word = [0; 8];
        payload::fill(self.seed, 8 * self.drawn, &mut word);
        (u64::from_le_bytes(word) % bound as u64) as usize
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

struct Web {
    listener: Listener,
    protocol: &'static str,
    pool: String,
    monitor: Option<String>,
}

struct Tenant<'a> {
    lb: LoadBalancer<'a>,
    webs: Vec<Web>,
    /// Own memory of its agent in KiB, when all load balancers were there. An amphora that was failed over has none.
    began_with: Option<(String, u64)>,
}

/// Whether it could be done.
type Step = fn(&mut Tenant<'_>, &mut Random) -> Result<bool>;

/// What is done, and how often in relation to the others.
const STEPS: [(&str, usize, Step); 8] = [
    ("a listener comes", 4, comes),
    ("a listener goes", 3, goes),
    ("members change", 8, members),
    ("a monitor comes or goes", 4, monitor),
    ("an algorithm changes", 3, algorithm),
    ("a limit changes", 2, limit),
    ("a listener is disabled and enabled", 2, disabled),
    ("failed over", 1, failed_over),
];

/// Does it all with a cloud that has nothing else to do. `say` is told what is being done.
pub fn run(run: &Run<'_>, options: &Options, say: &mut dyn FnMut(String)) -> Result<Report> {
    let cloud = run.cloud;
    say("creating one first, so that what the stack makes once is there".to_owned());
    run.single()?.delete()?;
    let traces = Traces::of(cloud)?;
    let mut random = Random { seed: options.seed, drawn: 0 };
    let mut report = Report::default();
    let mut tenants = Vec::new();
    for number in 1..=options.count {
        say(format!("creating load balancer {number} of {}", options.count));
        let mut tenant = Tenant { lb: run.single()?, webs: Vec::new(), began_with: None };
        comes(&mut tenant, &mut random)?;
        report.answers += asked(&tenant)?;
        tenants.push(tenant);
    }
    for tenant in &mut tenants {
        let amphora = tenant.lb.amphora()?;
        tenant.began_with = Some((amphora.id.clone(), amphora.memory()?.own));
    }
    let began = Instant::now();
    while began.elapsed() < options.lasts {
        let tenant = random.below(tenants.len());
        let (name, step) = drawn(&mut random);
        say(format!(
            "{:4.0} s of {}, load balancer {}: {name}",
            began.elapsed().as_secs_f64(),
            options.lasts.as_secs(),
            tenant + 1
        ));
        let tenant = &mut tenants[tenant];
        let done =
            step(tenant, &mut random).with_context(|| format!("{}: {name}", tenant.lb.id))?;
        *report.done.entry(name).or_default() += u64::from(done);
        report.answers +=
            asked(tenant).with_context(|| format!("{}, after {name}", tenant.lb.id))?;
    }
    let mut maps = BTreeSet::new();
    for (number, tenant) in tenants.iter().enumerate() {
        say(format!("looking at load balancer {}", number + 1));
        report.answers += asked(tenant)?;
        tenant.lb.settles(&[])?;
        let amphora = tenant.lb.amphora()?;
        maps.append(&mut pinned(&cloud.stack.amphora_root(&amphora.id)?)?);
        let Some((id, before)) = &tenant.began_with else { continue };
        // Nobody but us fails anything over.
        ensure!(*id == amphora.id, "amphora {id} was replaced by {}", amphora.id);
        report.memory.push((*before, amphora.memory()?.own));
    }
    for (number, tenant) in tenants.into_iter().enumerate() {
        say(format!("deleting load balancer {}", number + 1));
        tenant.lb.delete()?;
    }
    say("looking for what is left".to_owned());
    eventually(GONE_MAX_S, || {
        cloud.is_bare()?;
        Traces::of(cloud)?.only(&traces)?;
        let left: Vec<_> = loaded()?.intersection(&maps).copied().collect();
        ensure!(left.is_empty(), "maps are left: {left:?}");
        Ok(())
    })?;
    let grown = report.memory.iter().filter(|(before, after)| *after > before + GROWTH_MAX_KIB);
    ensure!(grown.count() == 0, "agents have grown, in KiB: {:?}", report.memory);
    Ok(report)
}

/// One of the steps, by their shares.
fn drawn(random: &mut Random) -> (&'static str, Step) {
    let each = STEPS.iter().flat_map(|(name, share, step)| vec![(*name, *step); *share]);
    random.of(&each.collect::<Vec<_>>())
}

fn comes(tenant: &mut Tenant<'_>, random: &mut Random) -> Result<bool> {
    if tenant.webs.len() == LISTENERS_MAX {
        return Ok(false);
    }
    let protocol = random.of(&LISTENER_PROTOCOLS);
    let is_taken = |port: &u16| tenant.webs.iter().any(|web| web.listener.port == *port);
    let port = (80..).find(|port| !is_taken(port)).context("a port")?;
    let listener = tenant.lb.listener(protocol, port, json!({}))?;
    let pool = tenant.lb.pool(&listener, protocol, json!({}))?;
    tenant.webs.push(Web { listener, protocol, pool, monitor: None });
    let last = tenant.webs.len() - 1;
    set_members(tenant, last, &[1, 1, 1])?;
    Ok(true)
}

fn goes(tenant: &mut Tenant<'_>, random: &mut Random) -> Result<bool> {
    // One stays, to be asked.
    if tenant.webs.len() == 1 {
        return Ok(false);
    }
    let web = tenant.webs.remove(random.below(tenant.webs.len()));
    tenant.lb.change("DELETE", &format!("listeners/{}", web.listener.id), None)?;
    tenant.lb.change("DELETE", &format!("pools/{}", web.pool), None)?;
    Ok(true)
}

fn members(tenant: &mut Tenant<'_>, random: &mut Random) -> Result<bool> {
    let web = random.below(tenant.webs.len());
    let mut weights = [random.below(4), random.below(4), random.below(4)];
    // Somebody serves.
    weights[random.below(3)] = 1;
    set_members(tenant, web, &weights)?;
    Ok(true)
}

/// A member of weight 0 is not there.
fn set_members(tenant: &Tenant<'_>, web: usize, weights: &[usize; 3]) -> Result<()> {
    let web = &tenant.webs[web];
    let port = if web.protocol == "UDP" { UDP } else { HTTP };
    let all = tenant.lb.run.cloud.members.iter().zip(weights).filter(|(_, weight)| **weight > 0);
    let all =
        all.map(|(it, weight)| member(&it.host.name, it.host.v4, port, json!({"weight": weight})));
    tenant.lb.members(&web.pool, &all.collect::<Vec<Value>>())
}

fn monitor(tenant: &mut Tenant<'_>, random: &mut Random) -> Result<bool> {
    let web = random.below(tenant.webs.len());
    let web = &mut tenant.webs[web];
    if let Some(monitor) = web.monitor.take() {
        tenant.lb.change("DELETE", &format!("healthmonitors/{monitor}"), None)?;
        return Ok(true);
    }
    let kind = match web.protocol {
        "UDP" => "UDP-CONNECT",
        "HTTP" => "HTTP",
        _ => random.of(&["TCP", "PING", "HTTP"]),
    };
    // Patient, since all members of all load balancers share two processors with Octavia.
    let patient = json!({"delay": 3, "timeout": 3, "max_retries_down": 3});
    web.monitor = Some(tenant.lb.monitor(&web.pool, kind, patient)?);
    Ok(true)
}

fn algorithm(tenant: &mut Tenant<'_>, random: &mut Random) -> Result<bool> {
    let web = random.below(tenant.webs.len());
    let other = json!({"pool": {"lb_algorithm": random.of(&ALGORITHMS)}});
    tenant.lb.change("PUT", &format!("pools/{}", tenant.webs[web].pool), Some(other))?;
    Ok(true)
}

fn limit(tenant: &mut Tenant<'_>, random: &mut Random) -> Result<bool> {
    let web = random.below(tenant.webs.len());
    let other = json!({"listener": {"connection_limit": random.of(&[100, 500, 1000])}});
    let path = format!("listeners/{}", tenant.webs[web].listener.id);
    tenant.lb.change("PUT", &path, Some(other))?;
    Ok(true)
}

fn disabled(tenant: &mut Tenant<'_>, random: &mut Random) -> Result<bool> {
    let web = random.below(tenant.webs.len());
    let path = format!("listeners/{}", tenant.webs[web].listener.id);
    for up in [false, true] {
        tenant.lb.change("PUT", &path, Some(json!({"listener": {"admin_state_up": up}})))?;
    }
    Ok(true)
}

fn failed_over(tenant: &mut Tenant<'_>, _: &mut Random) -> Result<bool> {
    let path = format!("loadbalancers/{}/failover", tenant.lb.id);
    tenant.lb.change("PUT", &path, None)?;
    tenant.began_with = None;
    Ok(true)
}

/// Asks each listener once; how many answered, which is all.
fn asked(tenant: &Tenant<'_>) -> Result<u64> {
    for web in &tenant.webs {
        let vip = tenant.lb.vip(V4, web.listener.port)?;
        // HAProxy has a listener's socket a moment after Octavia was told so.
        let protocol = web.protocol;
        eventually(5, || {
            tenant.lb.counted(&web.listener, || {
                match protocol {
                    "UDP" => clients::udp_ask(vip, b"who?", clients::TIMEOUT).map(drop)?,
                    _ => clients::http_get(vip, "/").map(drop)?,
                }
                Ok(())
            })
        })
        .with_context(|| format!("{protocol} at {vip} does not answer"))?;
    }
    Ok(tenant.webs.len() as u64)
}

/// The maps that are pinned in an amphora, by their ids.
fn pinned(root: &Path) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for directory in fs::read_dir(root.join("sys/fs/bpf/xdp-lb"))?.flatten() {
        for pin in fs::read_dir(directory.path())?.flatten() {
            // Programs and links are no maps.
            found.extend(MapInfo::from_pin(pin.path()).ok().map(|info| info.id()));
        }
    }
    ensure!(!found.is_empty(), "nothing is pinned below {}", root.display());
    Ok(found)
}

fn loaded() -> Result<BTreeSet<u32>> {
    // One that goes while it is looked at is not there.
    Ok(loaded_maps().filter_map(|info| Some(info.ok()?.id())).collect())
}

/// What load balancers may leave behind in the stack.
struct Traces {
    /// What its container has written, but for logs and the database.
    files: BTreeSet<PathBuf>,
    /// How many there are of each name.
    processes: BTreeMap<String, usize>,
}

impl Traces {
    fn of(cloud: &Cloud) -> Result<Self> {
        let mut files = BTreeSet::new();
        // What is written outside of these is below `run/nsboot`.
        for part in ["run", "sys/fs/bpf"] {
            walk(&cloud.stack.root().join(part), &mut files);
        }
        let mut processes = BTreeMap::new();
        for pid in cloud.stack.pids()? {
            // One that has ended meanwhile is none.
            if let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) {
                *processes.entry(name.trim().to_owned()).or_default() += 1;
            }
        }
        Ok(Self { files, processes })
    }

    /// Fails where there is more than `before`.
    fn only(&self, before: &Self) -> Result<()> {
        let left: Vec<_> = self.files.difference(&before.files).collect();
        ensure!(left.is_empty(), "files are left: {left:?}");
        let more = |(name, count): &(&String, &usize)| before.processes.get(*name) < Some(*count);
        let left: Vec<_> = self.processes.iter().filter(more).collect();
        ensure!(left.is_empty(), "processes are left: {left:?}");
        Ok(())
    }
}

fn walk(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    // One that goes meanwhile is not there.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if ["log", "mysql"].iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
        }
        found.insert(entry.path());
    }
}
