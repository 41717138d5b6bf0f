//! The daemon, its configuration, its unit, and the programs beside it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent_api::Name;
use agent_api::config::Topology;

use super::facts::Config;
use super::sockets::{Protocol, Waiting};
use super::{Facts, Finding};
use crate::check::{self, Unwell};
use crate::child::PATH;

/// Where systemd is.
const SYSTEMD: &str = "/run/systemd/system";
const UNIT: &str = "amphora-agent.service";
/// Restarts since the boot that are no accident any more.
const RESTARTS: u32 = 3;

/// As `systemctl show` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`.
    pub load: String,
    /// `active`, `failed`.
    pub active: String,
    /// `enabled`, `disabled`; empty where there is no file.
    pub file: String,
    pub restarts: u32,
}

impl Unit {
    /// None on a machine without systemd.
    pub fn look() -> Option<Result<Self, String>> {
        if !Path::new(SYSTEMD).exists() {
            return None;
        }
        let mut command = Command::new("systemctl");
        command.args(["show", "--property=LoadState,ActiveState,UnitFileState,NRestarts", UNIT]);
        let output = command.env("PATH", PATH).stdin(Stdio::null()).output();
        Some(match output {
            Ok(output) if output.status.success() => {
                Ok(Self::parse(&String::from_utf8_lossy(&output.stdout)))
            }
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("systemctl: {error}")),
        })
    }

    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().to_owned()
        };
        Self {
            load: field("LoadState"),
            active: field("ActiveState"),
            file: field("UnitFileState"),
            restarts: field("NRestarts").parse().unwrap_or(0),
        }
    }
}

/// A program that is run beside the packet path.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub there: bool,
}

impl Program {
    /// A name without a folder is looked for where it would be.
    pub fn look(path: &Path) -> Self {
        let runs = |path: &Path| {
            path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        };
        let mut folders = PATH.split(':').map(Path::new);
        let there = runs(path) || folders.any(|folder| runs(&folder.join(path)));
        Self { path: path.to_owned(), there }
    }
}

/// What VRRP's check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    Well,
    /// There is nothing to be fit for.
    Idle(String),
    Ill(String),
}

impl Fitness {
    /// In the network namespace of the load balancer.
    pub fn look(name: &Name) -> Self {
        match check::check(name) {
            Ok(()) => Self::Well,
            Err(why @ (Unwell::Unexpected | Unwell::NothingServed)) => Self::Idle(why.to_string()),
            Err(why) => Self::Ill(why.to_string()),
        }
    }
}

pub fn fit(facts: &Facts) -> Vec<Finding> {
    let fitness = facts.network.as_ref().ok().and_then(|network| network.fitness.as_ref());
    let about = "xdp-lb check";
    let finding = |fitness: &Fitness| match fitness {
        Fitness::Well => Finding::ok(about, "well"),
        Fitness::Idle(why) => Finding::note(about, why.clone()),
        Fitness::Ill(why) => {
            let mend =
                "what else is said here; of a pair, the other amphora has the VIPs meanwhile";
            Finding::failure(about, why.clone(), mend)
        }
    };
    fitness.map(finding).into_iter().collect()
}

pub fn configuration(facts: &Facts) -> Vec<Finding> {
    let about = facts.config_path.display().to_string();
    let faults = facts.faults.iter().map(|fault| {
        let mend = "[health_manager] controller_ip_port_list on the controllers, then `openstack \
                    loadbalancer amphora configure AMPHORA`";
        Finding::warning(&about, fault.clone(), mend)
    });
    let whole = match &facts.config {
        Config::Read(_) => Finding::ok(&about, "an amphora's"),
        Config::None => {
            Finding::note(&about, "is not there: this is no amphora, or it is not set up")
        }
        Config::Bad(why) => {
            let mend = "`openstack loadbalancer amphora configure AMPHORA`, which writes it anew; \
                        xdp-lb.conf beside it is the operator's";
            Finding::failure(&about, format!("is not to be used: {why}"), mend)
        }
    };
    [whole].into_iter().chain(faults).collect()
}

pub fn daemon(facts: &Facts) -> Vec<Finding> {
    let start = match facts.is_amphora() {
        true => "`systemctl start amphora-agent`; `journalctl -u amphora-agent` has why it ended",
        false => "`xdp-lb run`",
    };
    let Some(name) = &facts.name else {
        let names: Vec<_> = facts.names.iter().map(ToString::to_string).collect();
        return vec![match names.len() {
            0 => Finding::note("", "no load balancer has been started here"),
            _ => {
                Finding::warning("", "there are several", format!("--name {}", names.join(" or ")))
            }
        }];
    };
    let about = name.to_string();
    if let Some(pid) = &facts.daemon {
        return vec![Finding::ok(&about, format!("process {pid}"))];
    }
    if facts.record.is_none() && !facts.is_amphora() {
        return vec![Finding::failure(&about, "has not been started", start)];
    }
    let found = "no daemon runs: packets go on, but nothing expires and nothing is followed";
    let mut findings = vec![Finding::failure(&about, found, start)];
    findings.extend(port_taken(facts));
    findings
}

