//! A load balancer of a real Octavia: changed, waited for, asked, and compared with what it should be.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::amphora::{Amphora, Memory};
use super::api;
use super::cloud::{Cloud, HTTP, Image, MEMBER_SUBNET, Topology, VIP_SUBNET, eventually};
use crate::clients::{self, Response};
use crate::lab::Family;

/// For any change to be done; the slowest, a pair of stock amphorae, takes 16 s on a quiet machine.
const ACTIVE_MAX_S: u64 = 120;
/// For operating statuses: some heartbeats, and a member's monitor.
const ONLINE_MAX_S: u64 = 40;
/// For statistics: two heartbeats.
const STATISTICS_MAX_S: u64 = 15;

/// What a scenario took, and what it lost.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// From the call to ACTIVE, of the load balancer's creation.
    pub created: Option<Duration>,
    /// Of each change since.
    pub changes: Vec<Duration>,
    /// From the last change to all operating statuses as they should be: the longest.
    pub online: Option<Duration>,
    /// Of the agent's processes.
    pub memory: Option<Memory>,
    pub requests_s: Option<f64>,
    /// Connections or datagrams that failed while amphorae changed, and for how long.
    pub lost: Option<(u64, Duration)>,
    /// Of connections that clients made, how many Octavia was not told.
    pub untold: u64,
}

/// One scenario with one kind of amphorae.
pub struct Run<'a> {
    pub cloud: &'a Cloud,
    pub image: Image,
    pub seen: RefCell<Seen>,
}

impl<'a> Run<'a> {
    pub fn new(cloud: &'a Cloud, image: Image) -> Self {
        Self { cloud, image, seen: RefCell::default() }
    }

    pub fn single(&'a self) -> Result<LoadBalancer<'a>> {
        LoadBalancer::create(self, Topology::Single, json!({}))
    }
}

pub struct Listener {
    pub id: String,
    pub port: u16,
    protocol: String,
    /// How many connections clients have made to it.
    asked: Cell<u64>,
    /// How many more they tried to make: they may have come as far as being counted.
    failed: Cell<u64>,
    /// What [`again`] told when it was made.
    again: u64,
}

impl Listener {
    /// How many connections it may have counted.
    ///
    /// The packet path counts a connection by its SYN. One that a member's TIME_WAIT refuses is reset by the
    /// client and sent again, without a word to the program that connects, and counts again.
    pub fn expected(&self, cloud: &Cloud) -> Result<RangeInclusive<u64>> {
        let asked = self.asked.get();
        Ok(asked..=asked + self.failed.get() + again(cloud)? - self.again)
    }

    /// So many connections were made by somebody else.
    pub fn connected(&self, count: u64) {
        self.asked.set(self.asked.get() + count);
    }
}

/// Each change waits until Octavia is done with it.
pub struct LoadBalancer<'a> {
    pub run: &'a Run<'a>,
    pub id: String,
    path: String,
    vips: Vec<IpAddr>,
    changed: Cell<Instant>,
}

impl<'a> LoadBalancer<'a> {
    /// `more` has attributes beside the flavor and the subnet of the VIP.
    pub fn create(run: &'a Run<'a>, topology: Topology, more: Value) -> Result<Self> {
        let flavor = run.cloud.flavor(run.image, topology)?;
        let wanted = json!({"name": "lb", "vip_subnet_id": VIP_SUBNET, "flavor_id": flavor});
        let began = Instant::now();
        let wanted = json!({"loadbalancer": merged(wanted, more)});
        let answer = run.cloud.call("POST", "lbaas/loadbalancers", Some(&wanted))?;
        let made = &answer["loadbalancer"];
        let id = api::text(made, "id")?;
        let additional = made["additional_vips"].as_array().into_iter().flatten();
        let vips = [made["vip_address"].as_str()].into_iter();
        let vips = vips.chain(additional.map(|vip| vip["ip_address"].as_str()));
        let vips = vips.map(|vip| anyhow::Ok(vip.context("a VIP without address")?.parse()?));
        let vips = vips.collect::<Result<Vec<IpAddr>>>()?;
        let path = format!("lbaas/loadbalancers/{id}");
        let lb = Self { run, id, path, vips, changed: Cell::new(began) };
        lb.active()?;
        run.seen.borrow_mut().created = Some(began.elapsed());
        Ok(lb)
    }

