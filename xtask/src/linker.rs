//! bpf-linker: made here once, when the machine does not have the wanted one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::process;

/// The last that takes LLVM from rustc at run time. Later ones want LLVM's own packages.
const VERSION: &str = "0.10.3";
/// The LLVM that this version calls, and so the one that rustc must have.
pub const LLVM_MAJOR: u32 = 22;

/// A bpf-linker of [`VERSION`]: from the PATH, from `target/tools`, or installed there.
pub fn find() -> Result<PathBuf> {
    let tools = process::workspace().join("target/tools");
    let own = tools.join("bin/bpf-linker");
    let present = process::find("bpf-linker").into_iter().chain([own.clone()]);
    if let Some(linker) = present.into_iter().find(|linker| is_wanted(linker)) {
        return Ok(linker);
    }

    process::step(format!(
        "installing bpf-linker {VERSION} into target/tools (once; two minutes on two cores)"
    ));
    let install = ["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--root"];
    process::run(process::cargo().args(install).arg(&tools))
        .with_context(|| format!("build-ebpf needs bpf-linker {VERSION}"))?;
    ensure!(is_wanted(&own), "{} is not bpf-linker {VERSION}", own.display());
    Ok(own)
}

fn is_wanted(linker: &Path) -> bool {
    let version = process::output(Command::new(linker).arg("--version"));
    version.is_ok_and(|version| version == format!("bpf-linker {VERSION}"))
}
