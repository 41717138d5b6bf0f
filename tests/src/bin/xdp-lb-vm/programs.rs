//! What is taken into a guest: the programs of the project and those that they call, with their libraries.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::balancer::beside;

/// Where they are in the guest.
pub const XDP_LB: &str = "/usr/bin/xdp-lb";
pub const FRAMES: &str = "/usr/bin/kernel_frames";
/// The kernel starts this.
const INIT: &str = "/init";

/// The test binary with the frame tables.
const TEST: &str = "kernel_frames";
/// What the programs call.
const TOOLS: [&str; 1] = ["ip"];

/// Files of the guest by their paths there, and where they are here.
pub struct Programs {
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// Holds the copies without symbols.
    _stripped: tempfile::TempDir,
}

/// Builds the frame tables' test, and finds the rest beside this program.
pub fn find() -> Result<Programs> {
    let stripped = tempfile::tempdir()?;
    let ours = [(XDP_LB, beside()?), (FRAMES, build_test()?), (INIT, env::current_exe()?)];
    let mut files = BTreeMap::new();
    for (path, program) in ours {
        let small = stripped.path().join(program.file_name().context("a program's name")?);
        output(Command::new("strip").arg("-o").arg(&small).arg(&program))?;
        files.insert(PathBuf::from(path), small);
    }
    for tool in TOOLS {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        let found = folders.iter().map(|at| Path::new(at).join(tool)).find(|file| file.exists());
        let found = found.with_context(|| format!("{tool} is not installed"))?;
        files.insert(Path::new("/usr/bin").join(tool), found);
    }
    let mut libraries = Vec::new();
    for file in files.values() {
        libraries.extend(self::libraries(&output(Command::new("ldd").arg(file))?));
    }
    files.extend(libraries.into_iter().map(|library| (library.clone(), library)));
    // Where the test looks for it; its path was written down when it was compiled.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    files.insert(manifest.join("Cargo.toml"), manifest.join("Cargo.toml"));
    let object = manifest.with_file_name("target").join("bpf/xdp-lb.bpf.o");
    ensure!(object.exists(), "the BPF object is missing: run `cargo xtask build-ebpf`");
    files.insert(object.clone(), object);
    Ok(Programs { files, _stripped: stripped })
}

/// Runs to its end; what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let line = || format!("{command:?}");
    let line = line();
    let output = command.stdin(Stdio::null()).output().with_context(|| line.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn build_test() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let test = ["test", "--quiet", "--no-run", "--message-format=json", "--test", TEST];
    let mut build = Command::new(cargo);
    // Has been built by the task, with this program: here cargo only says where it is.
    build.args(test).current_dir(env!("CARGO_MANIFEST_DIR"));
    let messages = output(&mut build)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_test = messages.filter(|message| message["target"]["name"] == TEST);
    let built = of_test.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    built.with_context(|| format!("cargo built no {TEST}"))
}

/// From the lines of `ldd`: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f...)`.
fn libraries(lines: &str) -> Vec<PathBuf> {
    let words = lines.lines().flat_map(str::split_whitespace);
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// The bytes of a file that must be there.
pub fn bytes(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_a_program() {
        let lines = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let want = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(lines), want.map(PathBuf::from));
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
