//! `cargo xtask lab`: a lab that stands until it is taken down.
//!
//! The servers are threads and the namespaces belong to a process, so one stays in the background;
//! its directory says which, and is there as long as the lab.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use agent_api::Name;
use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xdp_lb_tests::balancer::beside;
use xdp_lb_tests::lab::{Family, Lab};
use xdp_lb_tests::show::bold;
use xdp_lb_tests::signals::{catch_signals, interrupted};

use crate::document::{HTTP, UDP};
use crate::stand::{Stand, forget, tail};

const NAME: &str = "lab";
const DIRECTORY: &str = "/run/xdp-lb-lab";
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// The process that stays writes its id there first, and the prefix of the namespaces' names last.
fn pid_file() -> PathBuf {
    Path::new(DIRECTORY).join("pid")
}

fn prefix_file() -> PathBuf {
    Path::new(DIRECTORY).join("prefix")
}

fn log_file() -> PathBuf {
    Path::new(DIRECTORY).join("lab.log")
}

pub fn up() -> Result<()> {
    if let Some(pid) = running() {
        bail!("the lab stands already (process {pid}): `cargo xtask lab down` removes it");
    }
    fs::create_dir_all(DIRECTORY).context(DIRECTORY)?;
    let log = File::create(log_file())?;
    let mut stay = Command::new(env::current_exe()?);
    stay.arg("stay").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Of its own, so that neither Ctrl-C nor the end of this terminal reaches it.
    let mut stay = stay.process_group(0).spawn()?;
    let began = Instant::now();
    while !prefix_file().exists() {
        // A failure takes the directory along; what it said is kept here.
        let said = tail(&log_file());
        if let Some(status) = stay.try_wait()? {
            let _gone_already = fs::remove_dir_all(DIRECTORY);
            bail!("the lab did not start ({status}): {said}");
        }
        ensure!(began.elapsed() < PATIENCE, "the lab does not get ready: {said}");
        thread::sleep(POLL);
    }
    print!("{}", fs::read_to_string(Path::new(DIRECTORY).join("what-to-try"))?);
    Ok(())
}

/// The process behind the lab: builds it, waits for a signal, and takes it down.
pub fn stay() -> Result<()> {
    catch_signals()?;
    fs::write(pid_file(), process::id().to_string())?;
    let stand = Stand::up(NAME, DIRECTORY.into())?;
    fs::write(stand.directory.join("what-to-try"), what_to_try(&stand))?;
    fs::write(prefix_file(), stand.lab.prefix())?;
    while !interrupted() {
        thread::sleep(POLL);
    }
    Ok(())
}

fn what_to_try(stand: &Stand) -> String {
    let lab = &stand.lab;
    let (v4, v6) = (lab.vip(Family::V4, 0).ip(), lab.vip(Family::V6, 0).ip());
    let rows = [
        (format!("cargo xtask lab shell client curl -s {v4}"), "a request"),
        (format!("cargo xtask lab shell client curl -s http://[{v6}]/"), "over IPv6"),
        ("cargo xtask lab shell".to_owned(), "a shell on the client; xdp-lb is in its PATH"),
        ("cargo xtask lab shell amphora".to_owned(), "on the amphora, or on router, m1, m2, m3"),
        ("cargo xtask lab shell amphora xdp-lb status --name lab".to_owned(), "is it well"),
        ("cargo xtask lab shell amphora xdp-lb flows --name lab".to_owned(), "the connections"),
        (format!("$EDITOR {}", stand.file().display()), "saved is in force"),
        ("ls /sys/fs/bpf/xdp-lb/lab/".to_owned(), "the maps, for bpftool"),
        ("cargo xtask lab down".to_owned(), "remove it all"),
    ];
    let mut text = format!("\n{}\n", lab.describe());
    text += &format!("HTTP on port {HTTP} and UDP echo on port {UDP} of {v4} and {v6}.\n\n");
    for (command, what) in rows {
        text += &format!("  {command:<64} {what}\n");
    }
    text
}

/// Takes the place of this process.
pub fn shell(host: &str, command: &[OsString]) -> Result<()> {
    ensure!(running().is_some(), "there is no lab: `cargo xtask lab up` makes one");
    let prefix = fs::read_to_string(prefix_file()).context("the lab is not ready")?;
    let netns = Path::new("/run/netns").join(format!("{prefix}{host}"));
    let netns = File::open(&netns).with_context(|| format!("there is no host {host}"))?;
    // Only the network: `ip netns exec` would hide /sys/fs/bpf.
    setns(netns, CloneFlags::CLONE_NEWNET)?;

    let shell = env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let (program_name, arguments) = match command {
        [] => (&shell, &[][..]),
        [program, arguments @ ..] => (program, arguments),
    };
    if command.is_empty() {
        println!("on {}; `exit` leaves", bold(host));
    }
    let built = beside()?.parent().map(Path::to_owned).unwrap_or_default();
    let inherited = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin".into(), "/sbin".into()];
    let path =
        env::join_paths([built].into_iter().chain(env::split_paths(&inherited)).chain(sbin))?;
    let error = Command::new(program_name).args(arguments).env("PATH", path).exec();
    Err(error).with_context(|| program_name.display().to_string())
}

pub fn down() -> Result<()> {
    if let Some(pid) = running() {
        kill(pid, Signal::SIGTERM)?;
        let began = Instant::now();
        while stays(pid) {
            ensure!(began.elapsed() < PATIENCE, "process {pid} does not end");
            thread::sleep(POLL);
        }
    }
    // Of one that was killed.
    Lab::sweep()?;
    forget(&Name::try_from(NAME.to_owned())?)?;
    let _gone_already = fs::remove_dir_all(DIRECTORY);
    Ok(())
}

/// The process that stays, if it does.
fn running() -> Option<Pid> {
    let pid = Pid::from_raw(fs::read_to_string(pid_file()).ok()?.parse().ok()?);
    stays(pid).then_some(pid)
}

/// Whether the process is one that stays: its id may be another's by now.
fn stays(pid: Pid) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).nth(1) == Some(b"stay")
}
