//! Python environments, below target/, with what a requirements file lists.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{packages, process};

/// Fails on a Python that is too old for the current release of Octavia, or cannot make environments: Debian
/// has that in a package of its own.
const IS_ENOUGH: &str = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))";

/// Makes an environment with exactly the packages of a requirements file, unless it has them already.
pub fn environment(environment: &Path, requirements: &Path) -> Result<()> {
    let wanted = read(requirements)?;
    // Written last, so an environment without it is not whole.
    let stamp = environment.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    process::step(format!(
        "installing what {} lists into {}",
        requirements.display(),
        environment.display()
    ));
    make(environment, requirements)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
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

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
