//! Other programs: found, run, and named in full when they fail.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Tells the person what happens next, in one line.
pub fn step(line: impl AsRef<str>) {
    eprintln!("xtask: {}", line.as_ref());
}

/// Runs to the end, its output shown as it comes.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    ensure!(status.success(), "`{}` failed: {status}", line(command));
    Ok(())
}

/// Runs to the end and returns what was printed, trimmed; what it complained of goes into the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", line(command)))?;
    ensure!(
        output.status.success(),
        "`{}` failed: {}\n{}",
        line(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim(),
    );
    let printed = String::from_utf8(output.stdout);
    let printed = printed.with_context(|| format!("`{}` did not print UTF-8", line(command)))?;
    Ok(printed.trim().to_owned())
}

/// The cargo that runs this task, in the workspace.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// The folder of the workspace's `Cargo.toml`.
pub fn workspace() -> PathBuf {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let xtask = xtask.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    xtask.parent().map(Path::to_owned).unwrap_or(xtask)
}

/// Where `name` can be executed from. Administrators' folders count, in the PATH or not.
pub fn find(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name.as_ref()))
        .find(|file| is_executable(file))
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_command() {
        let shell = |script: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]);
            shell
        };
        let rows: [(&str, Command, Result<&str, &str>); 3] = [
            ("printed", shell("echo ' two words '"), Ok("two words")),
            (
                "failed",
                shell("echo why >&2; exit 3"),
                Err("`sh -c echo why >&2; exit 3` failed: exit status: 3\nwhy"),
            ),
            ("absent", Command::new("no-such-command"), Err("cannot start `no-such-command`")),
        ];
        for (name, mut command, want) in rows {
            let got = output(&mut command).map_err(|error| error.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{name}");
        }
    }
}
