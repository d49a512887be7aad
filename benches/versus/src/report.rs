//! What came of it, as a table, as lines of JSON, and as a picture.

use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::drive::Sample;
use crate::workload::Op;

/// The contender that the others are compared with.
pub const OURS: &str = "agent-storage";

/// The medians of one contender in one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub backend: &'static str,
    #[serde(serialize_with = "as_text")]
    pub op: Op,
    pub callers: usize,
    pub who: String,
    #[serde(flatten)]
    pub sample: Sample,
}

fn as_text<S: serde::Serializer>(op: &Op, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(op)
}

impl Row {
    fn cell(&self) -> (&'static str, Op, usize) {
        (self.backend, self.op, self.callers)
    }
}

/// The median of each number over the rounds; none if there was no round.
pub fn median(samples: &[Sample]) -> Option<Sample> {
    if samples.is_empty() {
        return None;
    }
    let of = |number: fn(&Sample) -> f64| {
        let mut numbers: Vec<f64> = samples.iter().map(number).collect();
        numbers.sort_unstable_by(f64::total_cmp);
        let middle = numbers.len() / 2;
        if numbers.len() % 2 == 1 { numbers[middle] } else { f64::midpoint(numbers[middle - 1], numbers[middle]) }
    };
    Some(Sample {
        ops_per_s: of(|sample| sample.ops_per_s),
        p50_us: of(|sample| sample.p50_us),
        p99_us: of(|sample| sample.p99_us),
    })
}

/// Ours over another, in the same cell.
fn ratio(rows: &[Row], row: &Row) -> Option<f64> {
    let ours = rows.iter().find(|other| other.cell() == row.cell() && other.who == OURS)?;
    (row.who != OURS).then(|| ours.sample.ops_per_s / row.sample.ops_per_s)
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["backend", "op", "callers", "who", "ops/s", "p50 us", "p99 us", "ours is"]);
    for row in rows {
        table.add_row([
            row.backend.to_owned(),
            row.op.to_string(),
            row.callers.to_string(),
            row.who.clone(),
            format!("{:.0}", row.sample.ops_per_s),
            format!("{:.1}", row.sample.p50_us),
            format!("{:.1}", row.sample.p99_us),
            ratio(rows, row).map(|ratio| format!("{ratio:.2} x")).unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub fn write_json(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let lines: Result<Vec<String>, _> = rows.iter().map(serde_json::to_string).collect();
    Ok(std::fs::write(path, lines?.join("\n") + "\n")?)
}

const BAR: usize = 16;
const GAP: usize = 14;
const LEFT: usize = 320;
const WIDTH: usize = 1000;
const COLOURS: [&str; 6] = ["#1b6ca8", "#b8b8b8", "#7a7a7a", "#d98c3f", "#8a6fb0", "#5a9e6f"];

/// Draws the cells of one number of callers, 256 if it was measured, as bars on a logarithmic scale.
pub fn write_plot(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let most = rows.iter().map(|row| row.callers).max().unwrap_or_default();
    let callers = if rows.iter().any(|row| row.callers == 256) { 256 } else { most };
    let rows: Vec<&Row> = rows.iter().filter(|row| row.callers == callers).collect();
    let mut names: Vec<&str> = vec![OURS];
    for row in &rows {
        if !names.contains(&row.who.as_str()) {
            names.push(&row.who);
        }
    }
    let highest = rows.iter().map(|row| row.sample.ops_per_s.log10()).fold(1.0, f64::max);
    let lowest = rows.iter().map(|row| row.sample.ops_per_s.log10().floor()).fold(highest, f64::min) - 0.5;
    let (mut bars, mut y, mut cell) = (String::new(), 48, None);
    for row in &rows {
        if cell.is_some_and(|cell| cell != row.cell()) {
            y += GAP;
        }
        cell = Some(row.cell());
        let part = (row.sample.ops_per_s.log10() - lowest) / (highest - lowest);
        let width = (part * (WIDTH - LEFT - 100) as f64).max(1.0);
        let colour = names.iter().position(|name| *name == row.who).unwrap_or_default() % COLOURS.len();
        let (text, end) = (y + BAR - 4, LEFT as f64 + width + 6.0);
        let label = LEFT - 8;
        writeln!(
            bars,
            r#"<text x="{label}" y="{text}" text-anchor="end">{} {} - {}</text><rect x="{LEFT}" y="{y}" width="{width:.1}" height="{}" fill="{}"/><text x="{end:.1}" y="{text}">{:.0}</text>"#,
            row.backend,
            row.op,
            row.who,
            BAR - 2,
            COLOURS[colour],
            row.sample.ops_per_s,
        )?;
        y += BAR;
    }
    let height = y + GAP;
    let svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="16" y="26" font-size="16">Operations a second, {callers} callers (logarithmic scale)</text>
{bars}</svg>
"##
    );
    Ok(std::fs::write(path, svg)?)
}
