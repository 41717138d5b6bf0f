//! The modules of a kernel that its guest needs, out of a package and into the order in which they load.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::programs::output;

/// What must be there, in the kernel or as a module: the NICs, and the wires of the frame tables.
const WANTED: [&str; 3] = ["virtio_pci", "virtio_net", "veth"];

/// Those of `release` in the tree of its package, decompressed and numbered as they must be loaded.
pub fn keep(tree: &Path, release: &str, into: &Path) -> Result<()> {
    // Where all else is below /usr the modules are too; depmod knows the older place.
    let merged = tree.join("usr/lib/modules");
    if merged.exists() {
        fs::create_dir_all(tree.join("lib"))?;
        fs::rename(merged, tree.join("lib/modules"))?;
    }
    output(Command::new("depmod").arg("--basedir").arg(tree).arg(release))?;
    let folder = tree.join("lib/modules").join(release);
    let list = |name| fs::read_to_string(folder.join(name)).with_context(|| format!("no {name}"));
    let (built_in, dependencies) = (list("modules.builtin")?, list("modules.dep")?);
    fs::create_dir_all(into)?;
    for (number, module) in in_order(&built_in, &dependencies)?.iter().enumerate() {
        decompress(&folder.join(module), &into.join(format!("{number:02}-{}.ko", name(module))))?;
    }
    Ok(())
}

/// What [`keep`] has kept.
pub fn kept(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut modules =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    modules.sort();
    Ok(modules)
}

/// From `modules.dep`: `virtio_net.ko: net_failover.ko failover.ko`, what is needed first coming last.
fn in_order<'a>(built_in: &str, dependencies: &'a str) -> Result<Vec<&'a str>> {
    let mut order = Vec::new();
    for wanted in WANTED {
        if built_in.lines().any(|line| name(line) == wanted) {
            continue;
        }
        let mut lines = dependencies.lines().filter_map(|line| line.split_once(':'));
        let line = lines.find(|(module, _)| name(module) == wanted);
        let (module, needs) = line.with_context(|| format!("this kernel has no {wanted}"))?;
        for module in needs.split_whitespace().rev().chain([module]) {
            if !order.contains(&module) {
                order.push(module);
            }
        }
    }
    Ok(order)
}

/// `kernel/drivers/net/virtio_net.ko.xz` is `virtio_net`.
fn name(module: &str) -> String {
    let file = module.rsplit('/').next().unwrap_or(module);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn decompress(module: &Path, into: &Path) -> Result<()> {
    match module.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => fs::copy(module, into).map(drop)?,
        Some("xz") => {
            let mut xz = Command::new("xz");
            xz.args(["--decompress", "--stdout"]).arg(module).stdout(File::create(into)?);
            output(&mut xz)?;
        }
        _ => bail!("{} is compressed in a way that is not known here", module.display()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first() {
        let dependencies = "kernel/drivers/net/veth.ko.xz:\n\
            kernel/drivers/net/virtio_net.ko.xz: kernel/net_failover.ko.xz kernel/failover.ko.xz\n\
            kernel/drivers/virtio/virtio-pci.ko.xz: kernel/virtio_ring.ko.xz\n";
        let net = [
            "kernel/failover.ko.xz",
            "kernel/net_failover.ko.xz",
            "kernel/drivers/net/virtio_net.ko.xz",
            "kernel/drivers/net/veth.ko.xz",
        ];
        let pci = ["kernel/virtio_ring.ko.xz", "kernel/drivers/virtio/virtio-pci.ko.xz"];
        for (built_in, want) in
            [("kernel/virtio_pci.ko", net.to_vec()), ("", [&pci[..], &net].concat())]
        {
            assert_eq!(in_order(built_in, dependencies).expect("all are there"), want);
        }
        assert!(in_order("", "").is_err());
    }
}
