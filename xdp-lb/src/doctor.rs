//! `xdp-lb doctor`: what of this machine is not as it should be, and what mends it.
//!
//! [`Facts::look`] asks the kernel, the files and the programs; a table of checks judges what they said, and
//! asks nobody. Nothing is changed. What is sent is one empty datagram to each health manager, which drops
//! it.

mod certificates;
mod clock;
mod daemon;
mod ethtool;
mod facts;
mod interfaces;
mod kernel;
mod managers;
mod neighbours;
mod ports;
mod rights;
mod sockets;

use std::fmt;

use comfy_table::ContentArrangement;
use serde::Serialize;

use crate::observe::{row, table};
pub use facts::{Facts, Options};

/// What is said of the machine, the worst last, where the eye is.
#[derive(Debug, Serialize)]
pub struct Report {
    pub findings: Vec<Checked>,
}

/// A finding, and which check found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub check: &'static str,
    #[serde(flatten)]
    pub finding: Finding,
}

/// What a check found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// An interface, a file, a member; empty for the machine.
    pub about: String,
    pub level: Level,
    pub found: String,
    /// A property of Nova, Glance, Neutron or Octavia, or a command. Always there from
    /// [`Level::Warning`] on.
    pub mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Worth knowing; nothing suffers.
    Note,
    /// Something is slower than it could be, or will fail soon, or could not be looked at.
    Warning,
    /// Something does not work.
    Failure,
}

/// More than nothing: the exit status.
#[derive(Debug, thiserror::Error)]
#[error("failures: {failures}")]
pub struct Ill {
    failures: usize,
}

type Check = fn(&Facts) -> Vec<Finding>;

const CHECKS: [(&str, Check); 23] = [
    ("configuration", daemon::configuration),
    ("daemon", daemon::daemon),
    ("unit", daemon::unit),
    ("programs", daemon::programs),
    ("in force", daemon::in_force),
    ("fit", daemon::fit),
    ("kernel", kernel::version),
    ("bpffs", kernel::bpffs),
    ("jit", kernel::jit),
    ("btf", kernel::btf),
    ("rights", rights::rights),
    ("namespace", facts::namespace),
    ("driver", interfaces::driver),
    ("attached", interfaces::attached),
    ("queues", interfaces::queues),
    ("offloads", interfaces::offloads),
    ("mtu", interfaces::mtu),
    ("checksums", interfaces::checksums),
    ("ports", ports::reserved),
    ("sockets", sockets::shadowed),
    ("neighbours", neighbours::ways),
    ("certificates", certificates::dates),
    ("clock", clock::clock),
];

/// Those that come after the others: they take a moment.
const LAST: (&str, Check) = ("managers", managers::reachable);

/// All checks, over what was looked at.
pub fn examine(facts: &Facts) -> Report {
    let checked = CHECKS.iter().chain([&LAST]).flat_map(|(check, examine)| {
        examine(facts).into_iter().map(|finding| Checked { check, finding })
    });
    let mut findings: Vec<_> = checked.collect();
    findings.sort_by_key(|it| it.finding.level);
    Report { findings }
}

impl Report {
    /// Whether nothing fails; warnings may be.
    pub fn verdict(&self) -> Result<(), Ill> {
        match self.count(Level::Failure) {
            0 => Ok(()),
            failures => Err(Ill { failures }),
        }
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|it| it.finding.level == level).count()
    }
}

impl Finding {
    fn new(level: Level, about: &str, found: impl Into<String>) -> Self {
        Self { about: about.to_owned(), level, found: found.into(), mend: None }
    }

    pub fn ok(about: &str, found: impl Into<String>) -> Self {
        Self::new(Level::Ok, about, found)
    }

    pub fn note(about: &str, found: impl Into<String>) -> Self {
        Self::new(Level::Note, about, found)
    }

    pub fn warning(about: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Level::Warning, about, found).mended_by(mend)
    }

    pub fn failure(about: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Level::Failure, about, found).mended_by(mend)
    }

    /// Of something that could not be looked at.
    pub fn unknown(about: &str, why: &str) -> Self {
        Self::warning(about, format!("cannot be told: {why}"), "running this as root")
    }

    pub fn mended_by(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "failure",
        })
    }
}

/// Of the table.
const COLUMNS: u16 = 118;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut findings = table(&["LEVEL", "CHECK", "ABOUT", "FOUND, AND WHAT MENDS IT"]);
        // Advice is sentences.
        findings.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
        for Checked { check, finding: Finding { about, level, found, mend } } in &self.findings {
            let mend = mend.as_ref().map(|mend| format!("\n-> {mend}"));
            let found = format!("{found}{}", mend.unwrap_or_default());
            row(&mut findings, [level, check, about, &found]);
        }
        let [warnings, failures] = [Level::Warning, Level::Failure].map(|it| self.count(it));
        writeln!(f, "{findings}\n\n{failures} failures, {warnings} warnings")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_last_and_decides() {
        let checked = |finding| Checked { check: "x", finding };
        let rows = [
            (vec![], None),
            (vec![Finding::ok("a", "b"), Finding::warning("a", "b", "c")], None),
            (
                vec![Finding::failure("a", "b", "c"), Finding::failure("a", "b", "c")],
                Some("failures: 2"),
            ),
        ];
        for (findings, want) in rows {
            let report = Report { findings: findings.into_iter().map(checked).collect() };
            let verdict = report.verdict().err().map(|ill| ill.to_string());
            assert_eq!(verdict.as_deref(), want);
        }
        let report = examine(&facts::tests::well());
        let levels: Vec<_> = report.findings.iter().map(|it| it.finding.level).collect();
        assert!(levels.is_sorted() && levels.len() > CHECKS.len() / 2, "{levels:?}");
    }

    /// Nothing that is bad is without advice, and of a machine that is well nothing is.
    #[test]
    fn a_machine_that_is_well() {
        let report = examine(&facts::tests::well());
        let bad = report.findings.iter().filter(|it| it.finding.level > Level::Ok);
        assert_eq!(bad.collect::<Vec<_>>(), Vec::<&Checked>::new());
        let shown = report.to_string();
        assert!(shown.ends_with("0 failures, 0 warnings\n"), "{shown}");
    }

    #[test]
    fn shown() {
        let finding = Finding::warning("eth1", "it is slow", "a new one");
        let report = Report { findings: vec![Checked { check: "driver", finding }] };
        let shown = report.to_string();
        assert!(shown.contains("it is slow"), "{shown}");
        assert!(shown.contains("-> a new one"), "{shown}");
        let want = serde_json::json!({"findings": [{
            "check": "driver", "about": "eth1", "level": "warning", "found": "it is slow",
            "mend": "a new one",
        }]});
        assert_eq!(serde_json::to_value(&report).unwrap(), want);
    }
}
