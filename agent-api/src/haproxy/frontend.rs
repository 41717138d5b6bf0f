//! A listener.

use std::net::IpAddr;

use super::Scope;
use super::preamble::{once, unknown};
use super::rules::{Rule, rule};
use super::tls::Tls;
use super::values::{Target, Value};
use super::words::Line;
use crate::refused::Refused;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub id: String,
    pub maxconn: Option<u32>,
    pub redirects_to_tls: bool,
    pub hsts: Option<String>,
    pub binds: Vec<Bind>,
    pub mode: Mode,
    pub rules: Vec<Rule>,
    pub default: DefaultBackend,
    pub client_timeout_ms: u32,
    pub inspect_delay_ms: Option<u32>,
    pub log_format: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub address: IpAddr,
    pub port: u16,
    pub tls: Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Tcp,
    Http,
}

/// Where what no rule takes goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultBackend {
    Nowhere,
    Pool(Target),
    /// The exporter of metrics.
    Metrics,
}

pub const METRICS: &str = "prometheus-exporter-internal";

pub fn frontend(head: &Line, lines: &[Line], scope: &Scope<'_>) -> Result<Frontend, Refused> {
    let id = match &head.words()[..] {
        [_, id] => Value::of(head, id).uuid()?,
        _ => return Err(unknown(head, "frontend")),
    };
    let (mut maxconn, mut hsts, mut mode, mut default) = (None, None, None, None);
    let (mut client, mut inspect, mut log_format) = (None, None, None);
    let (mut binds, mut rules, mut redirects_to_tls) = (Vec::new(), Vec::new(), false);
    for line in lines {
        if let Some(rule) = rule(line)? {
            rules.push(rule);
            continue;
        }
        match &line.words()[..] {
            ["maxconn", number] => {
                once(&mut maxconn, Value::of(line, number).number(1, u32::MAX)?, line)?;
            }
            ["redirect", "scheme", "https", "if", "!{", "ssl_fc", "}"] => redirects_to_tls = true,
            ["http-response", "set-header", "Strict-Transport-Security", value] => {
                let known = |next: char| next.is_ascii_alphanumeric() || "=; -".contains(next);
                let value = Value::of(line, value).of_characters("a list of directives", known)?;
                once(&mut hsts, value, line)?;
            }
            // Tenants' text comes behind the mode: no socket of theirs.
            ["bind", ..] if mode.is_some() => {
                return Err(line.refused("`bind` stands before `mode`"));
            }
            ["bind", socket, options @ ..] => {
                let bind = bind(line, socket, options, scope)?;
                if binds.first().is_some_and(|first: &Bind| first.port != bind.port) {
                    return Err(line.refused("a listener has one port"));
                }
                binds.push(bind);
            }
            ["mode", word] => once(&mut mode, self::mode(line, word)?, line)?,
            ["default_backend", METRICS] => once(&mut default, DefaultBackend::Metrics, line)?,
            ["default_backend", name] => {
                let target = Value::of(line, name).target()?;
                once(&mut default, DefaultBackend::Pool(target), line)?;
            }
            ["timeout", "client", ms] => once(&mut client, timeout(line, ms)?, line)?,
            ["tcp-request", "inspect-delay", ms] => {
                once(&mut inspect, timeout(line, ms)?, line)?;
            }
            // Octavia 4 logs in HAProxy's own formats.
            ["option", "httplog" | "tcplog"] => {}
            ["log-format", format] => {
                once(&mut log_format, Value::of(line, format).format()?, line)?;
            }
            _ => return Err(unknown(line, "frontend")),
        }
    }
    let missing = |what: &str| head.refused(format!("the frontend has no `{what}`"));
    if binds.is_empty() {
        return Err(missing("bind"));
    }
    Ok(Frontend {
        id,
        maxconn,
        redirects_to_tls,
        hsts,
        binds,
        mode: mode.ok_or_else(|| missing("mode"))?,
        rules,
        default: default.unwrap_or(DefaultBackend::Nowhere),
        client_timeout_ms: client.ok_or_else(|| missing("timeout client"))?,
        inspect_delay_ms: inspect,
        log_format,
    })
}

fn bind(line: &Line, socket: &str, options: &[&str], scope: &Scope<'_>) -> Result<Bind, Refused> {
    let (address, port) = Value::of(line, socket).socket()?;
    let mut tls = Tls::default();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        // Octavia 4 names the listener's certificate, then the folder with those for other names.
        if *option == "crt" && options.as_slice().first().copied() == scope.folder().to_str() {
            options.next();
            tls.folder = true;
        // What a server has and a `bind` has not.
        } else if *option == "sni" || !tls.option(option, &mut options, line, scope.files())? {
            return Err(line.refused(format!("`{option}` is not an option of `bind`")));
        }
    }
    Ok(Bind { address, port, tls })
}

pub fn mode(line: &Line, word: &str) -> Result<Mode, Refused> {
    match word {
        "tcp" => Ok(Mode::Tcp),
        "http" => Ok(Mode::Http),
        _ => Err(line.refused("a mode is tcp or http")),
    }
}

/// Milliseconds, without a unit.
pub fn timeout(line: &Line, ms: &str) -> Result<u32, Refused> {
    Value::of(line, ms).number(0, u32::MAX)
}
