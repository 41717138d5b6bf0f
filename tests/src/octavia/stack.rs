//! A real Octavia on this machine: its services and their database in a container, in which each amphora
//! is a container again. `tests/octavia/stack/README.md` says what is real and what is not.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, process};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Uid;

use crate::container::{self, LOOK, child_of, inside, output};
use crate::lab::{self, Netns};
use crate::pki::{Authority, Kind};
use crate::{octavia, signals, unit};

/// Of the state directory of a stack that is of the process whose number follows.
const PREFIX: &str = "xdp-lb-octavia-";
/// For all of the control plane to be there; a minute of two busy processors was seen.
const UP_MAX: Duration = Duration::from_secs(180);

/// What the stock amphora has of Octavia's programs.
const STOCK_PROGRAMS: [&str; 5] = [
    "amphora-agent",
    "amphora-health-checker",
    "amphora-interface",
    "haproxy-vrrp-check",
    "prometheus-proxy",
];

pub struct Options<'a> {
    pub release: &'a str,
    /// The `xdp-lb` of the amphorae that are not stock ones.
    pub program: &'a Path,
    /// Lines of `octavia.conf` that take the place of those in the stack's own.
    pub settings: &'a str,
}

/// The containers; one that was made by [`Stack::up`] goes when it is dropped.
pub struct Stack {
    /// State and logs, as long as it stands.
    pub directory: PathBuf,
    /// The namespace of the bridges, and of Octavia.
    pub netns: Netns,
    /// Of the container's init.
    pid: i32,
    cgroup: PathBuf,
    stands: bool,
}

