//! Python environments with releases of Octavia: its driver, and its whole control plane, are let loose on our
//! agent.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, python};

/// The current release; the oldest with a driver that speaks version 1.0 of the agent's API: those before
/// know 0.5 only, which the stock agent of today does not speak either; and between them one whose whole
/// control plane runs with a Python of today.
const RELEASES: [&str; 3] = ["19.0.0", "4.1.0", "11.0.3"];

/// Makes `target/octavia/<release>/` for each release, unless it is there as its requirements are.
pub fn install() -> Result<()> {
    for release in RELEASES {
        let environment = process::workspace().join("target/octavia").join(release);
        python::environment(&environment, &requirements(release))?;
    }
    Ok(())
}

fn requirements(release: &str) -> PathBuf {
    process::workspace().join(format!("tests/octavia/requirements/{release}.txt"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn requirements_are_versions_of_names() {
        for release in RELEASES {
            let text = fs::read_to_string(requirements(release)).expect("requirements");
            assert!(text.lines().any(|line| line == format!("octavia=={release}")), "{release}");
            for line in text.lines() {
                let is_pinned = line.split_once("==").is_some_and(|(name, version)| {
                    [name, version]
                        .iter()
                        .all(|word| !word.is_empty() && !word.contains([' ', '=']))
                });
                assert!(is_pinned, "{release}: {line}");
            }
        }
    }
}