    pub fn vip(&self, family: Family, port: u16) -> Result<SocketAddr> {
        let is_its = |vip: &&IpAddr| vip.is_ipv4() == (family == Family::V4);
        Ok((*self.vips.iter().find(is_its).context("no VIP of this family")?, port).into())
    }

    /// Creates what is below `path`, and returns its id: `make("listeners", "listener", …)`.
    pub fn make(&self, path: &str, kind: &str, wanted: Value) -> Result<String> {
        let answer = self.change("POST", path, Some(json!({kind: wanted})))?;
        api::text(&answer[kind], "id")
    }

    pub fn change(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let began = Instant::now();
        self.changed.set(began);
        let answer = self.run.cloud.call(method, &format!("lbaas/{path}"), body.as_ref())?;
        self.active()?;
        self.run.seen.borrow_mut().changes.push(began.elapsed());
        Ok(answer)
    }

    /// Its name is its port, by which statuses and statistics tell it from others.
    pub fn listener(&self, protocol: &str, port: u16, more: Value) -> Result<Listener> {
        let wanted = json!({"loadbalancer_id": self.id, "name": port.to_string(),
            "protocol": protocol, "protocol_port": port});
        let id = self.make("listeners", "listener", merged(wanted, more))?;
        let again = again(self.run.cloud)?;
        Ok(Listener {
            id,
            port,
            protocol: protocol.to_owned(),
            asked: Cell::new(0),
            failed: Cell::new(0),
            again,
        })
    }

    /// The default pool of a listener.
    pub fn pool(&self, listener: &Listener, protocol: &str, more: Value) -> Result<String> {
        let wanted = json!({"listener_id": listener.id, "protocol": protocol,
            "name": format!("pool {}", listener.port), "lb_algorithm": "ROUND_ROBIN"});
        self.make("pools", "pool", merged(wanted, more))
    }

    /// A listener and its pool, which has everybody.
    pub fn web(&self, protocol: &str, port: u16, more: Value) -> Result<(Listener, String)> {
        let listener = self.listener(protocol, port, more)?;
        let pool = self.pool(&listener, protocol, json!({}))?;
        self.members(&pool, &everybody(self.run.cloud))?;
        Ok((listener, pool))
    }

    /// All members of a pool at once, as Octavia's batch update has it.
    pub fn members(&self, pool: &str, members: &[Value]) -> Result<()> {
        let path = format!("pools/{pool}/members");
        self.change("PUT", &path, Some(json!({"members": members}))).map(drop)
    }

    pub fn monitor(&self, pool: &str, kind: &str, more: Value) -> Result<String> {
        let wanted = json!({"pool_id": pool, "type": kind, "delay": 1, "timeout": 1,
            "max_retries": 1, "max_retries_down": 1});
        self.make("healthmonitors", "healthmonitor", merged(wanted, more))
    }

    /// Waits for Octavia to be done with what it was told. The load balancer itself may be ACTIVE a moment
    /// before its parts are.
    pub fn active(&self) -> Result<()> {
        let tree = eventually(ACTIVE_MAX_S, || {
            let tree = self.statuses()?;
            let pending = having(&tree, "provisioning_status", |it| it.starts_with("PENDING"));
            ensure!(pending.is_empty(), "{}", pending.join(", "));
            Ok(tree)
        })?;
        let wrong = having(&tree, "provisioning_status", |it| it != "ACTIVE");
        ensure!(wrong.is_empty(), "{}:\n{}", wrong.join(", "), self.run.cloud.stack.complaints());
        Ok(())
    }

    /// Waits until everything is ACTIVE and has its operating status: that of `others`, which has names, else
    /// ONLINE, and for members NO_MONITOR where their pool has none.
    pub fn settles(&self, others: &[(&str, &str)]) -> Result<()> {
        let others: BTreeMap<&str, &str> = others.iter().copied().collect();
        eventually(ONLINE_MAX_S, || {
            let wrong = wrong(&self.statuses()?, &others);
            ensure!(wrong.is_empty(), "{}", wrong.join(", "));
            Ok(())
        })?;
        let online = self.changed.get().elapsed();
        let mut seen = self.run.seen.borrow_mut();
        seen.online = seen.online.max(Some(online));
        Ok(())
    }