/// While the agent does not run, nobody else may have its port.
fn port_taken(facts: &Facts) -> Option<Finding> {
    let config = facts.agent()?;
    let takes = |it: &&Waiting| {
        let ip = it.at.ip();
        let meets =
            ip == config.bind_host || ip.is_unspecified() || config.bind_host.is_unspecified();
        it.protocol == Protocol::Tcp && it.at.port() == config.bind_port && meets
    };
    let port = config.bind_port;
    facts.waiting.iter().find(takes).map(|taken| {
        let found = format!("{} is another program's, and the agent would listen there", taken.at);
        let mend = format!("the end of that program: `ss -tlnp sport = :{port}`");
        Finding::failure(&format!("port {port}"), found, mend)
    })
}

pub fn unit(facts: &Facts) -> Vec<Finding> {
    let unit = match &facts.unit {
        Some(Ok(unit)) if facts.is_amphora() => unit,
        Some(Err(why)) if facts.is_amphora() => return vec![Finding::unknown(UNIT, why)],
        Some(_) | None => return Vec::new(),
    };
    let Unit { load, active, file, restarts } = unit;
    vec![if load != "loaded" {
        let mend = "an amphora image with the package xdp-lb ([controller_worker] amp_image_tag)";
        Finding::failure(UNIT, format!("is {load}"), mend)
    } else if active != "active" && active != "activating" {
        let mend =
            "`systemctl start amphora-agent`; `journalctl -u amphora-agent` has why it ended";
        Finding::failure(UNIT, format!("is {active}"), mend)
    } else if !matches!(&file[..], "enabled" | "alias" | "static" | "enabled-runtime") {
        let found = format!("is {file}: after a reboot it does not start");
        Finding::warning(UNIT, found, "`systemctl enable amphora-agent`")
    } else if *restarts >= RESTARTS {
        let found = format!("was started again {restarts} times");
        Finding::warning(UNIT, found, "what `journalctl -u amphora-agent` says before each start")
    } else {
        Finding::ok(UNIT, format!("{active}, {file}"))
    }]
}

pub fn programs(facts: &Facts) -> Vec<Finding> {
    let Some(config) = facts.agent() else { return Vec::new() };
    let package = |name: &str| {
        format!(
            "`apt-get install {name}`, or an amphora image with it ([controller_worker] amp_image_tag)"
        )
    };
    let finding = |program: &Program, name: &str, what: &str, needed: bool| {
        let about = program.path.display().to_string();
        match (program.there, needed) {
            (true, _) => Finding::ok(&about, "there"),
            (false, true) => Finding::failure(&about, format!("is missing: {what}"), package(name)),
            (false, false) => Finding::note(&about, format!("is missing, and not needed: {what}")),
        }
    };
    let pair = config.loadbalancer_topology == Topology::ActiveStandby;
    let [haproxy, keepalived] = &facts.programs;
    vec![
        finding(haproxy, "haproxy", "HTTP, TLS and PROXY listeners are served by it", true),
        finding(keepalived, "keepalived", "it moves the VIP within a pair of amphorae", pair),
    ]
}

