//! What a guest says: a line of JSON for each step, as soon as it is done.

use std::fmt;

use serde::{Deserialize, Serialize};
use xdp_lb::record::Standing;

use crate::nics::{PAIRS, Pair};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The kernel has started its first process.
    Up,
    /// The tables of frames.
    Frames(Result<(), String>),
    /// Real traffic through the pair of this number.
    Traffic(usize, Result<Carried, String>),
    /// Nothing follows.
    Over,
}

/// What went through a pair of NICs.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub standing: Standing,
    /// What `status` warns of.
    pub warnings: Vec<String>,
    /// TCP connections and UDP flows that the program opened.
    pub opened: u64,
    /// Instructions that the verifier walked, stage by stage.
    pub walked: Vec<(String, u32)>,
}

impl fmt::Display for Carried {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} flows", self.opened)?;
        self.warnings.iter().try_for_each(|warning| write!(to, "; {warning}"))
    }
}

/// All that a guest said.
#[derive(Debug)]
pub struct Report {
    pub frames: Option<Result<(), String>>,
    /// Of the pairs that are wanted.
    pub traffic: Vec<Option<Result<Carried, String>>>,
    /// Why it ended before it was through.
    pub broken: Option<String>,
}

impl Report {
    /// Before it has said anything.
    pub fn of(pairs: usize) -> Self {
        Self { frames: None, traffic: (0..pairs).map(|_| None).collect(), broken: None }
    }

    pub fn add(&mut self, step: Step) {
        match step {
            Step::Up | Step::Over => {}
            Step::Frames(frames) => self.frames = Some(frames),
            Step::Traffic(pair, carried) => {
                if let Some(place) = self.traffic.get_mut(pair) {
                    *place = Some(carried);
                }
            }
        }
    }

    pub fn passed(&self) -> bool {
        self.failures().is_empty()
    }

    /// What is not as it must be, a sentence each.
    pub fn failures(&self) -> Vec<String> {
        let frames = match &self.frames {
            None => Some("the frame tables were not reached".to_owned()),
            Some(Err(why)) => Some(format!("the frame tables: {why}")),
            Some(Ok(())) => None,
        };
        let traffic = PAIRS.iter().zip(&self.traffic).filter_map(|(pair, carried)| {
            let wrong = match carried {
                None => "not reached".to_owned(),
                Some(Err(why)) => why.clone(),
                Some(Ok(carried)) => wrong(pair, &carried.standing)?,
            };
            Some(format!("traffic, {}: {wrong}", pair.name))
        });
        self.broken.iter().cloned().chain(frames).chain(traffic).collect()
    }

    /// Of each stage; it is loaded alike for every pair.
    pub fn walked(&self) -> &[(String, u32)] {
        let carried = self.traffic.iter().filter_map(|carried| carried.as_ref()?.as_ref().ok());
        carried.map(|carried| carried.walked.as_slice()).next().unwrap_or_default()
    }
}

fn wrong(pair: &Pair, standing: &Standing) -> Option<String> {
    match standing {
        Standing::Attached { mode, .. } if *mode == pair.mode => None,
        Standing::Attached { mode, refused, .. } => {
            let why = refused.as_deref().unwrap_or("no reason is told");
            Some(format!("{mode} mode where {} is wanted: {why}", pair.mode))
        }
        Standing::Missing => Some("there is no interface".to_owned()),
        Standing::Failed { why } => Some(format!("not attached: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use xdp_lb::kernel::Mode;

    use super::*;

    fn carried(mode: Mode) -> Result<Carried, String> {
        let standing = Standing::Attached { ifindex: 2, mode, refused: None };
        Ok(Carried { standing, warnings: Vec::new(), opened: 1, walked: Vec::new() })
    }

    /// Each line as the guest would write it.
    fn report(steps: Vec<Step>) -> Report {
        let mut report = Report::of(PAIRS.len());
        for step in steps {
            let line = serde_json::to_string(&step).expect("JSON");
            report.add(serde_json::from_str(&line).expect("what was written"));
        }
        report
    }

    #[test]
    fn what_passes() {
        let traffic = |pair: usize, mode| Step::Traffic(pair, carried(mode));
        let all = |last| {
            let pairs = [traffic(0, Mode::Native), traffic(1, Mode::Native), last];
            [Step::Up, Step::Frames(Ok(()))].into_iter().chain(pairs).collect::<Vec<_>>()
        };
        for (name, steps, want) in [
            ("all", all(traffic(2, Mode::Generic)), vec![]),
            ("nothing", vec![], vec!["not reached"; 4]),
            ("another mode", all(traffic(2, Mode::Native)), vec!["native mode where generic"]),
            ("no traffic", all(Step::Traffic(2, Err("lost".into()))), vec!["lost"]),
        ] {
            let failures = report(steps).failures();
            assert_eq!(failures.len(), want.len(), "{name}: {failures:?}");
            for (failure, want) in failures.iter().zip(want) {
                assert!(failure.contains(want), "{name}: {failure}");
            }
        }
    }
}
