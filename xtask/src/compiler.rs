//! A compiler that can build `core` for BPF.
//!
//! It needs the sources of its own standard library, and the LLVM that [`crate::linker`] was made
//! for. Neither BPF's `core` nor `-Z build-std` is stable: `RUSTC_BOOTSTRAP=1` opens them in any rustc.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{linker, packages, process};

/// rustc of the distribution, where it is one that fits.
const DISTRIBUTION: &str = "/usr/bin/rustc";
/// The pair of Debian 12, kept new for its browsers.
const DISTRIBUTION_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// A rustc, and what matters of it here.
#[derive(Debug)]
pub struct Compiler {
    pub rustc: PathBuf,
    /// `1.96.0`, `1.97.0-nightly`.
    pub release: String,
    /// Its name in rustup; none for the distribution's.
    toolchain: Option<String>,
    llvm_major: u32,
    library: PathBuf,
}

/// One that is ready; else one made ready by rustup; else Debian's.
pub fn find() -> Result<Compiler> {
    let mut fitting: Vec<Compiler> = rustup_toolchains()
        .into_iter()
        .filter_map(|toolchain| of_rustup(toolchain).ok())
        .chain(of_distribution().ok())
        .filter(Compiler::fits)
        .collect();
    if let Some(ready) = fitting.iter().position(Compiler::has_library) {
        return Ok(fitting.swap_remove(ready));
    }
    let fetched = fitting.into_iter().find(|compiler| compiler.add_library().is_ok());
    fetched.map_or_else(install, Ok).with_context(|| {
        format!(
            "build-ebpf needs a rustc with LLVM {} and its rust-src: run `rustup toolchain install \
             nightly-2026-05-20 --component rust-src`, or take Debian 12's",
            linker::LLVM_MAJOR,
        )
    })
}

impl Compiler {
    /// The cargo to go with it. Debian's may be years older than its rustc, so there it is ours.
    pub fn cargo(&self) -> Command {
        let mut cargo = match self.toolchain {
            Some(_) => Command::new(self.rustc.with_file_name("cargo")),
            None => process::cargo(),
        };
        cargo
            .current_dir(process::workspace())
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTUP_TOOLCHAIN");
        cargo
    }

    /// The very libLLVM that this rustc loads.
    pub fn llvm(&self) -> Result<PathBuf> {
        let libraries = process::output(Command::new("ldd").arg(&self.rustc))?;
        let llvm = llvm_of(&libraries);
        llvm.with_context(|| format!("{} loads no libLLVM", self.rustc.display()))
    }

    fn fits(&self) -> bool {
        self.llvm_major == linker::LLVM_MAJOR
    }

    fn has_library(&self) -> bool {
        self.library.join("core/src/lib.rs").is_file()
    }

    fn check_library(&self) -> Result<()> {
        ensure!(self.has_library(), "the sources are not in {}", self.library.display());
        Ok(())
    }

    fn add_library(&self) -> Result<()> {
        let toolchain = self.toolchain.as_ref().context("rustup does not know it")?;
        process::step(format!("asking rustup for rust-src of {toolchain}"));
        let add = ["component", "add", "rust-src", "--toolchain"];
        process::output(Command::new("rustup").args(add).arg(toolchain))?;
        self.check_library()
    }
}

/// Nightlies first: there nothing has to be opened.
fn rustup_toolchains() -> Vec<String> {
    let list = process::output(Command::new("rustup").args(["toolchain", "list", "--quiet"]));
    let list = list.unwrap_or_default();
    let mut toolchains: Vec<String> = list.lines().map(str::to_owned).collect();
    toolchains.sort_by_key(|name| !name.starts_with("nightly"));
    toolchains
}

fn of_rustup(toolchain: String) -> Result<Compiler> {
    let which = ["which", "rustc", "--toolchain", &toolchain];
    let rustc = process::output(Command::new("rustup").args(which))?;
    inspect(rustc.into(), Some(toolchain))
}

fn of_distribution() -> Result<Compiler> {
    inspect(DISTRIBUTION.into(), None)
}

fn install() -> Result<Compiler> {
    packages::install(&DISTRIBUTION_PACKAGES)?;
    let compiler = of_distribution()?;
    ensure!(
        compiler.fits(),
        "{DISTRIBUTION} is {} with LLVM {}",
        compiler.release,
        compiler.llvm_major
    );
    compiler.check_library()?;
    Ok(compiler)
}

fn inspect(rustc: PathBuf, toolchain: Option<String>) -> Result<Compiler> {
    let version = process::output(Command::new(&rustc).arg("-vV"))?;
    let sysroot = process::output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let unread = || format!("{} -vV printed\n{version}", rustc.display());
    Ok(Compiler {
        release: field(&version, "release").with_context(unread)?.to_owned(),
        llvm_major: llvm_major_of(&version).with_context(unread)?,
        library: Path::new(&sysroot).join("lib/rustlib/src/rust/library"),
        rustc,
        toolchain,
    })
}

/// From a line `name: value` of `rustc -vV`.
fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = version.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn llvm_major_of(version: &str) -> Option<u32> {
    field(version, "LLVM version")?.split('.').next()?.parse().ok()
}

/// From a line `libLLVM.so.22.1 => /usr/lib/libLLVM.so.22.1 (0x00007f1df7400000)` of ldd.
fn llvm_of(libraries: &str) -> Option<PathBuf> {
    libraries.lines().find_map(|line| {
        let (name, found) = line.trim().split_once(" => ")?;
        let (path, _address) = found.rsplit_once(" (")?;
        name.starts_with("libLLVM").then(|| path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_rustc_says_of_itself() {
        let debian = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                      host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8";
        let rows = [
            ("debian", debian, Some("1.96.0"), Some(22)),
            ("no LLVM", "release: 1.96.0", Some("1.96.0"), None),
            ("not a number", "LLVM version: unknown", None, None),
        ];
        for (name, version, release, llvm_major) in rows {
            assert_eq!(field(version, "release"), release, "{name}");
            assert_eq!(llvm_major_of(version), llvm_major, "{name}");
        }
    }

    #[test]
    fn reads_the_libraries_of_rustc() {
        let rows = [
            (
                "debian",
                "\tlibc.so.6 => /lib/libc.so.6 (0x00007f1e0041e000)\n\
                 \tlibLLVM.so.22.1 => /lib/libLLVM.so.22.1 (0x00007f1df7400000)",
                Some("/lib/libLLVM.so.22.1"),
            ),
            ("not found", "\tlibLLVM.so.22.1 => not found", None),
            ("built in", "\tlinux-vdso.so.1 (0x00007f1e06149000)", None),
        ];
        for (name, libraries, want) in rows {
            assert_eq!(llvm_of(libraries), want.map(PathBuf::from), "{name}");
        }
    }
}
