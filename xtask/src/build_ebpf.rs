//! The XDP program, built into `target/bpf/xdp-lb.bpf.o`, and beside it what captures its frames, and the
//! driver of its bench.

use std::{env, ffi::OsString, fs, os::unix, path::Path};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    compiler::{self, Compiler},
    linker, process,
};

/// Little endian, as every machine this runs on.
const TARGET: &str = "bpfel-unknown-none";

/// What cargo calls them, and the objects they become.
const PROGRAMS: [(&str, &str); 3] = [
    ("xdp-lb-program", "xdp-lb.bpf.o"),
    ("xdp-lb-capture", "capture.bpf.o"),
    ("bench-driver", "bench-driver.bpf.o"),
];

#[derive(Args, Default)]
pub struct Options {
    /// Show every command that cargo runs
    #[arg(long)]
    pub verbose: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let compiler = compiler::find()?;
    let linker = linker::find()?;
    process::step(format!(
        "building the XDP program with rustc {} ({}) and {}",
        compiler.release,
        compiler.rustc.display(),
        linker.display(),
    ));

    let folder = process::workspace().join("target/bpf");
    let llvm = llvm_folder(&compiler, &folder)?;
    let mut cargo = compiler.cargo();
    cargo
        .args(["build", "--package=xdp-lb-ebpf", "--bins", "--release"])
        .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&linker))
        .env("LD_LIBRARY_PATH", llvm);
    if options.verbose {
        cargo.arg("--verbose");
    }
    process::run(&mut cargo)?;

    for (name, object) in PROGRAMS {
        let built = folder.join(TARGET).join("release").join(name);
        let object = folder.join(object);
        let differs = replace(&built, &object)?;
        let told = if differs { "is new" } else { "is as it was" };
        process::step(format!("{} {told}", object.display()));
    }
    Ok(())
}

/// What rustc is told, as `CARGO_ENCODED_RUSTFLAGS` wants it. That variable outranks all others, so
/// flags meant for the host do not get here.
fn flags(linker: &Path) -> String {
    let flags = [
        format!("-Clinker={}", linker.display()),
        // BTF is made from debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Atomics with compare-and-swap, which the flow table claims its slots with: Linux 5.12.
        "-Ctarget-cpu=v3".into(),
        // Headers lie where they lie. Without this LLVM reads them byte by byte.
        "-Ctarget-feature=+allows-misaligned-mem-access".into(),
    ];
    flags.join("\x1f")
}

/// `LD_LIBRARY_PATH` for bpf-linker: it loads the first `libLLVM*` that it meets there, and a
/// machine may have several, so a folder with only the wanted one comes first.
fn llvm_folder(compiler: &Compiler, folder: &Path) -> Result<OsString> {
    let llvm = compiler.llvm()?;
    let only = folder.join(format!("llvm-of-rustc-{}", compiler.release));
    let link = only.join("libLLVM.so");
    if fs::read_link(&link).ok().as_ref() != Some(&llvm) {
        fs::create_dir_all(&only).with_context(|| format!("cannot make {}", only.display()))?;
        // Absent the first time, dangling or another's after an upgrade.
        let _absent = fs::remove_file(&link);
        unix::fs::symlink(&llvm, &link)
            .with_context(|| format!("cannot link {} to {}", link.display(), llvm.display()))?;
    }
    let inherited = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    Ok(env::join_paths([only].into_iter().chain(env::split_paths(&inherited)))?)
}

/// Copies `built` over `object` if their bytes differ, and tells whether they did: cargo rebuilds
/// what embeds the object when its time changes.
fn replace(built: &Path, object: &Path) -> Result<bool> {
    let new = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    let differs = fs::read(object).ok().as_ref() != Some(&new);
    if differs {
        fs::write(object, new).with_context(|| format!("cannot write {}", object.display()))?;
    }
    Ok(differs)
}
