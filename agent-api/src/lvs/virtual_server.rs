//! The two blocks of an address family: its virtual addresses, and who serves them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::ipv4_mask_to_prefix;

use super::check::{self, Check};
use crate::desired::{self, Algorithm};
use crate::keepalived::{COUNT_MAX, Lines, Value};
use crate::limits::{PREFIX4, PREFIX6, WEIGHT_MAX};
use crate::monitor::{Monitor, OnMarkedDown};
use crate::paths::Paths;
use crate::refused::Refused;
use crate::understood::{Engine, Listener, Member, Persistence, Pool, Protocol, Server};

#[derive(Clone, Copy)]
pub(super) enum Family {
    V4,
    V6,
}

/// What the blocks say, of one family or of both.
#[derive(Default)]
pub(super) struct VirtualServer {
    vips: Vec<IpAddr>,
    port: Same<u16>,
    protocol: Same<Protocol>,
    algorithm: Same<Algorithm>,
    persistence_timeout_s: Same<Option<u32>>,
    prefix4: Option<u8>,
    prefix6: Option<u8>,
    timing: Same<Option<Timing>>,
    pool: Same<Identity>,
    health_monitor: Same<String>,
    connection_limit: Same<Option<u32>>,
    check: Same<Option<Check>>,
    members: Vec<Member>,
}

/// When checks are made, and how many count. It stands apart from what they are, and with no member too.
#[derive(PartialEq)]
struct Timing {
    delay_s: u32,
    fall: u16,
}

#[derive(PartialEq)]
struct Identity {
    id: String,
    enabled: bool,
}

/// What is said more than once, always the same.
struct Same<T>(Option<T>);

impl VirtualServer {
    /// Reads the blocks of a family, which stand there if it has a VIP.
    pub fn read(
        &mut self,
        lines: &mut Lines<'_>,
        family: Family,
        paths: &Paths,
    ) -> Result<(), Refused> {
        let (group, server) = match family {
            Family::V4 => {
                ("virtual_server_group ipv4-group {", "virtual_server group ipv4-group {")
            }
            Family::V6 => {
                ("virtual_server_group ipv6-group {", "virtual_server group ipv6-group {")
            }
        };
        let Some([]) = lines.when(group) else { return Ok(()) };
        self.vips(lines, family)?;
        let [] = lines.need(server)?;
        self.body(lines, family, paths)
    }

    /// Reads the one block of Octavia 4, which has a VIP and no groups, if it stands there.
    pub fn read_single(&mut self, lines: &mut Lines<'_>, paths: &Paths) -> Result<(), Refused> {
        let Some([address, port]) = lines.when("virtual_server <address> <port> {") else {
            return Ok(());
        };
        let vip = address.address()?;
        self.vips.push(vip);
        self.port.agree("the port", port.line, port.port()?)?;
        self.body(lines, if vip.is_ipv4() { Family::V4 } else { Family::V6 }, paths)
    }

    fn body(
        &mut self,
        lines: &mut Lines<'_>,
        family: Family,
        paths: &Paths,
    ) -> Result<(), Refused> {
        self.scheduling(lines)?;
        self.persistence(lines, family)?;
        let timing = Timing::read(lines)?;
        let timed = timing.is_some();
        self.timing.agree("delay_loop or retry", lines.taken(), timing)?;
        let has_members = self.pool(lines)?;
        self.health_monitor(lines, timed)?;
        if !has_members {
            return lines.need("}").map(|[]| ());
        }
        while lines.when::<0>("}").is_none() {
            self.member(lines, family, timed, paths)?;
        }
        Ok(())
    }

