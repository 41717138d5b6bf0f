//! Puts the BPF object of `cargo xtask build-ebpf` where `include_bytes_aligned!` finds it.
//!
//! `XDP_LB_BPF_OBJECT`, an absolute path, names another one. Without any object the binary still
//! builds, for editors and lints, with an empty one; it says so when it is to load it.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=XDP_LB_BPF_OBJECT");
    let named = env::var_os("XDP_LB_BPF_OBJECT").map(PathBuf::from);
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let built = package.with_file_name("target").join("bpf/xdp-lb.bpf.o");
    let object = named.as_ref().unwrap_or(&built);
    println!("cargo::rerun-if-changed={}", object.display());

    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("xdp-lb.bpf.o");
    if named.is_none() && !object.exists() {
        println!("cargo::warning=the BPF object is missing: run `cargo xtask build-ebpf`");
        fs::write(embedded, [])?;
    } else {
        let bytes = fs::read(object)
            .map_err(|error| format!("cannot read {}: {error}", object.display()))?;
        fs::write(embedded, bytes)?;
    }
    Ok(())
}