impl Stack {
    /// Starts one that ends with this value. What a process leaves that was killed, the next one removes.
    pub fn up(options: &Options<'_>) -> Result<Self> {
        sweep()?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("{PREFIX}{}-{number}", process::id()));
        let mut stack = Self::start(&directory, options)?;
        stack.stands = false;
        Ok(stack)
    }

    /// Starts one that stands until [`Stack::down`]; its state is in `directory`.
    pub fn start(directory: &Path, options: &Options<'_>) -> Result<Self> {
        ensure!(Uid::effective().is_root(), "containers need root");
        ensure!(!directory.exists(), "{} is there already", directory.display());
        let cgroup = container::cgroup(directory)?;
        // Goes again, with all that was begun, when something here fails.
        let begun = Begun { directory, cgroup: &cgroup };
        write_state(directory, options)?;
        let mut boot = boot(directory, &cgroup)?;
        let (pid, netns) = wait(directory, &mut boot)?;
        let stack = Self {
            directory: directory.to_owned(),
            netns,
            pid,
            cgroup: cgroup.clone(),
            stands: true,
        };
        let pass = stack.root().join("sys/fs/bpf/pass");
        lab::pin_pass(&pass).context("the program for far ends cannot be pinned")?;
        std::mem::forget(begun);
        Ok(stack)
    }

    /// The one that stands in `directory`, if it does.
    pub fn find(directory: &Path) -> Result<Option<Self>> {
        let Ok(boot) = fs::read_to_string(directory.join("pid")) else { return Ok(None) };
        let Some(pid) = child_of(boot.trim()) else { return Ok(None) };
        let netns = Netns::of(pid)?;
        let cgroup = container::cgroup(directory)?;
        Ok(Some(Self { directory: directory.to_owned(), netns, pid, cgroup, stands: true }))
    }

    /// Ends the one of `directory`, whatever is left of it.
    pub fn down(directory: &Path) -> Result<()> {
        remove(directory, &container::cgroup(directory)?)
    }

    /// The container's file system, as seen from outside.
    pub fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.pid).into()
    }

    /// A command inside, next to Octavia.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        inside(self.pid, program, arguments)
    }

    /// Of the amphora of this name; there is none once it has been killed.
    pub fn amphora_cgroup(&self, id: &str) -> PathBuf {
        self.cgroup.join(format!("system.slice/amphora-{id}.service"))
    }

    /// The file system of an amphora, as seen from outside.
    pub fn amphora_root(&self, id: &str) -> Result<PathBuf> {
        Ok(format!("/proc/{}/root", self.amphora_pid(id)?).into())
    }

    /// All processes, those of amphorae as well.
    pub fn pids(&self) -> Result<Vec<i32>> {
        fn of(cgroup: &Path, found: &mut Vec<i32>) -> Result<()> {
            let procs = fs::read_to_string(cgroup.join("cgroup.procs"))?;
            found.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()));
            let parts = fs::read_dir(cgroup)?.flatten().map(|entry| entry.path());
            // One that goes meanwhile has none.
            parts.filter(|part| part.is_dir()).for_each(|part| drop(of(&part, found)));
            Ok(())
        }
        let mut found = Vec::new();
        of(&self.cgroup, &mut found)?;
        Ok(found)
    }

    /// The init of the only amphora whose id begins so.
    pub fn amphora_pid(&self, prefix: &str) -> Result<i32> {
        let found = self.amphora_pids(prefix)?;
        ensure!(
            found.len() == 1,
            "{} amphorae have an id that begins with {prefix:?}",
            found.len()
        );
        Ok(found[0])
    }

    fn amphora_pids(&self, prefix: &str) -> Result<Vec<i32>> {
        let begins = format!("amphora-{prefix}");
        let slice = self.cgroup.join("system.slice");
        let entries = fs::read_dir(&slice).with_context(|| slice.display().to_string())?.flatten();
        let of = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&begins);
        // One that ends right now has no init any more.
        let init = |entry: fs::DirEntry| {
            let pids = fs::read_to_string(entry.path().join("init.scope/cgroup.procs")).ok()?;
            pids.lines().next()?.parse().ok()
        };
        Ok(entries.filter(of).filter_map(init).collect())
    }

    /// The last lines in which services and agents complain, for whoever wonders why something is in ERROR.
    pub fn complaints(&self) -> String {
        const LAST: usize = 6;
        let mut found = Vec::new();
        let mut last = |text: &str, complains: fn(&&str) -> bool| {
            let lines: Vec<_> = text.lines().filter(complains).map(str::to_owned).collect();
            found.extend_from_slice(&lines[lines.len().saturating_sub(LAST)..]);
        };
        for service in ["worker", "health-manager", "housekeeping"] {
            let log = self.directory.join(format!("log/octavia-{service}.log"));
            last(&fs::read_to_string(log).unwrap_or_default(), |line| line.contains(" ERROR "));
        }
        for pid in self.amphora_pids("").unwrap_or_default() {
            let journal = ["--no-pager", "--unit=amphora-agent", "--output=cat"];
            let journal = output(&mut inside(pid, "journalctl", &journal));
            last(&journal.unwrap_or_default(), |line| {
                ["WARN", "ERROR"].iter().any(|word| line.contains(word))
            });
        }
        found.join("\n")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.stands {
            return;
        }
        if let Err(error) = remove(&self.directory, &self.cgroup) {
            eprintln!("{} is not all gone: {error:#}", self.directory.display());
        }
    }
}

/// What has been started and is not up yet.
struct Begun<'a> {
    directory: &'a Path,
    cgroup: &'a Path,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // The reason for which it did not come up is the one to tell.
        let _ = remove(self.directory, self.cgroup);
    }
}

/// Removes those of processes that are no more.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let own = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        let Some((pid, _)) = own else { continue };
        if !Path::new("/proc").join(pid).exists() {
            Stack::down(&entry.path())?;
        }
    }
    Ok(())
}

fn write_state(directory: &Path, options: &Options<'_>) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let parts = workspace.join("tests/octavia/stack");
    let environment = octavia::environment(options.release).canonicalize()?;
    let etc = directory.join("etc/octavia");
    fs::create_dir_all(&etc)?;
    symlink(&parts, etc.join("stack"))?;
    symlink(&environment, etc.join("venv"))?;
    write_images(&etc.join("images"), &parts, &environment, options.program)?;
    write_certificates(&etc.join("certs"))?;
    fs::write(etc.join("extra.conf"), options.settings)?;
    let (log, var) = (directory.join("log"), directory.join("var"));
    fs::create_dir_all(&log)?;
    fs::create_dir_all(var.join("log"))?;
    fs::create_dir_all(var.join("lib/octavia/certificates"))?;
    symlink(log, var.join("log/octavia-stack"))?;
    Ok(())
}