    /// The listener, and the id of its health monitor.
    pub fn into_listener(self, id: String) -> (Listener, Option<String>) {
        let persistence = self.persistence_timeout_s.0.flatten().map(|timeout_s| {
            let single = desired::Persistence::default();
            Persistence::SourceIp(desired::Persistence {
                timeout_s,
                prefix4: self.prefix4.unwrap_or(single.prefix4),
                prefix6: self.prefix6.unwrap_or(single.prefix6),
            })
        });
        let timed = self.timing.0.flatten().zip(self.check.0.flatten());
        let monitor = timed.map(|(timing, check)| Monitor {
            probe: check.probe,
            delay_s: timing.delay_s,
            timeout_s: check.timeout_s,
            rise: 1,
            fall: timing.fall,
            on_marked_down: OnMarkedDown::default(),
        });
        let pool = self.pool.0.zip(self.algorithm.0).map(|(identity, algorithm)| Pool {
            id: identity.id,
            algorithm,
            persistence,
            monitor,
            enabled: identity.enabled,
            members: self.members,
        });
        let listener = Listener {
            id,
            vips: self.vips,
            port: self.port.0.unwrap_or(0),
            protocol: self.protocol.0.unwrap_or(Protocol::Udp),
            engine: Engine::Xdp,
            connection_limit: self.connection_limit.0.flatten(),
            client_timeout_ms: 0,
            server_timeout_ms: 0,
            default_pool: pool.as_ref().map(|pool| pool.id.clone()),
            pools: pool.into_iter().collect(),
            log_format: None,
        };
        (listener, self.health_monitor.0)
    }

    fn vips(&mut self, lines: &mut Lines<'_>, family: Family) -> Result<(), Refused> {
        loop {
            let [address, port] = lines.need("<address> <port>")?;
            self.vips.push(family.address(address)?);
            self.port.agree("the port", port.line, port.port()?)?;
            if let Some([]) = lines.when("}") {
                return Ok(());
            }
        }
    }

    fn scheduling(&mut self, lines: &mut Lines<'_>) -> Result<(), Refused> {
        let [scheduler] = lines.need("lb_algo <scheduler>")?;
        let algorithm = match scheduler.text {
            // Octavia 4 writes the one that knows no weights, for which there is no reason in the API.
            "wrr" | "rr" => Algorithm::RoundRobin,
            "lc" => Algorithm::LeastConnections,
            "sh" => Algorithm::SourceIp,
            _ => return Err(scheduler.refused("is not wrr, lc or sh")),
        };
        self.algorithm.agree("lb_algo", scheduler.line, algorithm)?;
        let [] = lines.need("lb_kind NAT")?;
        let [protocol] = lines.need("protocol <protocol>")?;
        let spoken = match protocol.text {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return Err(protocol.refused("is not UDP or SCTP")),
        };
        self.protocol.agree("protocol", protocol.line, spoken)
    }

    fn persistence(&mut self, lines: &mut Lines<'_>, family: Family) -> Result<(), Refused> {
        let Some([timeout]) = lines.when("persistence_timeout <timeout>") else {
            return self.persistence_timeout_s.agree("persistence_timeout", lines.taken(), None);
        };
        let timeout_s = timeout.number(1..=COUNT_MAX)?;
        self.persistence_timeout_s.agree("persistence_timeout", timeout.line, Some(timeout_s))?;
        let [mask] = lines.need("persistence_granularity <mask>")?;
        match family {
            Family::V4 => self.prefix4 = Some(prefix4(mask)?),
            Family::V6 => self.prefix6 = Some(prefix6(mask)?),
        }
        Ok(())
    }

    /// Whether it is enabled: a disabled pool has its members in Octavia only.
    fn pool(&mut self, lines: &mut Lines<'_>) -> Result<bool, Refused> {
        let disabled = lines.when("# Pool <id> is disabled");
        let enabled = disabled.is_none();
        let [id] = match disabled {
            Some(id) => id,
            None => lines.need("# Configuration for Pool <id>")?,
        };
        self.pool.agree("the pool", id.line, Identity { id: id.uuid()?, enabled })?;
        Ok(enabled)
    }

    fn health_monitor(&mut self, lines: &mut Lines<'_>, timed: bool) -> Result<(), Refused> {
        if !timed {
            return Ok(());
        }
        let [id] = lines.need("# Configuration for HealthMonitor <id>")?;
        self.health_monitor.agree("the health monitor", id.line, id.uuid()?)
    }

