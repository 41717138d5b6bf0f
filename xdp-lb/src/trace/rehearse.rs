//! A frame through the path, stage by stage, on a trial of the live maps; and what was decided where.

use std::fmt::Write;
use std::net::SocketAddr;

use serde::Serialize;
use xdp_lb_ebpf::abi::{Algorithm, BACKEND_STICKY, BACKEND_UP, Backend, Listener, StickyKey};
use xdp_lb_ebpf::flows::State;
use xdp_lb_ebpf::hook::Verdict;
use xdp_lb_ebpf::path::{self, Miss, STAGES_PASSED_MAX, Stage};
use xdp_lb_ebpf::tables::{Flows, Tables, Way};
use xdp_lb_ebpf::{Packet, Reason};

use super::look::{Flow, look, mac};
use super::names::Names;
use crate::kernel::{Event, Trial};
use crate::observe::flows::word;
use crate::tables::address;

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub stage: &'static str,
    pub says: String,
}

/// All that becomes of a frame.
#[derive(Clone, Debug)]
pub struct Rehearsed {
    pub steps: Vec<Step>,
    pub verdict: Verdict,
    /// What is counted in `REASONS`, in this order.
    pub reasons: Vec<Reason>,
    pub frame: Vec<u8>,
    /// Numbers of the listener and the backend, where the frame came that far.
    pub listener: Option<u32>,
    pub backend: Option<u32>,
    /// A flow that is opened, as it is looked up then.
    pub opened: Option<Flow>,
    /// A client that is held to a member, and was not before.
    pub stuck: Option<StickyKey>,
}

/// Sends `frame` through the path as if it came in by `ingress`. Only the trial is changed.
pub fn rehearse(trial: &Trial<'_>, names: &Names<'_>, ingress: u32, frame: &[u8]) -> Rehearsed {
    trial.events();
    let mut telling = Telling {
        trial,
        names,
        open_to_all: false,
        opens: false,
        told: Rehearsed {
            steps: Vec::new(),
            verdict: Verdict::Drop,
            reasons: Vec::new(),
            frame: frame.to_vec(),
            listener: None,
            backend: None,
            opened: None,
            stuck: None,
        },
    };
    telling.parse();
    let end = telling.stages(ingress);
    if end.is_ok() {
        telling.rewrite();
    }
    let (verdict, reason) = trial.end(end, &mut telling.told.frame, ingress);
    telling.events();
    telling.told.verdict = verdict;
    telling.verdict(ingress, reason);
    telling.told
}

struct Telling<'a> {
    trial: &'a Trial<'a>,
    names: &'a Names<'a>,
    /// The listener asks nobody where he is from.
    open_to_all: bool,
    /// The path has opened a flow.
    opens: bool,
    told: Rehearsed,
}

