//! The HAProxy configuration of a load balancer, as Octavia renders it (`common/jinja/haproxy`).
//!
//! An allow-list: what is not a line that Octavia 4, 11 or 19 writes is refused, because tenants' text stands
//! in this file and a part of it goes on to HAProxy. What it says is compared by meaning, because Octavia
//! renders the same in other orders.

mod backend;
mod frontend;
mod meaning;
mod preamble;
mod rules;
mod server;
mod tls;
mod values;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;

use winnow::Parser;

use crate::grammar;
use crate::paths::Paths;
use crate::refused::Refused;
use backend::{Backend, backend};
use frontend::{DefaultBackend, Frontend, METRICS, frontend};
use preamble::{Global, Peers, unknown};
use values::Target;
use words::{Line, lines};

/// What a file says, and its text. Two are equal if they mean the same to HAProxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// Octavia's id of the load balancer, a UUID.
    pub load_balancer: String,
    meaning: Meaning,
    text: String,
    sections: Vec<Section>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Meaning {
    global: Global,
    logs: bool,
    peers: Option<Peers>,
    frontends: Vec<Frontend>,
    /// By listener and pool: Octavia renders the pools of a listener in any order.
    backends: BTreeMap<(String, String), Backend>,
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        (&self.load_balancer, &self.meaning) == (&other.load_balancer, &other.meaning)
    }
}

impl Eq for Config {}

/// A section of the text, by its lines, the first being 0.
#[derive(Clone, Debug)]
struct Section {
    of: Of,
    lines: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    All,
    Metrics,
    Listener(String),
}

/// What a section is parsed in.
struct Scope<'a> {
    load_balancer: &'a str,
    paths: &'a Paths,
    has_peers: bool,
}

impl<'a> Scope<'a> {
    fn files(&self) -> (&'a str, &'a Paths) {
        (self.load_balancer, self.paths)
    }

    /// Where the load balancer's certificates are.
    fn folder(&self) -> PathBuf {
        self.paths.certificates(self.load_balancer)
    }

    /// The name of the section of peers.
    fn peers_name(&self) -> String {
        format!("{}_peers", self.load_balancer.replace('-', ""))
    }

    /// `peers NAME`, or nothing.
    fn peers(&self, line: &Line, words: &[&str]) -> Result<(), Refused> {
        match words {
            [] => Ok(()),
            ["peers", name] if self.has_peers && *name == self.peers_name() => Ok(()),
            _ => Err(line.refused("it shares its table with peers that are not there")),
        }
    }
}

/// Of a whole file. `paths` are those that it may name.
pub fn parse(text: &str, paths: &Paths) -> Result<Config, Refused> {
    let load_balancer = comment(text)?;
    if !text.ends_with('\n') {
        let last = text.lines().count().max(1);
        return Err(Refused::new(
            last,
            "the last line has no end, which HAProxy takes for half a file",
        ));
    }
    let lines = lines(text)?;
    let mut scope = Scope { load_balancer: &load_balancer, paths, has_peers: false };
    let mut sections = sections(&lines)?;
    let missing = |what: &str| Refused::new(1, format!("`{what}` is missing"));

    let mut next = |kind: &str| match sections.first() {
        Some((head, _)) if head.first() == kind => Some(sections.remove(0)),
        _ => None,
    };
    let (head, body) = next("global").ok_or_else(|| missing("global"))?;
    alone(head)?;
    let global = preamble::global(body, &load_balancer, paths)?;
    let (head, body) = next("defaults").ok_or_else(|| missing("defaults"))?;
    alone(head)?;
    let logs = preamble::defaults(body)?;
    let peers = match next("peers") {
        Some((head, body)) if head.words() == ["peers", &scope.peers_name()] => {
            scope.has_peers = true;
            Some(preamble::peers(body)?)
        }
        Some((head, _)) => return Err(head.refused("they are the peers of another load balancer")),
        None => None,
    };

    let (mut frontends, mut backends) = (Vec::<Frontend>::new(), BTreeMap::new());
    let mut spans = Vec::new();
    let mut listeners = HashSet::new();
    let mut metrics = 0;
    for (at, (head, body)) in sections.iter().enumerate() {
        let of = match &head.words()[..] {
            [kind @ ("frontend" | "backend"), name] if name.starts_with(METRICS) => {
                let known =
                    [("frontend", "prometheus-exporter-internal-endpoint"), ("backend", METRICS)];
                if known.get(metrics) != Some(&(*kind, *name)) || at != metrics {
                    return Err(head.refused("the exporter of metrics stands elsewhere"));
                }
                metrics += 1;
                preamble::exporter(kind, body)?;
                Of::Metrics
            }
            ["frontend", ..] => {
                let frontend = frontend(head, body, &scope)?;
                if !listeners.insert(frontend.id.clone()) {
                    return Err(head.refused("this frontend is there twice"));
                }
                let of = Of::Listener(frontend.id.clone());
                frontends.push(frontend);
                of
            }
            ["backend", ..] => {
                let backend = backend(head, body, &scope)?;
                let Target { pool, listener } = backend.name.clone();
                if frontends.last().is_none_or(|frontend| frontend.id != listener) {
                    return Err(head.refused("it does not stand behind its frontend"));
                }
                if backends.insert((listener.clone(), pool), backend).is_some() {
                    return Err(head.refused("this backend is there twice"));
                }
                Of::Listener(listener)
            }
            _ => return Err(unknown(head, "the file")),
        };
        spans.push((of, head.number - 1));
    }
    resolve(&sections, &frontends, &backends, metrics == 2)?;
    let sections = spanned(text, spans);
    let meaning = Meaning { global, logs, peers, frontends, backends };
    Ok(Config { load_balancer, meaning, text: text.to_owned(), sections })
}