    /// The tree of all its parts, as `loadbalancer status show` has it.
    pub fn statuses(&self) -> Result<Value> {
        let answer = self.run.cloud.show(&format!("{}/status", self.path))?;
        Ok(answer["loadbalancer"].clone())
    }

    pub fn amphorae(&self) -> Result<Vec<Amphora<'a>>> {
        let found =
            self.run.cloud.show(&format!("octavia/amphorae?loadbalancer_id={}", self.id))?;
        let found = found.as_array().into_iter().flatten();
        let found = found.filter(|amphora| amphora["status"] == "ALLOCATED");
        found.map(|amphora| Amphora::of(&self.run.cloud.stack, amphora)).collect()
    }

    /// Of one that is alone.
    pub fn amphora(&self) -> Result<Amphora<'a>> {
        let mut amphorae = self.amphorae()?;
        ensure!(amphorae.len() == 1, "there are {} amphorae", amphorae.len());
        Ok(amphorae.remove(0))
    }

    /// The one that answers for the VIP, as the client sees it.
    pub fn master(&self) -> Result<Amphora<'a>> {
        let vip = self.vips.first().context("no VIP")?.to_string();
        let netns = &self.run.cloud.client.netns;
        let neighbour = netns.run("ip", &["-json", "neighbour", "show", &vip])?;
        let neighbour: Value = serde_json::from_str(&neighbour)?;
        let mac = api::text(&neighbour[0], "lladdr")?;
        let amphorae = self.amphorae()?;
        for amphora in amphorae {
            // One that has died has none, and is the load balancer's until it is replaced.
            if amphora.links().unwrap_or_default().contains(&mac) {
                return Ok(amphora);
            }
        }
        bail!("no amphora has {mac}")
    }

    /// One request on a connection of its own, whose answer says which member it came from.
    pub fn get(&self, listener: &Listener, family: Family) -> Result<Response> {
        let vip = self.vip(family, listener.port)?;
        self.counted(listener, || Ok(clients::http_get(vip, "/")?))
    }

    /// Does with the client what makes one connection, and fails where it cannot.
    pub fn counted<T: Send>(
        &self,
        listener: &Listener,
        ask: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let asked = self.run.cloud.client.netns.enter(ask);
        let count = if asked.is_ok() { &listener.asked } else { &listener.failed };
        count.set(count.get() + 1);
        asked
    }

    /// How many of `count` requests each member answers.
    pub fn shares(
        &self,
        listener: &Listener,
        family: Family,
        count: u32,
    ) -> Result<BTreeMap<String, u32>> {
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            *shares.entry(self.get(listener, family)?.member).or_default() += 1;
        }
        Ok(shares)
    }

    /// Checks who answers how many requests over IPv4, to within one: no turn of all members need be whole.
    pub fn serves(&self, listener: &Listener, want: &[(&str, u32)]) -> Result<()> {
        let got = self.shares(listener, Family::V4, want.iter().map(|(_, count)| count).sum())?;
        let is_near = |(name, want): &(&str, u32)| {
            got.get(*name).is_some_and(|count| count.abs_diff(*want) <= 1)
        };
        ensure!(
            got.len() == want.len() && want.iter().all(is_near),
            "served by {got:?}, not {want:?}"
        );
        Ok(())
    }

    /// Waits until Octavia tells as many connections of a listener as clients made, and bytes both ways.
    ///
    /// A stock amphora forgets what came between a heartbeat and the next reload of HAProxy: of that it is only
    /// written down how much.
    pub fn is_told(&self, listener: &Listener) -> Result<()> {
        let path = format!("lbaas/listeners/{}/stats", listener.id);
        let asked = listener.asked.get();
        let told = || -> Result<u64> {
            let told = self.run.cloud.show(&path)?;
            told["total_connections"].as_u64().with_context(|| format!("no connections: {told}"))
        };
        let all = eventually(STATISTICS_MAX_S, || {
            let stats = self.run.cloud.show(&path)?;
            let is_right = listener.expected(self.run.cloud)?.contains(&told()?)
                // A flow of datagrams is open until it has been idle for its timeout.
                && (stats["active_connections"] == 0 || listener.protocol == "UDP")
                && ["bytes_in", "bytes_out"].iter().all(|key| stats[key].as_u64() > Some(0));
            ensure!(is_right, "{asked} connections were made, {stats} is told");
            Ok(())
        });
        if self.run.image == Image::Stock && all.is_err() {
            self.run.seen.borrow_mut().untold += asked.saturating_sub(told()?);
            return Ok(());
        }
        all
    }

    /// Ends it, when all is well and these listeners' connections are told.
    pub fn ends(self, listeners: &[&Listener]) -> Result<()> {
        self.settles(&[])?;
        listeners.iter().try_for_each(|listener| self.is_told(listener))?;
        self.delete()
    }

    /// Ends it with all that it has.
    pub fn delete(self) -> Result<()> {
        let cloud = self.run.cloud;
        // For some milliseconds of a second ours has mapped the tables that it sweeps: not at all three.
        let amphora = self.amphorae()?.into_iter().next();
        let looks = amphora.iter().flat_map(|it| [it, it, it]).filter_map(|it| it.memory().ok());
        self.run.seen.borrow_mut().memory = looks.min_by_key(|memory| memory.pss);
        cloud.call("DELETE", &format!("{}?cascade=true", self.path), None)?;
        eventually(ACTIVE_MAX_S, || {
            let left = cloud.show("lbaas/loadbalancers")?;
            let left = left.as_array().into_iter().flatten();
            let left: Vec<_> = left.filter(|lb| lb["id"] == self.id.as_str()).collect();
            ensure!(left.is_empty(), "not deleted: {left:?}\n{}", cloud.stack.complaints());
            Ok(())
        })
    }
}

