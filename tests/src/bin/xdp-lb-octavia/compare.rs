//! Every scenario with stock amphorae and with ours, side by side.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use xdp_lb_tests::balancer::beside;
use xdp_lb_tests::octavia::STACKS;
use xdp_lb_tests::octavia::balancer::{Run, Seen};
use xdp_lb_tests::octavia::cloud::{Cloud, Image};
use xdp_lb_tests::octavia::scenarios::{self, Scenario};
use xdp_lb_tests::octavia::stack::{self, Stack};

#[derive(Args)]
pub struct Options {
    /// Only scenarios with one of these in their names
    names: Vec<String>,
    /// Only these amphorae
    #[arg(long)]
    only: Option<Image>,
    /// Of Octavia
    #[arg(long, default_value = STACKS[0])]
    release: String,
    /// Print a table in Markdown
    #[arg(long)]
    markdown: bool,
}

/// What came of one scenario with one kind of amphorae.
struct Outcome {
    image: Image,
    seen: Seen,
    failed: Option<String>,
}

pub fn run(options: &Options) -> Result<()> {
    let is_wanted = |scenario: &&Scenario| {
        options.names.is_empty()
            || options.names.iter().any(|name| scenario.name.contains(name.as_str()))
    };
    let scenarios: Vec<_> = scenarios::all().filter(is_wanted).collect();
    ensure!(!scenarios.is_empty(), "no scenario has one of {:?} in its name", options.names);
    let images = options.only.map_or_else(|| vec![Image::Stock, Image::XdpLb], |only| vec![only]);
    let mut rows = Vec::new();
    for image in images {
        let up = stack::Options { release: &options.release, program: &beside()?, settings: "" };
        // One for each kind, so that what one leaves behind is not the other's trouble.
        let mut cloud = Cloud::around(Stack::up(&up)?)?;
        for scenario in &scenarios {
            let outcome = one(&cloud, scenario, image);
            if outcome.failed.is_some() {
                drop(cloud);
                cloud = Cloud::around(Stack::up(&up)?)?;
            }
            rows.push((scenario.name, outcome));
        }
    }
    println!("{}", table(&scenarios, &rows, options.markdown));
    let lines = rows.iter().filter_map(|(name, it)| Some((name, it.image, it.failed.as_ref()?)));
    lines.for_each(|(name, image, why)| println!("{name}, {}: {why}", image.tag()));
    // What a stock amphora cannot do is what is to be seen.
    let ours = rows.iter().filter(|(_, it)| it.image == Image::XdpLb && it.failed.is_some());
    let failed = ours.count();
    ensure!(failed == 0, "{failed} failed with xdp-lb");
    Ok(())
}

fn one(cloud: &Cloud, scenario: &Scenario, image: Image) -> Outcome {
    eprint!("{:8} {:32} ", image.tag(), scenario.name);
    let began = Instant::now();
    let run = Run::new(cloud, image);
    let done = (scenario.run)(&run).and_then(|()| cloud.is_bare().context("something is left"));
    let failed = done.err().map(|error| format!("{error:#}"));
    let word = if failed.is_some() { "FAILED" } else { "works" };
    eprintln!("{word:6} {:6.1} s", began.elapsed().as_secs_f64());
    Outcome { image, seen: run.seen.into_inner(), failed }
}

const COLUMNS: [&str; 6] =
    ["works", "created, s", "slowest change, s", "ONLINE, s", "agent's PSS, MB", "requests/s"];

fn table(scenarios: &[&Scenario], rows: &[(&str, Outcome)], markdown: bool) -> Table {
    let mut table = Table::new();
    table.load_style(if markdown { presets::ASCII_MARKDOWN } else { presets::UTF8_BORDERS_ONLY });
    table.set_header(["stock / xdp-lb"].into_iter().chain(COLUMNS).chain(["lost", "not told"]));
    for scenario in scenarios {
        let outcomes: Vec<_> =
            rows.iter().filter(|(name, _)| *name == scenario.name).map(|(_, it)| it).collect();
        let cell = |tell: fn(&Outcome) -> String| {
            let told: Vec<_> = outcomes.iter().map(|outcome| tell(outcome)).collect();
            if told.iter().all(|told| told == "-") { "-".to_owned() } else { told.join(" / ") }
        };
        table.add_row([
            scenario.name.to_owned(),
            cell(|it| if it.failed.is_some() { "no" } else { "yes" }.to_owned()),
            cell(|it| seconds(it.seen.created)),
            cell(|it| seconds(it.seen.changes.iter().max().copied())),
            cell(|it| seconds(it.seen.online)),
            cell(|it| it.seen.memory.map_or_else(dash, |it| format!("{}", it.pss / 1024))),
            cell(|it| it.seen.requests_s.map_or_else(dash, |rate| format!("{rate:.0}"))),
            cell(|it| {
                let lost = it.seen.lost;
                lost.map_or_else(dash, |(lost, out)| format!("{lost}, {:.1} s", out.as_secs_f64()))
            }),
            cell(|it| if it.seen.untold == 0 { dash() } else { it.seen.untold.to_string() }),
        ]);
    }
    table
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(dash, |it| format!("{:.1}", it.as_secs_f64()))
}

fn dash() -> String {
    "-".to_owned()
}