impl Config {
    /// As it was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// With no other listeners than these; none where none is left.
    ///
    /// The text is byte for byte the original's but for the frontends that are gone and their backends,
    /// and for the exporter of metrics if no listener is left that serves them. `maxconn` of all is the
    /// sum over all listeners, also those that are gone: it is a limit, and higher than it need be.
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Option<Self> {
        let mut meaning = self.meaning.clone();
        meaning.frontends.retain(|frontend| keep(&frontend.id));
        meaning.backends.retain(|(listener, _), _| keep(listener));
        if meaning.frontends.is_empty() {
            return None;
        }
        let mut frontends = meaning.frontends.iter();
        let metrics = frontends.any(|frontend| frontend.default == DefaultBackend::Metrics);
        let stays = |section: &Section| match &section.of {
            Of::All => true,
            Of::Metrics => metrics,
            Of::Listener(id) => keep(id),
        };
        let old: Vec<&str> = self.text.split_inclusive('\n').collect();
        let (mut text, mut line, mut sections) = (String::new(), 0, Vec::new());
        for section in self.sections.iter().filter(|section| stays(section)) {
            let lines = section.lines.clone();
            text.extend(old[lines.clone()].iter().copied());
            sections.push(Section { of: section.of.clone(), lines: line..line + lines.len() });
            line += lines.len();
        }
        Some(Self { load_balancer: self.load_balancer.clone(), meaning, text, sections })
    }
}

/// The id in the first line.
fn comment(text: &str) -> Result<String, Refused> {
    let line = text.lines().next().unwrap_or_default();
    let mut said = ("# Configuration for loadbalancer ", grammar::uuid);
    let parsed = said.parse(line.trim_end());
    let refused = |_| Refused::new(1, "it does not say of which load balancer the file is");
    parsed.map(|(_, id)| id).map_err(refused)
}

type Sections<'a> = Vec<(&'a Line, &'a [Line])>;

/// A line that begins with the name of a section begins it, wherever it stands.
fn sections(lines: &[Line]) -> Result<Sections<'_>, Refused> {
    const KINDS: [&str; 5] = ["global", "defaults", "peers", "frontend", "backend"];
    let mut heads: Vec<usize> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if KINDS.contains(&line.first()) {
            heads.push(at);
        } else if heads.is_empty() {
            return Err(unknown(line, "the file"));
        }
    }
    let ends = heads.iter().skip(1).copied().chain([lines.len()]);
    Ok(heads.iter().zip(ends).map(|(head, end)| (&lines[*head], &lines[head + 1..end])).collect())
}

fn alone(head: &Line) -> Result<(), Refused> {
    if head.words().len() == 1 { Ok(()) } else { Err(unknown(head, "the file")) }
}

/// That all targets are there.
fn resolve(
    sections: &Sections<'_>,
    frontends: &[Frontend],
    backends: &BTreeMap<(String, String), Backend>,
    metrics: bool,
) -> Result<(), Refused> {
    let heads = sections.iter().map(|(head, _)| *head);
    let heads =
        heads.filter(|head| head.first() == "frontend" && !head.words()[1].starts_with(METRICS));
    for (frontend, head) in frontends.iter().zip(heads) {
        let default = match &frontend.default {
            DefaultBackend::Nowhere => None,
            DefaultBackend::Metrics if metrics => None,
            DefaultBackend::Metrics => return Err(head.refused("there is no exporter of metrics")),
            DefaultBackend::Pool(target) => Some(target),
        };
        let targets = frontend.rules.iter().filter_map(|rule| rule.target.as_ref()).chain(default);
        for Target { pool, listener } in targets {
            if *listener != frontend.id || !backends.contains_key(&(listener.clone(), pool.clone()))
            {
                return Err(head.refused(format!("its backend {pool}:{listener} is missing")));
            }
        }
    }
    Ok(())
}

/// Sections with the blank lines and comments before them; all before the first is of all.
fn spanned(text: &str, starts: Vec<(Of, usize)>) -> Vec<Section> {
    let end = text.split_inclusive('\n').count();
    let first = starts.first().map_or(end, |(_, start)| *start);
    let ends: Vec<usize> = starts.iter().skip(1).map(|(_, start)| *start).chain([end]).collect();
    let mut sections = vec![Section { of: Of::All, lines: 0..first }];
    sections.extend(
        starts.into_iter().zip(ends).map(|((of, start), end)| Section { of, lines: start..end }),
    );
    sections
}
