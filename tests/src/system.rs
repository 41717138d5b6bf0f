//! A Debian in a folder of its own: made by debootstrap, changed from inside, booted as a container.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::container::{self, LOOK, child_of, inside, output};
use crate::lab::Netns;

/// For systemd to have started all that is enabled.
const UP_MAX: Duration = Duration::from_secs(60);

/// In a namespace of its own, so that what is mounted goes with the command: `$0` is the root.
const CHROOT: &str = "mount -t proc proc \"$0/proc\" && mount -t sysfs -o ro sysfs \"$0/sys\" && \
                      exec chroot \"$0\" \"$@\"";

/// Makes a folder, `$0`, the root of a mount namespace, and boots what is in it.
const BOOT: &str = "mount --bind \"$0\" \"$0\" && cd \"$0\" && pivot_root . mnt && \
                    exec /nsboot \"$1\" /=/seed";

/// Where `nsboot` takes back what it removes for those who boot their own machine's files.
const SEED: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];

pub struct System {
    folder: TempDir,
}

impl System {
    /// The release of this machine, with no more than its package manager, systemd and `also`.
    pub fn debian(also: &[&str]) -> Result<Self> {
        let system = Self { folder: TempDir::with_prefix("xdp-lb-system-")? };
        let release = fs::read_to_string("/etc/os-release")?;
        let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let codename = codename.context("this system's release has no name")?;
        let packages = [&["systemd-sysv", "iproute2"], also].concat().join(",");
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", "--include", &packages, codename]);
        output(debootstrap.arg(system.root()))?;
        // Nothing here has to survive a crash.
        fs::write(system.path("etc/dpkg/dpkg.cfg.d/unsafe-io"), "force-unsafe-io\n")?;
        Ok(system)
    }

    /// Another one that is the same.
    pub fn try_clone(&self) -> Result<Self> {
        let copy = Self { folder: TempDir::with_prefix("xdp-lb-system-")? };
        output(Command::new("cp").args(["-a", "--reflink=auto"]).args([self.root(), copy.root()]))?;
        Ok(copy)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Of a file inside, as seen from here.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.root().join(inside.as_ref().strip_prefix("/").unwrap_or(inside.as_ref()))
    }

    /// Copies a file in.
    pub fn take(&self, file: &Path, inside: &str) -> Result<()> {
        let to = self.path(inside);
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::copy(file, &to).with_context(|| format!("{} to {inside}", file.display()))?;
        Ok(())
    }

    /// A command inside, in the network of the thread that starts it.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CHROOT]);
        command.arg(self.root()).arg(program).args(arguments);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        // What is not running cannot be started: `systemctl` takes it so.
        command.env("SYSTEMD_OFFLINE", "1");
        command
    }

    /// Runs a command inside that must succeed; what it prints.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(program, arguments))
    }

    /// Boots it in a network; what it writes from now on is lost.
    ///
    /// Fails where a unit does.
    pub fn boot(&self, name: &str, netns: &Netns) -> Result<Container> {
        let nsboot = Path::new(env!("CARGO_MANIFEST_DIR")).join("octavia/stack/nsboot");
        self.take(&nsboot, "/nsboot")?;
        for folder in SEED {
            let copy = self.path("/seed").join(folder);
            fs::create_dir_all(copy.parent().context("a folder is in a folder")?)?;
            output(Command::new("cp").arg("-a").args([self.path(folder), copy]))?;
        }
        let dev = self.path("/dev/net");
        fs::create_dir_all(&dev)?;
        let tun = dev.join("tun");
        if !tun.exists() {
            output(Command::new("mknod").arg(tun).args(["c", "10", "200"]))?;
        }

        let state = self.folder.path().join(name);
        fs::create_dir(&state)?;
        let cgroup = container::cgroup(&state)?;
        fs::create_dir(&cgroup).with_context(|| cgroup.display().to_string())?;
        let log = state.join("log");
        let file = File::create(&log)?;
        // The shell goes into the group before it becomes the container's.
        let mut boot = Command::new("sh");
        boot.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]).arg(cgroup.join("cgroup.procs"));
        boot.args(["unshare", "--mount", "sh", "-c", BOOT]).arg(self.root()).arg(name);
        boot.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let boot = netns.enter(|| boot.spawn()).context("sh does not start")?;
        let mut container = Container { boot, cgroup, pid: 0 };
        container.wait(&log)?;
        Ok(container)
    }
}

/// One that runs, until it is dropped.
pub struct Container {
    boot: Child,
    cgroup: PathBuf,
    /// Of its init.
    pid: i32,
}

impl Container {
    /// Runs a command inside that must succeed; what it prints.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output(&mut inside(self.pid, program, arguments))
    }

    fn wait(&mut self, log: &Path) -> Result<()> {
        let said = || fs::read_to_string(log).unwrap_or_default();
        let began = Instant::now();
        while began.elapsed() < UP_MAX {
            if let Some(status) = self.boot.try_wait()? {
                bail!("the container ended, {status}:\n{}", said());
            }
            if let Some(pid) = child_of(&self.boot.id().to_string()) {
                self.pid = pid;
                let state = inside(pid, "systemctl", &["is-system-running", "--wait"]).output()?;
                match String::from_utf8_lossy(&state.stdout).trim() {
                    "running" => return Ok(()),
                    "degraded" => {
                        let failed = self.run("systemctl", &["--failed", "--plain", "--no-legend"]);
                        let journal = self.run("journalctl", &["--priority=warning", "--no-pager"]);
                        bail!("units failed:\n{}\n{}", failed?, journal?)
                    }
                    // Not there yet.
                    _ => {}
                }
            }
            thread::sleep(LOOK);
        }
        ensure!(self.pid != 0, "there is no init after {} s:\n{}", UP_MAX.as_secs(), said());
        let jobs = self.run("systemctl", &["list-jobs"])?;
        bail!("it is not up after {} s:\n{jobs}{}", UP_MAX.as_secs(), said())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = container::remove_cgroup(&self.cgroup) {
            eprintln!("{} is not all gone: {error:#}", self.cgroup.display());
        }
        // Its processes are gone with the group.
        let _ = self.boot.wait();
    }
}
