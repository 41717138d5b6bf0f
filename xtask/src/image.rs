//! An image for amphorae, as Glance takes it: diskimage-builder with the element of xdp-lb.
//!
//! All but a `tar` needs loop devices and the device mapper, which some containers have not.

use std::path::{Path, PathBuf};
use std::{env, fs, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{package, packages, process, python};

const ELEMENTS: &str = "xdp-lb/elements";
const REQUIREMENTS: &str = "xdp-lb/elements/requirements.txt";

/// What diskimage-builder calls, and the packages that bring it.
const TOOLS: [(&str, &str); 6] = [
    ("debootstrap", "debootstrap"),
    ("kpartx", "kpartx"),
    ("qemu-img", "qemu-utils"),
    ("rsync", "rsync"),
    ("sudo", "sudo"),
    ("mkfs.ext4", "e2fsprogs"),
];

#[derive(Args)]
pub struct Options {
    /// Release of Debian
    #[arg(long, default_value = "trixie")]
    release: String,
    /// qcow2, raw, tar and whatever else disk-image-create makes, with commas; tar has no boot loader
    #[arg(long = "type", default_value = "qcow2")]
    kind: String,
    /// The package of xdp-lb [default: one is made]
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
    /// The image, without what its type adds to the name [default: target/amphora-xdp-lb]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// More elements
    elements: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    ensure!(
        process::is_root(),
        "file systems are made and mounted: run `cargo xtask image` as root"
    );
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|(command, _)| process::find(command).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    let workspace = process::workspace();
    let environment = workspace.join("target/diskimage-builder");
    python::environment(&environment, &workspace.join(REQUIREMENTS))?;
    let package = match &options.package {
        Some(package) => absolute(package)?,
        None => package::make(&package::Options::default())?,
    };
    let out = options.out.clone().unwrap_or_else(|| workspace.join("target/amphora-xdp-lb"));

    let mut create = Command::new(environment.join("bin/disk-image-create"));
    // It calls others of its environment by their names.
    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = [environment.join("bin")].into_iter().chain(env::split_paths(&inherited));
    create.env("PATH", env::join_paths(path)?);
    create.env("ELEMENTS_PATH", workspace.join(ELEMENTS));
    create.env("XDP_LB_DEB", package).env("DIB_RELEASE", &options.release);
    create.args(["-t", &options.kind, "-o"]).arg(&out);
    create.args(elements(&options.kind)).args(&options.elements);
    process::run(&mut create)?;
    for kind in options.kind.split(',') {
        let image = PathBuf::from(format!("{}.{kind}", out.display()));
        let bytes = fs::metadata(&image).with_context(|| image.display().to_string())?.len();
        process::step(format!("{} has {} MiB", image.display(), bytes.div_ceil(1 << 20)));
    }
    Ok(())
}

/// `vm` brings the boot loader, and the partitions for it, which an archive of files has no place for.
fn elements(kind: &str) -> Vec<&'static str> {
    let boots = kind.split(',').any(|kind| kind != "tar");
    let vm = boots.then_some("vm");
    vm.into_iter().chain(["debian-minimal", "xdp-lb-amphora"]).collect()
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_boots_has_a_boot_loader() {
        let rows: [(&str, &[&str]); 3] = [
            ("qcow2", &["vm", "debian-minimal", "xdp-lb-amphora"]),
            ("tar", &["debian-minimal", "xdp-lb-amphora"]),
            ("tar,raw", &["vm", "debian-minimal", "xdp-lb-amphora"]),
        ];
        for (kind, want) in rows {
            assert_eq!(elements(kind), want, "{kind}");
        }
    }
}