    fn member(
        &mut self,
        lines: &mut Lines<'_>,
        family: Family,
        timed: bool,
        paths: &Paths,
    ) -> Result<(), Refused> {
        if let Some([id]) = lines.when("# Member <id> is disabled") {
            self.members.push(Member { id: id.uuid()?, enabled: false, server: None });
            return Ok(());
        }
        let [id] = lines.need("# Configuration for Member <id>")?;
        let id = id.uuid()?;
        let [address, port] = lines.need("real_server <address> <port> {")?;
        let line = port.line;
        let (address, port) = (family.address(address)?, port.port()?);
        let [weight] = lines.need("weight <weight>")?;
        let weight = weight.number(0..=WEIGHT_MAX)?;
        // The API promises a limit of the listener. IPVS, which has none, applies it to each member; here
        // it is the listener's again.
        let limit = match lines.when("uthreshold <uthreshold>") {
            Some([limit]) => Some(limit.number(1..=COUNT_MAX)?),
            None => None,
        };
        self.connection_limit.agree("uthreshold", line, limit)?;
        let (check, probed_at) = if timed { check::read(lines, paths)? } else { None }.unzip();
        self.check.agree("the check", line, check)?;
        let [] = lines.need("}")?;
        let probed_at = probed_at.filter(|at| *at != SocketAddr::new(address, port));
        let server = Some(Server { address, port, weight, backup: false, probed_at });
        self.members.push(Member { id, enabled: true, server });
        Ok(())
    }
}

impl Timing {
    /// `retry` is Octavia's `fall_threshold`. The API sees to it that there is one; 1 is keepalived's.
    fn read(lines: &mut Lines<'_>) -> Result<Option<Self>, Refused> {
        let Some([delay]) = lines.when("delay_loop <delay_loop>") else { return Ok(None) };
        let delay_s = delay.number(1..=COUNT_MAX)?;
        // The same again; Octavia 4 has the timeout there. HAProxy asks as often after a failure as ever,
        // and so do we.
        let [again] = lines.need("delay_before_retry <delay_before_retry>")?;
        let _: u32 = again.number(1..=COUNT_MAX)?;
        let fall = match lines.when("retry <retry>") {
            Some([retry]) => retry.number(1..=u16::MAX)?,
            None => 1,
        };
        Ok(Some(Self { delay_s, fall }))
    }
}

impl Family {
    /// An address of this family.
    fn address(self, address: Value<'_>) -> Result<IpAddr, Refused> {
        match (self, address.address()?) {
            (Self::V4, v4 @ IpAddr::V4(_)) => Ok(v4),
            (Self::V6, v6 @ IpAddr::V6(_)) => Ok(v6),
            (Self::V4, IpAddr::V6(_)) => Err(address.refused("is not IPv4, as its block is")),
            (Self::V6, IpAddr::V4(_)) => Err(address.refused("is not IPv6, as its block is")),
        }
    }
}

impl<T: PartialEq> Same<T> {
    fn agree(&mut self, what: &str, line: usize, now: T) -> Result<(), Refused> {
        match &self.0 {
            Some(before) if *before != now => {
                Err(Refused::new(line, format!("{what} differs from what stands before")))
            }
            Some(_) => Ok(()),
            None => {
                self.0 = Some(now);
                Ok(())
            }
        }
    }
}

impl<T> Default for Same<T> {
    fn default() -> Self {
        Self(None)
    }
}

fn prefix4(mask: Value<'_>) -> Result<u8, Refused> {
    let bits = mask.text.parse().map_err(|_| mask.refused("is not a mask"))?;
    match ipv4_mask_to_prefix(bits) {
        Ok(prefix) if PREFIX4.contains(&prefix) => Ok(prefix),
        Ok(_) => Err(mask.refused("makes all clients one")),
        Err(_) => Err(mask.refused("has a hole")),
    }
}

/// A mask in dots is what the user wanted for IPv4 (Octavia has one value for both families), or what
/// Octavia 11 puts there by default; keepalived does not take it and keeps single addresses apart.
fn prefix6(mask: Value<'_>) -> Result<u8, Refused> {
    if mask.text.parse::<Ipv4Addr>().is_ok() { Ok(*PREFIX6.end()) } else { mask.number(PREFIX6) }
}
