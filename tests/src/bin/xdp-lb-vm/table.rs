//! What came of all kernels, as tables for a terminal or in Markdown.

use comfy_table::{Table, presets};
use xdp_lb::record::Standing;

use crate::Outcome;
use crate::nics::PAIRS;
use crate::report::Carried;

/// Kernel, verdict, and how the program runs on each pair of NICs; why it is not native stands below.
pub fn kernels(outcomes: &[Outcome], markdown: bool) -> String {
    let mut table = styled(markdown);
    let columns = ["kernel", "verdict", "frame tables", "most walked", "walked in all"];
    let wanted = outcomes.iter().map(|outcome| outcome.report.traffic.len()).max().unwrap_or(0);
    let pairs = PAIRS.iter().take(wanted).map(|pair| pair.name);
    table.set_header(columns.into_iter().chain(pairs).chain(["took, s"]));
    let mut notes = Vec::new();
    for outcome in outcomes {
        let report = &outcome.report;
        let walked = report.walked();
        let most = walked.iter().max_by_key(|(_, count)| *count);
        let most = most.map_or_else(dash, |(stage, count)| format!("{count} ({stage})"));
        let all: u32 = walked.iter().map(|(_, count)| count).sum();
        let frames = match &report.frames {
            None => dash(),
            Some(Ok(())) => "pass".to_owned(),
            Some(Err(_)) => "FAIL".to_owned(),
        };
        let verdict = if report.passed() { "pass" } else { "FAIL" };
        let modes = report.traffic.iter().map(|carried| mode(carried.as_ref(), &mut notes));
        let modes: Vec<_> = modes.collect();
        let first = [outcome.kernel.clone(), verdict.to_owned(), frames, most, all.to_string()];
        let took = format!("{:.0}", outcome.took.as_secs_f64());
        table.add_row(first.into_iter().chain(modes).chain([took]));
    }
    let notes = notes.iter().enumerate().map(|(at, note)| format!("\n{} {note}", at + 1));
    format!("{table}\n{}", notes.collect::<String>())
}

/// What the verifier walked of each stage, of a million instructions that it may.
pub fn stages(outcomes: &[Outcome], markdown: bool) -> String {
    let mut table = styled(markdown);
    let names = outcomes.iter().map(|outcome| outcome.kernel.as_str());
    table.set_header(["instructions walked"].into_iter().chain(names));
    let walked = outcomes.iter().flat_map(|outcome| outcome.report.walked());
    let mut stages: Vec<_> = Vec::new();
    for (stage, _) in walked {
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    for stage in stages {
        let count = |outcome: &Outcome| {
            let mut walked = outcome.report.walked().iter();
            walked.find(|(name, _)| name == stage).map_or_else(dash, |(_, count)| count.to_string())
        };
        table.add_row([stage.clone()].into_iter().chain(outcomes.iter().map(count)));
    }
    table.to_string()
}

/// `native`, or `generic (1)` with its reason among the notes.
fn mode(carried: Option<&Result<Carried, String>>, notes: &mut Vec<String>) -> String {
    match carried {
        None => dash(),
        Some(Err(_)) => "FAIL".to_owned(),
        Some(Ok(carried)) => match &carried.standing {
            Standing::Attached { mode, refused: None, .. } => mode.to_string(),
            Standing::Attached { mode, refused: Some(why), .. } => {
                let known = notes.iter().position(|note| note == why);
                let note = known.unwrap_or_else(|| {
                    notes.push(why.clone());
                    notes.len() - 1
                });
                format!("{mode} ({})", note + 1)
            }
            Standing::Missing | Standing::Failed { .. } => "FAIL".to_owned(),
        },
    }
}

fn styled(markdown: bool) -> Table {
    let mut table = Table::new();
    table.load_style(if markdown { presets::ASCII_MARKDOWN } else { presets::UTF8_BORDERS_ONLY });
    table
}

fn dash() -> String {
    "-".to_owned()
}
