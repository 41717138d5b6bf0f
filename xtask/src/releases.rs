//! Python environments with releases of Octavia: its driver, and its whole control plane, are let loose on our
//! agent.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{packages, process};

/// The current release; the oldest with a driver that speaks version 1.0 of the agent's API: those before
/// know 0.5 only, which the stock agent of today does not speak either; and between them one whose whole
/// control plane runs with a Python of today.
const RELEASES: [&str; 3] = ["19.0.0", "4.1.0", "11.0.3"];

/// Fails on a Python that is too old for the current release, or cannot make environments: Debian
/// has that in a package of its own.
const IS_ENOUGH: &str = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))";

/// Makes `target/octavia/<release>/` for each release, unless it is there as its requirements are.
pub fn install() -> Result<()> {
    for release in RELEASES {
        let requirements = requirements(release);
        let wanted = read(&requirements)?;
        let environment = process::workspace().join("target/octavia").join(release);
        // Written last, so an environment without it is not whole.
        let stamp = environment.join("requirements.txt");
        if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
            continue;
        }
        process::step(format!("installing Octavia {release} into {}", environment.display()));
        make(&environment, &requirements)?;
        fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(())
}

fn make(environment: &Path, requirements: &Path) -> Result<()> {
    let venv = ["-m", "venv", "--clear"];
    process::run(Command::new(python()?).args(venv).arg(environment))?;
    // The files list everything, with versions: there is nothing to resolve. Nothing is built, but for
    // one package of a few lines that has no wheel.
    let install = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install"];
    let exactly =
        ["--no-deps", "--only-binary", ":all:", "--no-binary", "simplegeneric", "--use-pep517"];
    let mut pip = Command::new(environment.join("bin/python"));
    process::run(pip.args(install).args(exactly).arg("--requirement").arg(requirements))
}

/// The distribution's Python before another that may come first in the PATH.
fn python() -> Result<PathBuf> {
    let find = || {
        let pythons = [Some("/usr/bin/python3".into()), process::find("python3")];
        pythons.into_iter().flatten().find(|python: &PathBuf| is_enough(python))
    };
    if let Some(python) = find() {
        return Ok(python);
    }
    packages::install(&["python3", "python3-venv"])
        .context("there is no Python of 3.11 or later that makes environments")?;
    match find() {
        Some(python) => Ok(python),
        None => bail!("after apt-get install there is still no Python of 3.11 or later"),
    }
}

fn is_enough(python: &Path) -> bool {
    process::output(Command::new(python).args(["-c", IS_ENOUGH])).is_ok()
}

fn requirements(release: &str) -> PathBuf {
    process::workspace().join(format!("tests/octavia/requirements/{release}.txt"))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_versions_of_names() {
        for release in RELEASES {
            let text = read(&requirements(release)).expect("requirements");
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
