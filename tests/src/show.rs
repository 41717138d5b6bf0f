//! What demos print: headings, commands, and who served what.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::Command;
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use anyhow::{Context, Result, ensure};

/// Characters of a bar that stands for everything.
const BAR: f64 = 24.0;

/// Between two looks of [`progress`] at the time.
const TICK: Duration = Duration::from_millis(100);
/// To the beginning of a line, of which nothing stays.
const CLEAR: &str = "\r\x1b[2K";

static TERMINAL: LazyLock<bool> = LazyLock::new(|| io::stdout().is_terminal());
static COLOURS: LazyLock<bool> = LazyLock::new(|| *TERMINAL && env::var_os("NO_COLOR").is_none());

fn styled(code: &str, text: &str) -> String {
    if *COLOURS { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub fn bold(text: &str) -> String {
    styled("1", text)
}

pub fn dim(text: &str) -> String {
    styled("2", text)
}

pub fn good(text: &str) -> String {
    styled("32", text)
}

fn bad(text: &str) -> String {
    styled("1;31", text)
}

/// `1  The load balancer`
pub fn heading(number: u8, text: &str) {
    println!("\n{}  {}\n", styled("1;36", &number.to_string()), bold(text));
}

/// On a terminal it takes the place of what [`progress`] shows there.
pub fn line(text: &str) {
    println!("{}   {text}", if *TERMINAL { CLEAR } else { "" });
}

pub fn lines(text: &str) {
    text.lines().for_each(line);
}

/// Runs `command`, whose words a person could type, and shows it with the first `lines_max` lines
/// that it prints.
pub fn command(command: &mut Command, words: &str, lines_max: usize) -> Result<()> {
    let output = command.output().with_context(|| words.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{words}` failed: {}", said.trim());
    shown(words, &String::from_utf8_lossy(&output.stdout), lines_max);
    Ok(())
}

/// A command, and the first `lines_max` lines of what it printed.
pub fn shown(words: &str, printed: &str, lines_max: usize) {
    line(&format!("{} {}", dim("$"), bold(words)));
    printed.lines().take(lines_max).for_each(|text| line(text.trim_end()));
    let more = printed.lines().count().saturating_sub(lines_max);
    if more > 0 {
        line(&dim(&format!("... {more} more lines")));
    }
}

/// Does what takes long. On a terminal a line tells for how long already, and goes when it is done.
pub fn progress<T>(what: &str, work: impl FnOnce() -> T) -> T {
    if !*TERMINAL {
        line(&format!("{what}..."));
        return work();
    }
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let began = Instant::now();
            while is_done.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                print_now(&format!("{CLEAR}   {what}... {:.0} s", began.elapsed().as_secs_f64()));
            }
            print_now(CLEAR);
        });
        let came = work();
        drop(done);
        came
    })
}

fn print_now(text: &str) {
    print!("{text}");
    // A terminal that is gone need not be told.
    let _ = io::stdout().flush();
}

/// `HTTP  IPv4   m1 ██████  25 %  m2 ██████  25 %  m3 ████████████  50 %   600 answers, 0 errors`
pub fn shares(label: &str, by_member: &BTreeMap<String, u32>, names: &[&str], errors: usize) {
    let all: u32 = by_member.values().sum();
    let share = |name: &&str| {
        let share = f64::from(by_member.get(*name).copied().unwrap_or(0)) / f64::from(all.max(1));
        let bar = "█".repeat((share * BAR).round() as usize);
        let field = format!("{name} {bar:<width$} {:>3.0} %", share * 100.0, width = 14);
        if share == 0.0 { dim(&field) } else { field.replace(&bar, &styled("36", &bar)) }
    };
    let shares: Vec<_> = names.iter().map(share).collect();
    line(&format!("{label:<11} {}  {}", shares.join("  "), tally(all, errors)));
}

pub fn tally(answers: u32, errors: usize) -> String {
    let errors = if errors == 0 { good("0 errors") } else { bad(&format!("{errors} errors")) };
    format!("{answers} answers, {errors}")
}
