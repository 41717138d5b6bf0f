//! A guest's first file system, as the kernel unpacks it: a cpio archive (Linux,
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, trailer};

use crate::archive::Kernel;
use crate::programs::{Programs, bytes};

/// Where the modules are in the guest.
pub const MODULES: &str = "/modules";

// Kind and permissions, as in `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// Writes the programs and the kernel's modules.
pub fn write(to: &Path, programs: &Programs, kernel: &Kernel) -> Result<()> {
    let modules = kernel.modules.iter().map(|module| {
        let name = module.file_name().context("a module's name")?;
        Ok((Path::new(MODULES).join(name), module.clone()))
    });
    let modules = modules.collect::<Result<Vec<_>>>()?;
    let files = || programs.files.iter().chain(modules.iter().map(|(path, from)| (path, from)));
    // Parents sort before their children.
    let folders: BTreeSet<&Path> = files().flat_map(|(path, _)| path.ancestors().skip(1)).collect();
    let mut archive = BufWriter::new(File::create(to)?);
    for folder in folders.into_iter().filter(|folder| folder.parent().is_some()) {
        entry(&mut archive, folder, DIRECTORY, &[])?;
    }
    for (path, from) in files() {
        entry(&mut archive, path, FILE, &bytes(from)?)?;
    }
    trailer(&mut archive)?.flush()?;
    Ok(())
}

fn entry(to: impl Write, path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let name = path.to_str().context("a path in UTF-8")?.trim_start_matches('/');
    let mut entry = Builder::new(name).mode(mode).write(to, u32::try_from(bytes.len())?);
    entry.write_all(bytes)?;
    entry.finish()?;
    Ok(())
}