/// How many SYN the client's kernel has sent again.
fn again(cloud: &Cloud) -> Result<u64> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/netstat");
    let text = cloud.client.netns.enter(read)?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let mut both = names.split(' ').zip(values.split(' '));
    let value = both.find(|(name, _)| *name == "TCPSynRetrans").context("no TCPSynRetrans")?.1;
    Ok(value.parse()?)
}

/// One of the cloud's members, for [`LoadBalancer::members`]; `more` has what is special.
pub fn member(name: &str, address: impl ToString, port: u16, more: Value) -> Value {
    let wanted = json!({"name": name, "address": address.to_string(), "protocol_port": port,
        "subnet_id": MEMBER_SUBNET});
    merged(wanted, more)
}

/// All members of the cloud's first network, at their HTTP port.
pub fn everybody(cloud: &Cloud) -> Vec<Value> {
    let member = |it: &super::cloud::Member| member(&it.host.name, it.host.v4, HTTP, json!({}));
    cloud.members.iter().map(member).collect()
}

/// An object with the keys of both; those of `more` win, and null takes a key away.
fn merged(mut object: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
        object.retain(|_, value| !value.is_null());
    }
    object
}

/// The parts of a tree whose status `is_told`, in words.
fn having(tree: &Value, key: &str, is_told: fn(&str) -> bool) -> Vec<String> {
    let own = tree[key].as_str().filter(|status| is_told(status));
    let own = own.map(|status| format!("{:?} is {status}", tree["name"].as_str().unwrap_or("")));
    let parts = tree.as_object().into_iter().flatten().flat_map(|(_, parts)| parts.as_array());
    let parts = parts.flatten().flat_map(|part| having(part, key, is_told));
    own.into_iter().chain(parts).collect()
}

/// The parts that have not their operating status, in words.
fn wrong(tree: &Value, others: &BTreeMap<&str, &str>) -> Vec<String> {
    fn walk(part: &Value, usual: &str, others: &BTreeMap<&str, &str>, found: &mut Vec<String>) {
        let name = part["name"].as_str().unwrap_or_default();
        let want = others.get(name).copied().unwrap_or(usual);
        match part["operating_status"].as_str() {
            Some(got) if got != want => found.push(format!("{name:?} is {got}, not {want}")),
            _ => {}
        }
        let is_monitored = part["health_monitor"]["id"].is_string();
        for (kind, parts) in part.as_object().into_iter().flatten() {
            let usual = match kind.as_str() {
                "members" if !is_monitored => "NO_MONITOR",
                _ => "ONLINE",
            };
            parts.as_array().into_iter().flatten().for_each(|it| walk(it, usual, others, found));
        }
    }
    let mut found = having(tree, "provisioning_status", |it| it != "ACTIVE");
    walk(tree, "ONLINE", others, &mut found);
    found
}
