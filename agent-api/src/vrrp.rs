//! The keepalived configuration of VRRP, as Octavia renders it (`keepalived/jinja`).
//!
//! keepalived itself reads it, so nothing else may be in it: a script, a notification or another file
//! would be a way into the amphora. Whether it says enough is keepalived's to judge.

mod statement;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::grammar::Statements;
use crate::paths::Paths;
use crate::refused::Refused;
use statement::{Statement as S, statement};

/// What a file says. Two are equal if they mean the same to keepalived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub script: Option<CheckScript>,
    /// The name of the instance: the id of the load balancer without dashes.
    pub name: String,
    /// None where the controller did not find out (it writes `None`), or left it out.
    pub interface: Option<String>,
    /// Octavia 11 says who is to begin with; 19 leaves it to the priority.
    pub state: Option<State>,
    pub virtual_router_id: Option<u8>,
    pub priority: Option<u8>,
    pub nopreempt: bool,
    pub accept: bool,
    /// Seconds between gratuitous ARPs of a master, and how many at a time.
    pub garp_refresh_s: Option<u32>,
    pub garp_refresh_repeat: Option<u32>,
    /// Seconds between advertisements.
    pub advertise_s: Option<u32>,
    pub password: Option<String>,
    /// Own address of this amphora.
    pub source: Option<IpAddr>,
    pub peers: Vec<IpAddr>,
    pub vips: Vec<IpAddr>,
    /// VIPs of the other family, which are not advertised.
    pub excluded_vips: Vec<IpAddr>,
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    pub tracks_script: bool,
}

/// `vrrp_script check_script`: seconds between runs, and results in a row that turn it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckScript {
    pub interval_s: Option<u32>,
    pub fall: Option<u32>,
    pub rise: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Master,
    Backup,
}

/// A route that comes and goes with the VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// None for the default route.
    pub destination: Option<IpNet>,
    /// By `via`, or by `gateway`, which keepalived 2.2 does not know; it then leaves the route out.
    pub next_hop: Option<IpAddr>,
    pub interface: String,
    pub source: Option<IpAddr>,
    pub scope_link: bool,
    pub onlink: bool,
    pub table: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub from: IpNet,
    pub table: u32,
    pub priority: u32,
}

/// Of a whole file. `paths` are those whose check script it may name.
pub fn parse(text: &str, paths: &Paths) -> Result<Config, Refused> {
    let mut file = Statements::read(text, statement)?;
    let script = if file.take(|s| (*s == S::Script).then_some(())).is_some() {
        Some(script(&mut file, paths)?)
    } else {
        None
    };
    let config = instance(&mut file, script)?;
    file.done()?;
    Ok(config)
}

fn script(file: &mut Statements<S>, paths: &Paths) -> Result<CheckScript, Refused> {
    let known = paths.vrrp_check();
    let line = file.line();
    let path = file.must("`script`", |s| match s {
        S::ScriptPath(path) => Some(path.clone()),
        _ => None,
    })?;
    if path != known.to_string_lossy() {
        return Err(Refused::new(line, format!("the script must be {}", known.display())));
    }
    let mut script = CheckScript::default();
    loop {
        let line = file.line();
        let slot = file.must("a known directive, or `}`,", |s| match s {
            S::Interval(seconds) => Some((0, *seconds)),
            S::Fall(times) => Some((1, *times)),
            S::Rise(times) => Some((2, *times)),
            S::Close => Some((3, 0)),
            _ => None,
        })?;
        let (place, value) = match slot {
            (0, value) => (&mut script.interval_s, value),
            (1, value) => (&mut script.fall, value),
            (2, value) => (&mut script.rise, value),
            _ => return Ok(script),
        };
        once(place, value, line)?;
    }
}

fn instance(file: &mut Statements<S>, script: Option<CheckScript>) -> Result<Config, Refused> {
    let (name, empty) = file.must("`vrrp_instance`", |s| match s {
        S::Instance { name, empty } => Some((name.clone(), *empty)),
        _ => None,
    })?;
    let mut config = Config {
        script,
        name,
        interface: None,
        state: None,
        virtual_router_id: None,
        priority: None,
        nopreempt: false,
        accept: false,
        garp_refresh_s: None,
        garp_refresh_repeat: None,
        advertise_s: None,
        password: None,
        source: None,
        peers: Vec::new(),
        vips: Vec::new(),
        excluded_vips: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        tracks_script: false,
    };
    if empty {
        return Ok(config);
    }
    loop {
        let line = file.line();
        let said = file.must("a known directive, or `}`,", |s| Some(s.clone()))?;
        match said {
            S::Interface(name) => once(&mut config.interface, name, line)?,
            S::State(state) => once(&mut config.state, state, line)?,
            S::RouterId(id) => once(&mut config.virtual_router_id, id, line)?,
            S::Priority(priority) => once(&mut config.priority, priority, line)?,
            S::NoPreempt => config.nopreempt = true,
            S::Accept => config.accept = true,
            S::GarpRefresh(seconds) => once(&mut config.garp_refresh_s, seconds, line)?,
            S::GarpRepeat(times) => once(&mut config.garp_refresh_repeat, times, line)?,
            S::Advertise(seconds) => once(&mut config.advertise_s, seconds, line)?,
            S::Source(address) => once(&mut config.source, address, line)?,
            S::Authentication => {
                file.must("`auth_type PASS`", |s| (*s == S::AuthType).then_some(()))?;
                let password = file.must("`auth_pass`", |s| match s {
                    S::AuthPass(password) => Some(password.clone()),
                    _ => None,
                })?;
                once(&mut config.password, password, line)?;
                file.must("`}`", |s| (*s == S::Close).then_some(()))?;
            }
            S::Peers => block(file, &mut config.peers, address)?,
            S::Vips => block(file, &mut config.vips, address)?,
            S::ExcludedVips => block(file, &mut config.excluded_vips, address)?,
            S::Routes => block(file, &mut config.routes, |s| match s {
                S::Route(route) => Some(route.clone()),
                _ => None,
            })?,
            S::Rules => block(file, &mut config.rules, |s| match s {
                S::Rule(rule) => Some(*rule),
                _ => None,
            })?,
            S::Track => {
                file.must("`check_script`", |s| (*s == S::CheckScript).then_some(()))?;
                file.must("`}`", |s| (*s == S::Close).then_some(()))?;
                config.tracks_script = true;
            }
            S::Close => {
                // As the template writes it where the controller did not find the interface.
                config.interface = config.interface.filter(|name| name != "None");
                return Ok(config);
            }
            S::Script
            | S::ScriptPath(_)
            | S::Interval(_)
            | S::Fall(_)
            | S::Rise(_)
            | S::Instance { .. }
            | S::AuthType
            | S::AuthPass(_)
            | S::Address(_)
            | S::Route(_)
            | S::Rule(_)
            | S::CheckScript => return Err(Refused::new(line, "this has no place here")),
        }
    }
}

/// Items up to the end of the block.
fn block<T>(
    file: &mut Statements<S>,
    items: &mut Vec<T>,
    item: impl Fn(&S) -> Option<T>,
) -> Result<(), Refused> {
    while let Some(next) = file.take(&item) {
        items.push(next);
    }
    file.must("a known item, or `}`,", |s| (*s == S::Close).then_some(()))
}

fn address(s: &S) -> Option<IpAddr> {
    match s {
        S::Address(address) => Some(*address),
        _ => None,
    }
}

/// keepalived would take the last of two; Octavia writes one.
fn once<T>(place: &mut Option<T>, value: T, line: usize) -> Result<(), Refused> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refused::new(line, "it is there twice")),
    }
}
