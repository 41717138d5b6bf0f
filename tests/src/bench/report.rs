//! What was measured, as tables and as data.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Nanoseconds per packet of the program alone.
    pub costs: Vec<Cost>,
    pub programs: Vec<Program>,
    /// Through namespaces, by way of each load balancer.
    pub paths: Vec<Path>,
    /// Milliseconds to understand an upload.
    pub parses: Vec<Parse>,
}

/// What one kind of packet costs, without the driver.
#[derive(Debug, Serialize)]
pub struct Cost {
    pub name: String,
    /// Flows that take turns; none where it is always another.
    pub flows: Option<u32>,
    pub median_ns: f64,
    pub p25_ns: f64,
    pub least_ns: f64,
    /// The driver with an empty program, which is subtracted already.
    pub driver_ns: f64,
    /// Rounds that were not disturbed.
    pub rounds: usize,
}

#[derive(Debug, Serialize)]
pub struct Program {
    pub name: String,
    /// Instructions the verifier walked.
    pub verified_instructions: u32,
    pub instructions: u32,
    pub machine_code_bytes: u32,
}

/// What clients see by way of a load balancer; medians of the rounds.
#[derive(Debug, Serialize)]
pub struct Path {
    pub name: String,
    /// On kept connections, and how long one took.
    pub requests_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// One request on each.
    pub connections_per_s: f64,
    pub bulk_gbit_per_s: f64,
    /// Of all rounds.
    pub errors: usize,
}

/// What it takes to understand an upload.
#[derive(Debug, Serialize)]
pub struct Parse {
    pub name: String,
    pub members: u32,
    pub bytes: usize,
    pub median_ms: f64,
}

pub fn costs(costs: &[Cost]) -> Table {
    let mut table = table(&["packet", "flows", "ns", "p25", "least", "driver", "rounds"]);
    for cost in costs {
        let ns = |ns: f64| format!("{ns:.0}");
        table.add_row([
            cost.name.clone(),
            cost.flows.map_or_else(String::new, |flows| flows.to_string()),
            ns(cost.median_ns),
            ns(cost.p25_ns),
            ns(cost.least_ns),
            ns(cost.driver_ns),
            cost.rounds.to_string(),
        ]);
    }
    table
}

pub fn programs(programs: &[Program]) -> Table {
    let mut table = table(&["program", "verifier walked", "instructions", "machine code"]);
    for program in programs {
        table.add_row([
            program.name.clone(),
            program.verified_instructions.to_string(),
            program.instructions.to_string(),
            program.machine_code_bytes.to_string(),
        ]);
    }
    table
}

/// Each figure, and its ratio to that of the first.
pub fn paths(paths: &[Path]) -> Table {
    let header =
        ["by way of", "requests/s", "p50 us", "p99 us", "connections/s", "Gbit/s", "errors"];
    let mut table = table(&header);
    let figures = |path: &Path| {
        [
            path.requests_per_s,
            path.p50_us,
            path.p99_us,
            path.connections_per_s,
            path.bulk_gbit_per_s,
        ]
    };
    for path in paths {
        let mut row = vec![path.name.clone()];
        for (figure, first) in figures(path).into_iter().zip(figures(&paths[0])) {
            let digits = if figure < 100.0 { 2 } else { 0 };
            row.push(format!("{figure:.digits$} ({:.2})", figure / first));
        }
        row.push(path.errors.to_string());
        table.add_row(row);
    }
    table
}

pub fn parses(parses: &[Parse]) -> Table {
    let mut table = table(&["configuration", "members", "bytes", "ms"]);
    for Parse { name, members, bytes, median_ms } in parses {
        let ms = format!("{median_ms:.1}");
        table.add_row([name.clone(), members.to_string(), bytes.to_string(), ms]);
    }
    table
}

/// All columns but the first are numbers.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Of values in any order; between two of them in proportion.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = part * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let rows: [(&[f64], f64, f64); 4] = [
            (&[3.0, 1.0, 2.0], 0.5, 2.0),
            (&[1.0, 2.0], 0.5, 1.5),
            (&[7.0], 0.25, 7.0),
            (&[4.0, 8.0], 0.0, 4.0),
        ];
        for (values, part, want) in rows {
            assert_eq!(quantile(values, part), want, "{values:?}");
        }
    }
}
