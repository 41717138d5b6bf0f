//! Puts the BPF objects of `cargo xtask build-ebpf` where `include_bytes_aligned!` finds them.
//!
//! `XDP_LB_BPF_OBJECT`, an absolute path, names another program; that of a capture is looked for beside
//! it. Without any object the binary still builds, for editors and lints, with empty ones; it says so when
//! it is to load them.

use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

const PROGRAM: &str = "xdp-lb.bpf.o";
const CAPTURE: &str = "capture.bpf.o";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=XDP_LB_BPF_OBJECT");
    let named = env::var_os("XDP_LB_BPF_OBJECT").map(PathBuf::from);
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let built = package.with_file_name("target").join("bpf").join(PROGRAM);
    let program = named.as_ref().unwrap_or(&built);
    embed(program, PROGRAM, named.is_some())?;
    embed(&program.with_file_name(CAPTURE), CAPTURE, false)
}

fn embed(object: &Path, name: &str, must: bool) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join(name);
    if !must && !object.exists() {
        println!("cargo::warning={name} is missing: run `cargo xtask build-ebpf`");
        fs::write(embedded, [])?;
    } else {
        let bytes = fs::read(object)
            .map_err(|error| format!("cannot read {}: {error}", object.display()))?;
        fs::write(embedded, bytes)?;
    }
    Ok(())
}