impl Telling<'_> {
    fn say(&mut self, stage: &'static str, says: impl Into<String>) {
        self.told.steps.push(Step { stage, says: says.into() });
    }

    /// What the frame says, and its flow, if it is known.
    fn parse(&mut self) {
        let bytes = self.told.frame.len();
        let look = match look(&mut self.told.frame) {
            Ok(look) => look,
            Err(reason) => return self.say("parse", format!("{bytes} bytes: {}", text(reason))),
        };
        self.say("parse", format!("{look}, {} bytes of IP, TTL {}", look.bytes, look.ttl));
        if look.ports.is_none() {
            return;
        }
        match look.flow(self.trial) {
            None => self.say("flow", "not known"),
            Some(flow) => {
                let member = self.member(flow.backend);
                let way = if flow.state.has(State::FORWARD) { "to" } else { "of answers of" };
                self.say("flow", format!("{}, {way} {member}", word(flow.state)));
            }
        }
    }

    fn stages(&mut self, ingress: u32) -> Result<u32, Reason> {
        let mut at = Stage::Known;
        for _ in 0..STAGES_PASSED_MAX {
            let limit = self.limit(at);
            let end = path::stage(at, &mut Packet::new(&mut self.told.frame), ingress, self.trial);
            self.events();
            if let Some(says) = limit.filter(|_| passed_limit(&end)) {
                self.say("limit", says);
            }
            if matches!(at, Stage::Open4 | Stage::Open6) {
                self.open(&end);
            }
            match end {
                Ok(egress) => return Ok(egress),
                Err(Miss::Over(reason)) => return Err(reason),
                Err(Miss::Goes(next)) => at = next,
            }
        }
        Err(Reason::StageMissing)
    }

    /// How full the listener is, before a flow is opened.
    fn limit(&self, stage: Stage) -> Option<String> {
        if !matches!(stage, Stage::Open4 | Stage::Open6) {
            return None;
        }
        let choice = self.trial.chosen();
        let open = self.trial.listener_load(choice.listener)?.load();
        Some(match choice.connections_max {
            u32::MAX => format!("{open} connections are open, there is no limit"),
            max if open >= max => format!("{open} connections are open, no more than {max} may be"),
            max => format!("{open} connections are open, {max} may be"),
        })
    }

    fn open(&mut self, end: &Result<u32, Miss>) {
        match end {
            Err(Miss::Goes(Stage::Follow)) => {}
            Err(Miss::Goes(_)) => return self.say("open", "in the place of a flow that may go"),
            Ok(_) | Err(Miss::Over(_)) => return,
        }
        let Ok(look) = look(&mut self.told.frame) else { return };
        let (Some(flow), Some(ports)) = (look.flow(self.trial), look.ports) else { return };
        if !self.opens {
            return self.say("open", "it is known by now");
        }
        let why = if flow.src.port() == ports.src {
            "the client's own port"
        } else {
            "the client's own port is taken, or none of ours"
        };
        self.say("open", format!("a flow from {}: {why}", flow.src));
        self.told.opened = Some(flow);
    }

    /// Tells of what the path asked and did since the last time.
    fn events(&mut self) {
        let (mut held, mut held_before) = (None, true);
        for event in self.trial.events() {
            match event {
                Event::Listener(key, None) => {
                    let at = SocketAddr::new(address(key.addr), u16::from_be_bytes(key.port));
                    let beside = self.names.beside(at).map(|says| format!("; {says}"));
                    self.say("listener", format!("none at {at}{}", beside.unwrap_or_default()));
                }
                Event::Listener(_, Some(listener)) => self.listener(&listener),
                Event::Socket(false) => {}
                Event::Socket(true) => self.say("socket", "a local one has the connection"),
                Event::Allowed(true) => {
                    self.say("networks", "the client is in one that is allowed")
                }
                Event::Allowed(false) => {
                    self.say("networks", "the client is in none that is allowed")
                }
                Event::Sticky(_, sticky) => {
                    held = sticky.map(|sticky| sticky.backend);
                    held_before = sticky.is_some();
                }
                Event::Stuck(key, _) => self.told.stuck = (!held_before).then_some(key),
                Event::Chosen(choice) => {
                    self.told.backend = Some(choice.backend);
                    if self.open_to_all {
                        self.say("networks", "all are allowed");
                    }
                    self.chosen(choice.backend, held);
                }
                Event::Fragment(None) => self.say("fragment", "its first has not been seen"),
                Event::Fragment(Some(first)) => {
                    let member = self.member(first.backend);
                    self.say("fragment", format!("follows its first, of a flow to {member}"));
                }
                Event::Opened(_) => self.opens = true,
                Event::Carried(backend, way) => {
                    self.told.backend = Some(backend);
                    self.told.listener = self.trial.listener_of(backend);
                    let way = match way {
                        Way::In => "from the client to",
                        Way::Out => "to the client from",
                    };
                    let member = self.member(backend);
                    self.say("follow", format!("{way} {member}"));
                }
                Event::Reason(reason) => self.told.reasons.push(reason),
            }
        }
    }

    fn listener(&mut self, listener: &Listener) {
        self.told.listener = Some(listener.id);
        let name = self.names.listener(listener.id).map(str::to_owned);
        let mut says = name.unwrap_or_else(|| format!("number {}", listener.id));
        let (places, persists) = (listener.ring_len, listener.sticky_s);
        // Writing into a string does not fail.
        let _ = write!(says, ", {}, {places} places in its ring", algorithm(listener.algorithm));
        if persists > 0 {
            let _ = write!(says, ", clients keep their member for {persists} s");
        }
        self.say("listener", says);
        self.open_to_all = listener.restricted == 0;
    }

    fn chosen(&mut self, backend: u32, held: Option<u32>) {
        let why = if held == Some(backend) { "the client is held to" } else { "chosen:" };
        let member = self.member(backend);
        let Some(at) = self.trial.backend(backend) else { return };
        let load = self.trial.backend_load(backend).map_or(0, |load| load.load());
        self.say("member", format!("{why} {member}, {}, {load} connections", standing(at)));
    }

    fn member(&self, backend: u32) -> String {
        let at = self
            .trial
            .backend(backend)
            .map(|at| SocketAddr::new(address(at.addr), u16::from_be_bytes(at.port)).to_string());
        let at = at.unwrap_or_else(|| "nowhere".to_owned());
        match self.names.member(backend) {
            Some((member, pool)) => format!("{member} of {pool} at {at}"),
            None => format!("member number {backend} at {at}"),
        }
    }

    /// What became of its headers.
    fn rewrite(&mut self) {
        if let Ok(look) = look(&mut self.told.frame) {
            let (from, to) = (mac(look.from), mac(look.to));
            self.say("rewrite", format!("{look}, TTL {}, from {from} to {to}", look.ttl));
        }
    }

    fn verdict(&mut self, ingress: u32, reason: Option<Reason>) {
        let answered = reason.is_some();
        let what = match self.told.verdict {
            Verdict::Pass => "PASS".to_owned(),
            Verdict::Drop => "DROP".to_owned(),
            Verdict::Tx if answered => {
                format!("TX, an answer, by {}", self.names.interface(ingress))
            }
            Verdict::Tx => format!("TX, by {}, where it came in", self.names.interface(ingress)),
            Verdict::Redirect(egress) => format!("REDIRECT to {}", self.names.interface(egress)),
        };
        let counted = self.told.reasons.iter().map(|reason| text(*reason));
        let says = [what].into_iter().chain(counted).collect::<Vec<_>>().join("; ");
        self.say("verdict", says);
    }
}

/// Whether the limit was asked: what ends before has another reason.
fn passed_limit(end: &Result<u32, Miss>) -> bool {
    match end {
        Ok(_) | Err(Miss::Goes(_)) => true,
        Err(Miss::Over(reason)) => {
            matches!(reason, Reason::LimitReached | Reason::TableFull | Reason::Contended)
        }
    }
}

fn text(reason: Reason) -> String {
    let (name, text) = reason.text();
    format!("{name}: {}", text.trim())
}

fn algorithm(number: u8) -> &'static str {
    let known = [
        (Algorithm::RoundRobin, "round robin"),
        (Algorithm::LeastConnections, "least connections"),
        (Algorithm::SourceIp, "source IP"),
        (Algorithm::SourceIpPort, "source IP and port"),
    ];
    known.into_iter().find(|(it, _)| *it as u8 == number).map_or("round robin", |(_, name)| name)
}

fn standing(backend: &Backend) -> &'static str {
    if backend.flags & BACKEND_UP != 0 {
        "up"
    } else if backend.flags & BACKEND_STICKY != 0 {
        "draining"
    } else {
        "down"
    }
}
