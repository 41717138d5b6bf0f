//! One guest: started, listened to, ended.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xdp_lb_tests::signals;

use crate::archive::Kernel;
use crate::image;
use crate::nics::{CPUS, ENDS, End, PAIRS};
use crate::programs::Programs;
use crate::report::{Carried, Report, Step};

/// By which a guest is told [`Want::pairs`].
pub const PAIRS_WANTED: &str = "PAIRS";

const KVM: &str = "kvm";
const EMULATION: &str = "tcg,thread=multi";

const QEMU: &str = "qemu-system-x86_64";
const MEMORY_MIB: u32 = 1024;
/// Of a client's NIC: whatever comes has been segmented and has its checksum, which the guest looks at
/// itself. Else what one guest sends to another is believed as it is.
const STRICT: &str = ",guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";
/// Of the console of a guest that failed.
const CONSOLE_LINES: usize = 60;
/// Between looks at whether somebody has pressed Ctrl-C.
const LOOK: Duration = Duration::from_millis(500);

/// What a guest is to do.
#[derive(Clone, Copy)]
pub struct Want {
    /// The first so many of [`PAIRS`].
    pub pairs: usize,
    pub bound: Duration,
}

/// Starts a guest with that kernel and hears it out. What it does not do in time is an error of
/// the report, not of this function.
pub fn run(directory: &Path, kernel: &Kernel, programs: &Programs, want: Want) -> Result<Report> {
    let scratch = tempfile::tempdir_in(directory)?;
    let (first, console) = (scratch.path().join("initramfs"), scratch.path().join("console"));
    image::write(&first, programs, kernel)?;
    let mut guest = Guest::start(&kernel.image, &first, &console, want)?;
    let report = guest.hear(want)?;
    drop(guest);
    if !report.passed() {
        let said = fs::read(&console).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
        eprintln!("the console of {} ends with\n{}", kernel.release, last.join("\n"));
        report.failures().iter().for_each(|failure| eprintln!("FAILED {failure}"));
    }
    Ok(report)
}

/// A machine, killed when it is dropped; the network between its NICs goes with it.
struct Guest(Child);

impl Guest {
    /// The console goes to a file, what [`Step`]s it takes to the output of qemu.
    fn start(kernel: &Path, first: &Path, console: &Path, want: Want) -> Result<Self> {
        let mut command = Command::new("unshare");
        // A namespace without a name is gone with the last process in it.
        command.args(["--net", "sh", "-ec", &network(), "sh"]);
        command.args([QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-machine", "q35", "-accel", accelerator(), "-cpu", "max"]);
        command.args(["-smp", &CPUS.to_string(), "-m", &MEMORY_MIB.to_string()]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(first);
        // A panic ends qemu. On a busy host a guest measures an emulated TSC wrong, and its clock ran seven
        // times too fast (6.1): the HPET is told its frequency.
        let clock = if accelerator() == KVM { "" } else { "tsc=unstable clocksource=hpet" };
        let words = format!("console=ttyS0 panic=-1 rdinit=/init mitigations=off {clock}");
        // What the kernel does not know becomes the first process' environment.
        command.args(["-append", &format!("{words} {PAIRS_WANTED}={}", want.pairs)]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.args(["-chardev", "stdio,id=steps,signal=off", "-serial", "chardev:steps"]);
        command.args(nics());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: `prctl` may be called between fork and exec, and touches no memory.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(Self(command.spawn().context("unshare does not start")?))
    }

    fn hear(&mut self, want: Want) -> Result<Report> {
        let mut output = self.0.stdout.take().context("the output is read once")?;
        let (began, mut report) = (Instant::now(), Report::of(want.pairs));
        let (mut heard, mut over) = (Vec::new(), false);
        loop {
            signals::check()?;
            let took_s = began.elapsed().as_secs_f64();
            if began.elapsed() > want.bound {
                report.broken = Some(format!("ended after {took_s:.0} s: it hung"));
                return Ok(report);
            }
            let mut waiting = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::try_from(LOOK)?) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                polled => polled?,
            };
            let mut chunk = [0; 4096];
            let length = output.read(&mut chunk)?;
            if length == 0 {
                if !over {
                    report.broken = Some(format!("it ended by itself after {took_s:.0} s"));
                }
                return Ok(report);
            }
            heard.extend_from_slice(&chunk[..length]);
            while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = heard.drain(..=end).collect();
                let step = serde_json::from_slice(&line).with_context(|| {
                    format!("the guest says {}", String::from_utf8_lossy(&line))
                })?;
                eprintln!("  {took_s:5.1} s  {}", told(&step));
                over |= step == Step::Over;
                report.add(step);
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hardware's virtualisation, or emulation with a thread for each CPU. `/dev/kvm` alone says little: that
/// of kvm-pvm, in a virtual machine without nested virtualisation, starts no distribution's kernel.
pub fn accelerator() -> &'static str {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtualises = cpus.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
    if virtualises && Path::new("/dev/kvm").exists() { KVM } else { EMULATION }
}

fn told(step: &Step) -> String {
    let word = |failed| if failed { "FAILED" } else { "works" };
    match step {
        Step::Up => "the kernel is up".to_owned(),
        Step::Frames(frames) => format!("{} frame tables", word(frames.is_err())),
        Step::Traffic(pair, carried) => {
            let name = PAIRS.get(*pair).map_or("?", |pair| pair.name);
            let told = carried.as_ref().map_or_else(String::clone, Carried::to_string);
            format!("{} traffic, {name}: {told}", word(carried.is_err()))
        }
        Step::Over => "over".to_owned(),
    }
}

/// What `sh` does before it becomes qemu: for each pair a bridge, with a tap for each end.
fn network() -> String {
    let mut script = "export PATH=$PATH:/usr/sbin:/sbin\n".to_owned();
    for (number, pair) in PAIRS.iter().enumerate() {
        let bridge = format!("pair{number}");
        let queues = if pair.queues > 1 { "multi_queue" } else { "" };
        script += &format!("ip link add {bridge} up type bridge mcast_snooping 0\n");
        for end in ENDS {
            let tap = tap(number, end as usize);
            // A string takes whatever is written.
            let _ = write!(
                script,
                "ip tuntap add {tap} mode tap vnet_hdr {queues}\n\
                 ip link set {tap} up master {bridge}\n"
            );
        }
    }
    // Neither end shall hear the host itself.
    script + "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6\nexec \"$@\"\n"
}

fn nics() -> Vec<String> {
    let mut words = Vec::new();
    for (number, pair) in PAIRS.iter().enumerate() {
        for end in ENDS {
            let (tap, queues, mac) = (tap(number, end as usize), pair.queues, end.mac(number));
            let netdev = format!("tap,id={tap},ifname={tap},script=no,downscript=no,vhost=off");
            let many = if queues > 1 { format!(",queues={queues}") } else { String::new() };
            // An interrupt for each queue, for the changes of the configuration, and for commands.
            let vectors = 2 * queues + 2;
            let mq = if queues > 1 { format!(",mq=on,vectors={vectors}") } else { String::new() };
            let more = match end {
                End::Client => STRICT,
                End::Balancer => pair.properties,
            };
            let device = format!("virtio-net-pci,netdev={tap},mac={mac},romfile={mq}{more}");
            words.extend(["-netdev".to_owned(), netdev + &many, "-device".to_owned(), device]);
        }
    }
    words
}

fn tap(pair: usize, end: usize) -> String {
    format!("tap{pair}{end}")
}