/// What amphorae get over the machine's file system: `common`, and an image for each agent.
fn write_images(images: &Path, parts: &Path, environment: &Path, program: &Path) -> Result<()> {
    output(Command::new("cp").arg("-a").arg(parts.join("images")).arg(images))?;
    let stock = images.join("stock/usr/local/bin");
    fs::create_dir_all(&stock)?;
    for name in STOCK_PROGRAMS {
        symlink(environment.join("bin").join(name), stock.join(name))?;
    }
    let units = images.join("xdp-lb/usr/lib/systemd/system");
    fs::create_dir_all(&units)?;
    for name in ["amphora-agent.service", "amphora-netns.service", "var-lib-octavia-certs.mount"] {
        fs::copy(unit::folder().join(name), units.join(name))?;
    }
    let bin = images.join("xdp-lb/usr/bin");
    fs::create_dir_all(&bin)?;
    fs::copy(program, bin.join("xdp-lb")).with_context(|| program.display().to_string())?;
    Ok(())
}

/// Two authorities, as Octavia recommends: of the amphorae's certificates, which it issues itself, and of
/// its own.
fn write_certificates(certs: &Path) -> Result<()> {
    fs::create_dir(certs)?;
    let (server, client) = (Authority::new("server CA")?, Authority::new("client CA")?);
    fs::write(certs.join("server_ca.pem"), server.pem()?)?;
    fs::write(certs.join("server_ca.key"), server.key_pem()?)?;
    fs::write(certs.join("client_ca.pem"), client.pem()?)?;
    fs::write(certs.join("client.pem"), client.issue("controller", Kind::Octavia)?.pem()?)?;
    Ok(())
}

fn boot(directory: &Path, cgroup: &Path) -> Result<Child> {
    if !cgroup.exists() {
        fs::create_dir(cgroup).with_context(|| cgroup.display().to_string())?;
    }
    let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("octavia/stack").canonicalize()?;
    let log = File::create(directory.join("log/nsboot.log"))?;
    // The shell goes into the group before it becomes the container's.
    let mut boot = Command::new("sh");
    boot.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]).arg(cgroup.join("cgroup.procs"));
    boot.args(["unshare", "--net"]).arg(parts.join("nsboot")).arg("octavia");
    boot.arg(format!("/etc={}/etc:{}/etc", parts.display(), directory.display()));
    boot.arg(format!("/var={}/var", directory.display()));
    boot.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A Ctrl-C is for who started it, not for a stack that stands.
    boot.process_group(0);
    let boot = boot.spawn().context("sh does not start")?;
    fs::write(directory.join("pid"), boot.id().to_string())?;
    Ok(boot)
}

/// Until all services are there: the container's init, and its network.
fn wait(directory: &Path, boot: &mut Child) -> Result<(i32, Netns)> {
    let began = Instant::now();
    let log = |name: &str| fs::read_to_string(directory.join("log").join(name)).unwrap_or_default();
    while began.elapsed() < UP_MAX {
        signals::check()?;
        if let Some(status) = boot.try_wait()? {
            bail!("the container of Octavia ended, {status}:\n{}", log("nsboot.log"));
        }
        if let Some(pid) = child_of(&boot.id().to_string()) {
            // It does not succeed where systemd is not there yet, or is in trouble.
            let state = inside(pid, "systemctl", &["is-system-running", "--wait"]).output()?;
            match String::from_utf8_lossy(&state.stdout).trim() {
                "running" => return Ok((pid, Netns::of(pid)?)),
                "degraded" => bail!(
                    "a service of Octavia did not start:\n{}{}{}",
                    log("networks.log"),
                    log("database.log"),
                    log("octavia.log")
                ),
                _ => {}
            }
        }
        thread::sleep(LOOK);
    }
    bail!("Octavia is not up after {} s:\n{}", UP_MAX.as_secs(), log("octavia.log"))
}

fn remove(directory: &Path, cgroup: &Path) -> Result<()> {
    container::remove_cgroup(cgroup)?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| directory.display().to_string())
        }
        _ => Ok(()),
    }
}
