//! The first process of a guest: it makes the machine a place to work in, takes the steps, says what came
//! of them, and ends the machine.

use std::any::Any;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::{env, panic};

use anyhow::{Context, Result, anyhow, ensure};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use crate::image::MODULES;
use crate::nics::PAIRS;
use crate::programs::{FRAMES, XDP_LB};
use crate::qemu::PAIRS_WANTED;
use crate::report::Step;
use crate::traffic;

/// The second serial port: the first is the console.
const STEPS: &str = "/dev/ttyS1";

/// Of the output of a step that failed: enough for a row or a verifier's last words.
const SAID_LINES: usize = 30;

const MOUNTS: [(&str, &str); 5] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
];

/// Does not return: a first process that ends is a kernel panic, which ends the machine too.
pub fn run() -> ! {
    if let Err(error) = take_steps() {
        println!("the first process: {error:#}");
    }
    // Qemu is told not to start it again.
    let refused = reboot(RebootMode::RB_AUTOBOOT);
    panic!("reboot: {refused:?}");
}

fn take_steps() -> Result<()> {
    for (kind, folder) in MOUNTS {
        fs::create_dir_all(folder)?;
        mount(Some(kind), folder, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| folder.to_owned())?;
    }
    fs::create_dir_all("/tmp")?;
    // SAFETY: there is one thread.
    unsafe {
        env::set_var("PATH", "/usr/bin");
        env::set_var("XDP_LB", XDP_LB);
    }
    for module in crate::modules::kept(Path::new(MODULES))? {
        finit_module(File::open(&module)?, c"", ModuleInitFlags::empty())
            .with_context(|| module.display().to_string())?;
    }
    let mut steps = File::options().write(true).open(STEPS).context(STEPS)?;
    let mut say = |step: &Step| -> Result<()> {
        let line = serde_json::to_string(step)? + "\n";
        Ok(steps.write_all(line.as_bytes())?)
    };
    say(&Step::Up)?;
    say(&Step::Frames(frames().map_err(|error| format!("{error:#}"))))?;
    let pairs = env::var(PAIRS_WANTED).ok().and_then(|pairs| pairs.parse().ok());
    for (number, pair) in PAIRS.iter().enumerate().take(pairs.unwrap_or(PAIRS.len())) {
        // What is wrong in a lab is a panic, as in the tests.
        let carried = panic::catch_unwind(|| traffic::carry(number, pair));
        let carried = carried.unwrap_or_else(|panic| Err(anyhow!("{}", words(&*panic))));
        say(&Step::Traffic(number, carried.map_err(|error| format!("{error:#}"))))?;
    }
    say(&Step::Over)
}

fn frames() -> Result<()> {
    // The others tell what the load balancer's own programs tell as well.
    let output = Command::new(FRAMES).args(["kernel_rows", "kernel_maps"]).output();
    let output = output.context(FRAMES)?;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let lines: Vec<_> = said.lines().collect();
    let last = &lines[lines.len().saturating_sub(SAID_LINES)..];
    ensure!(output.status.success(), "{}\n{}", output.status, last.join("\n"));
    Ok(())
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("see the console")
}
