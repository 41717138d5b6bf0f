//! What the demo asks a stack for, as a person would type it, and what came of it.
//!
//! `octavia` stands for `cargo xtask octavia`. Ids are shown by their beginnings, and long calls are cut.

use std::process::Command;

use anyhow::Result;
use comfy_table::{Table, presets};
use serde_json::Value;
use xdp_lb_tests::container;
use xdp_lb_tests::octavia::amphora::Amphora;
use xdp_lb_tests::octavia::cloud::Cloud;
use xdp_lb_tests::show::{self, line};
use xdp_lb_tests::signals::check;

/// Of a call that is shown, in characters.
const CALL_MAX: usize = 130;
/// How much of an id is shown; `octavia amphora` needs no more.
const ID: usize = 8;

/// Of [`Cloud::watch`]: calls that only ask are many while something is waited for.
pub fn call(method: &str, path: &str, body: Option<&Value>) {
    if method != "GET" {
        let body = body.map(|body| format!(" '{body}'")).unwrap_or_default();
        show::shown(&cut(&brief(&format!("octavia api {method} {path}{body}"))), "", 0);
    }
}

/// What the API tells; it is for the caller to show.
pub fn ask(cloud: &Cloud, path: &str) -> Result<Value> {
    let answer = cloud.show(path)?;
    show::shown(&brief(&format!("octavia api GET {path}")), "", 0);
    Ok(answer)
}

/// Runs a command next to Octavia, and shows the first `lines_max` lines that it prints.
pub fn beside_octavia(cloud: &Cloud, words: &str, lines_max: usize) -> Result<()> {
    let printed = container::output(&mut command(cloud, words))?;
    // What a Ctrl-C ends may do as if it were done.
    check()?;
    show::shown(&brief(&format!("octavia run {words}")), &printed, lines_max);
    Ok(())
}

pub fn command(cloud: &Cloud, words: &str) -> Command {
    let (program, arguments) = split(words);
    cloud.stack.command(program, &arguments)
}

/// The same in an amphora.
pub fn inside(amphora: &Amphora<'_>, words: &str, lines_max: usize) -> Result<()> {
    let (program, arguments) = split(words);
    let printed = amphora.run(program, &arguments)?;
    check()?;
    show::shown(&brief(&format!("octavia amphora {} {words}", amphora.id)), &printed, lines_max);
    Ok(())
}

/// No word of ours has a space in it.
fn split(words: &str) -> (&str, Vec<&str>) {
    let (program, arguments) = words.split_once(' ').unwrap_or((words, ""));
    (program, arguments.split_whitespace().collect())
}

/// A part of the tree of statuses, with its own parts below it.
pub fn statuses(kind: &str, part: &Value, depth: usize) {
    let text = |key: &str| part[key].as_str().unwrap_or_default();
    let (kind, name) = (kind.strip_suffix('s').unwrap_or(kind), text("name"));
    // Some are called "pool 80".
    let name = name.strip_prefix(kind).unwrap_or(name).trim_start();
    let called = format!("{:indent$}{kind} {name}", "", indent = 2 * depth);
    line(&format!("{called:<28} {:8} {}", text("provisioning_status"), text("operating_status")));
    for (kind, below) in part.as_object().into_iter().flatten() {
        match below {
            Value::Array(parts) => parts.iter().for_each(|it| statuses(kind, it, depth + 1)),
            Value::Object(_) => statuses(kind, below, depth + 1),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// A table of what is at `keys` of each object.
pub fn rows<'a>(keys: &[&str], objects: impl IntoIterator<Item = &'a Value>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(keys.iter().map(|key| key.replace('_', " ")));
    for object in objects {
        let cell = |key: &&str| match &object[*key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.add_row(keys.iter().map(cell));
    }
    show::lines(&table.to_string());
}

/// With the beginnings of ids in place of the ids.
fn brief(text: &str) -> String {
    let is_of_id = |c: char| c.is_ascii_hexdigit() || c == '-';
    let is_id = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let parts = text.split_inclusive(|c| !is_of_id(c)).map(|part| {
        let word = part.trim_end_matches(|c| !is_of_id(c));
        if is_id(word) {
            format!("{}{}", &word[..ID], &part[word.len()..])
        } else {
            part.to_owned()
        }
    });
    parts.collect()
}

fn cut(text: &str) -> String {
    let cut: String = text.chars().take(CALL_MAX).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_beginnings_of_ids() {
        let rows = [
            ("GET octavia/amphorae", "GET octavia/amphorae"),
            ("pools/38b1e9a1-7b7f-4125-aec1-99df094bc0d8/members", "pools/38b1e9a1/members"),
            (
                "38b1e9a1-7b7f-4125-aec1-99df094bc0d8:9443:9f9dfc13-d65e-4660-9282-557cbec51515",
                "38b1e9a1:9443:9f9dfc13",
            ),
            // A project's has no hyphens.
            ("0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"),
        ];
        for (text, want) in rows {
            assert_eq!(brief(text), want);
        }
    }

    #[test]
    fn cuts_what_is_long() {
        let long = "ä".repeat(CALL_MAX + 1);
        let rows = [
            ("short".to_owned(), "short".to_owned()),
            ("ä".repeat(CALL_MAX), "ä".repeat(CALL_MAX)),
            (long, "ä".repeat(CALL_MAX) + "…"),
        ];
        for (text, want) in rows {
            assert_eq!(cut(&text), want);
        }
    }
}
