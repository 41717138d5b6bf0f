//! Containers with a real systemd: a control group of their own, by which they are found and killed, and
//! what is done inside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, Result, ensure};

/// For a killed container's processes to be gone.
const DOWN_MAX: Duration = Duration::from_secs(20);
/// Between two looks at what tells nobody when it changes.
pub const LOOK: Duration = Duration::from_millis(50);

/// Where the processes are of the container whose state is in `directory`, and nobody else's.
pub fn cgroup(directory: &Path) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    });
    let root =
        root.context("there is no cgroup v2 hierarchy: mount -t cgroup2 cgroup2 DIRECTORY")?;
    Ok(root.join(directory.display().to_string().trim_start_matches('/').replace('/', "-")))
}

/// Kills what is in a control group, and removes it; there may be none.
pub fn remove_cgroup(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    fs::write(cgroup.join("cgroup.kill"), "1")?;
    let began = Instant::now();
    while let Err(error) = remove_emptied(cgroup) {
        ensure!(began.elapsed() < DOWN_MAX, "{} cannot be removed: {error}", cgroup.display());
        thread::sleep(LOOK);
    }
    Ok(())
}

/// A command in all the namespaces of a process.
pub fn inside(pid: i32, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--target={pid}"));
    command.args([
        "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--wdns=/", "--", program,
    ]);
    command.args(arguments);
    command
}

/// What a command prints that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("it does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The only child of a process that has one.
pub fn child_of(pid: &str) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.trim().parse().ok()
}

/// Innermost first: only what is empty can go.
fn remove_emptied(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_emptied(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
