//! Debian packages, installed when a task misses something.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

/// Installs `packages` as root through apt-get; elsewhere the error says what to do by hand.
pub fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    ensure!(
        process::find("apt-get").is_some(),
        "there is no apt-get here to install what Debian calls {names}"
    );
    ensure!(process::is_root(), "run `apt-get update && apt-get install {names}` as root");

    process::step(format!("installing {names} with apt-get"));
    update();
    let install = ["install", "--yes", "--no-install-recommends"];
    process::run(apt_get().args(install).args(packages))
        .with_context(|| format!("{names} could not be installed"))
}

/// The version of a package that would be installed now.
pub fn candidate(package: &str) -> Result<String> {
    update();
    let show = ["show", "--no-all-versions", package];
    let shown = process::output(Command::new("apt-cache").args(show))?;
    let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
    Ok(version.with_context(|| format!("apt knows no {package}"))?.to_owned())
}

/// Stale lists name versions that the mirrors no longer have. A failure here need not matter.
fn update() {
    if let Err(error) = process::run(apt_get().arg("update")) {
        process::step(format!("{error}; going on with the package lists at hand"));
    }
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get.args(["-qq", "--option=DPkg::Lock::Timeout=300"]);
    apt_get
}