/// What the daemon could not do.
pub fn in_force(facts: &Facts) -> Vec<Finding> {
    let Some(error) = facts.record.as_ref().and_then(|record| record.error.as_deref()) else {
        return facts.unfound.iter().map(|why| Finding::unknown("", why)).collect();
    };
    let mend = "that; the state before it is in force until then";
    vec![Finding::failure("", format!("what is wanted is not in force: {error}"), mend)]
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Note, Ok, Warning};
    use super::super::facts::tests::{inside, said, well};
    use super::*;

    #[test]
    fn configurations() {
        let rows = [
            (Config::None, Note, "no amphora"),
            (Config::Bad("line 2: nonsense".to_owned()), Failure, "amphora configure"),
        ];
        for (config, level, words) in rows {
            let facts = Facts { config, ..well() };
            said(
                &configuration(&facts),
                &[(level, "/etc/octavia/amphora-agent.conf", words)],
                words,
            );
        }
        let facts = Facts { faults: vec!["x is no host:port".to_owned()], ..well() };
        let path = "/etc/octavia/amphora-agent.conf";
        let want = [(Ok, path, "an amphora's"), (Warning, path, "x is no host:port")];
        said(&configuration(&facts), &want, "a fault");
    }

    #[test]
    fn daemons() {
        let facts = Facts { daemon: None, ..well() };
        said(&daemon(&facts), &[(Failure, "lb", "systemctl start amphora-agent")], "agent");
        let listens = |at: &str| Waiting { protocol: Protocol::Tcp, at: at.parse().unwrap() };
        let agent = (Failure, "lb", "no daemon runs");
        let taken = (Failure, "port 9443", "ss -tlnp sport = :9443");
        let rows = [
            ("0.0.0.0:9443", vec![agent, taken]),
            ("[::]:9443", vec![agent, taken]),
            ("127.0.0.1:9443", vec![agent, taken]),
            ("0.0.0.0:9444", vec![agent]),
        ];
        for (at, want) in rows {
            let facts = Facts { daemon: None, waiting: vec![listens(at)], ..well() };
            said(&daemon(&facts), &want, at);
        }
        let facts = Facts { daemon: None, config: Config::None, ..well() };
        said(&daemon(&facts), &[(Failure, "lb", "`xdp-lb run`")], "run");
        let facts = Facts { name: None, ..well() };
        said(&daemon(&facts), &[(Note, "", "no load balancer")], "nothing");
        let names = ["a", "b"].map(|it| it.to_owned().try_into().unwrap()).to_vec();
        let facts = Facts { name: None, names, ..well() };
        said(&daemon(&facts), &[(Warning, "", "--name a or b")], "several");
    }

    #[test]
    fn units() {
        let shown = |load: &str, active: &str, file: &str, restarts: u32| {
            format!(
                "LoadState={load}\nActiveState={active}\nUnitFileState={file}\nNRestarts={restarts}\n"
            )
        };
        let rows = [
            (shown("loaded", "active", "enabled", 0), Ok, "active, enabled"),
            (shown("not-found", "inactive", "", 0), Failure, "amp_image_tag"),
            (shown("loaded", "failed", "enabled", 0), Failure, "systemctl start"),
            (shown("loaded", "active", "disabled", 0), Warning, "systemctl enable"),
            (shown("loaded", "active", "enabled", 9), Warning, "again 9 times"),
        ];
        for (text, level, words) in rows {
            let facts = Facts { unit: Some(Result::Ok(Unit::parse(&text))), ..well() };
            said(&unit(&facts), &[(level, UNIT, words)], &text);
        }
        let facts = Facts { unit: Some(Err("no bus".to_owned())), ..well() };
        said(&unit(&facts), &[(Warning, UNIT, "no bus")], "no bus");
        let facts = Facts { unit: None, ..well() };
        said(&unit(&facts), &[], "no systemd");
    }

    #[test]
    fn programs_beside() {
        let haproxy = (Failure, "/usr/sbin/haproxy", "apt-get install haproxy");
        let rows = [
            (Topology::Single, Note, "not needed"),
            (Topology::ActiveStandby, Failure, "apt-get install keepalived"),
        ];
        for (topology, level, words) in rows {
            let mut facts = well();
            facts.change_agent(|config| config.loadbalancer_topology = topology);
            facts.programs.iter_mut().for_each(|program| program.there = false);
            said(&programs(&facts), &[haproxy, (level, "/usr/sbin/keepalived", words)], words);
        }
        let sh = ["/bin/sh", "sh", "/none/sh", "/etc/passwd", "/bin"];
        let there = sh.map(|path| Program::look(Path::new(path)).there);
        assert_eq!(there, [true, true, false, false, false]);
    }

    #[test]
    fn what_vrrp_hears() {
        let why = || "HAProxy does not answer".to_owned();
        let rows = [
            (Some(Fitness::Well), vec![(Ok, "xdp-lb check", "well")]),
            (Some(Fitness::Idle(why())), vec![(Note, "xdp-lb check", "does not answer")]),
            (Some(Fitness::Ill(why())), vec![(Failure, "xdp-lb check", "the other amphora")]),
            (None, vec![]),
        ];
        for (fitness, want) in rows {
            let mut facts = well();
            inside(&mut facts).fitness = fitness;
            said(&fit(&facts), &want, "fit");
        }
    }

    #[test]
    fn what_is_not_in_force() {
        let mut facts = well();
        facts.change_record(|record| record.error = Some("LISTENERS is full".to_owned()));
        said(&in_force(&facts), &[(Failure, "", "LISTENERS is full")], "full");
    }
}
