//! Many load balancers, changed at random for a while: what came of it.

use std::fs;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use xdp_lb_tests::balancer::beside;
use xdp_lb_tests::octavia::STACKS;
use xdp_lb_tests::octavia::balancer::Run;
use xdp_lb_tests::octavia::cloud::{Cloud, Image};
use xdp_lb_tests::octavia::soak::{self, Report};
use xdp_lb_tests::octavia::stack::{self, Stack};

#[derive(Args)]
pub struct Options {
    /// Load balancers
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=70))]
    count: u8,
    /// For how long they are changed
    #[arg(long, default_value_t = 15.0)]
    minutes: f64,
    /// The same one changes the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Of inotify, that the processes of an amphora may have open: systemd, journald and rsyslog have some each.
const INSTANCES: u32 = 8;
const INSTANCES_MAX: &str = "/proc/sys/fs/inotify/max_user_instances";

pub fn run(options: &Options) -> Result<()> {
    make_room(INSTANCES * u32::from(options.count))?;
    let up = stack::Options { release: STACKS[0], program: &beside()?, settings: "" };
    let cloud = Cloud::around(Stack::up(&up)?)?;
    let run = Run::new(&cloud, Image::XdpLb);
    let wanted = soak::Options {
        count: options.count.into(),
        lasts: Duration::from_secs_f64(60.0 * options.minutes),
        seed: options.seed,
    };
    let done = soak::run(&run, &wanted, &mut say);
    eprintln!();
    let (report, seen) = (done?, run.seen.into_inner());
    println!(
        "{} load balancers, nothing in ERROR, nothing left, {} answers",
        wanted.count, report.answers
    );
    for (name, count) in &report.done {
        println!("{count:6} {name}");
    }
    let mut changes = seen.changes;
    changes.sort();
    if let [_, .., slowest] = &changes[..] {
        let median = changes[changes.len() / 2];
        println!(
            "{} changes, from the call to ACTIVE: median {median:.1?}, slowest {slowest:.1?}",
            changes.len()
        );
    }
    println!("{}", memory(&report));
    Ok(())
}

/// All containers are of one user, whom Linux gives 128: the 42nd amphora did not boot. It stays raised, since
/// others may have come to need it.
fn make_room(wanted: u32) -> Result<()> {
    let now: u32 = fs::read_to_string(INSTANCES_MAX).context(INSTANCES_MAX)?.trim().parse()?;
    if now < wanted {
        eprintln!("fs.inotify.max_user_instances is {wanted} now, it was {now}");
        fs::write(INSTANCES_MAX, wanted.to_string()).context(INSTANCES_MAX)?;
    }
    Ok(())
}

fn memory(report: &Report) -> String {
    let sorted = |of: fn(&(u64, u64)) -> u64| {
        let mut all: Vec<_> = report.memory.iter().map(of).collect();
        all.sort();
        all
    };
    let (before, after) = (sorted(|it| it.0), sorted(|it| it.1));
    let words = |all: &[u64]| match all {
        [] => "none".to_owned(),
        [least, ..] => {
            format!("{least} to {} KiB, median {}", all[all.len() - 1], all[all.len() / 2])
        }
    };
    format!(
        "own memory of the {} agents that were never replaced: {}; at the end {}",
        before.len(),
        words(&before),
        words(&after)
    )
}

/// On a terminal, one line that changes.
fn say(what: String) {
    let (before, after) = if stderr().is_terminal() { ("\r\x1b[2K", "") } else { ("", "\n") };
    // Whoever does not want to see it may have closed it.
    let _ = write!(stderr(), "{before}{what}{after}");
}
