//! The table of exits as terminal text.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use exitpath_analysis::table::{RowSummary, Variant, Verdict};
use exitpath_recording::{Environment, Machine, Manifest};

use crate::json;

/// Other values than the row's own that a line shows; the rest are counted.
const VARIANTS_SHOWN: usize = 3;

/// The table, a line on the environment, the notes and the warnings.
pub fn table(manifest: &Manifest, rows: &[RowSummary]) -> String {
    let mut text = match manifest.machine {
        Machine::Lab => lab_table(rows),
        Machine::Host => host_table(manifest, rows),
    };
    text.push('\n');
    notes(&mut text, rows);
    let _ = writeln!(text, "{}", environment(manifest));
    for warning in &manifest.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn new_table(header: &[&str], left: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().enumerate().map(|(i, title)| {
        let alignment = if left.contains(&i) {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(title).set_alignment(alignment)
    }));
    for (i, column) in table.column_iter_mut().enumerate() {
        let alignment = if left.contains(&i) {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        column.set_cell_alignment(alignment);
    }
    table
}

fn lab_table(rows: &[RowSummary]) -> String {
    let header = [
        "row",
        "handled by",
        "exits",
        "user",
        "instructions",
        "samples",
        "interrupted",
        "verdict",
        "other values × samples [seeds]",
    ];
    let mut table = new_table(&header, &[0, 1, 7, 8]);
    for row in rows {
        table.add_row([
            row.row.name.clone(),
            handled(row),
            per_op(row.exits_per_op),
            per_op(row.userspace_exits_per_op),
            row.figures
                .map_or_else(none, |figures| count(figures.median)),
            row.samples.to_string(),
            row.interrupted.to_string(),
            json::verdict(row.verdict).to_owned(),
            variants(row),
        ]);
    }
    trimmed(&table)
}

fn host_table(manifest: &Manifest, rows: &[RowSummary]) -> String {
    let header = [
        "row",
        "handled by",
        "exits",
        "user",
        "floor",
        "median",
        "p99",
        "mean",
        "95 % interval",
        "cycles",
        "samples",
        "runs",
        "verdict",
    ];
    let mut table = new_table(&header, &[0, 1, 12]);
    let to_ns = json::nanoseconds_per_tick(&manifest.environment);
    for row in rows {
        let ns = row
            .figures
            .zip(to_ns)
            .map(|(figures, factor)| figures.scaled(factor));
        let show = |value: Option<f64>| value.map_or_else(none, nanoseconds);
        table.add_row([
            row.row.name.clone(),
            handled(row),
            per_op(row.exits_per_op),
            per_op(row.userspace_exits_per_op),
            show(ns.map(|f| f.floor)),
            show(ns.map(|f| f.median)),
            show(ns.map(|f| f.p99)),
            show(ns.map(|f| f.mean)),
            ns.and_then(|f| f.ci95).map_or_else(none, |(lo, hi)| {
                format!("{} … {}", nanoseconds(lo), nanoseconds(hi))
            }),
            row.figures
                .map_or_else(none, |figures| count(figures.median)),
            row.samples.to_string(),
            row.runs.to_string(),
            json::verdict(row.verdict).to_owned(),
        ]);
    }
    let mut text = trimmed(&table);
    text.push_str(
        "\nfloor (p1), median, p99, mean of run means and its interval: ns; cycles: TSC ticks, median",
    );
    text
}

fn trimmed(table: &Table) -> String {
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

fn none() -> String {
    "–".to_owned()
}

fn handled(row: &RowSummary) -> String {
    row.handled_by
        .map_or_else(none, |by| json::handled_by(by).to_owned())
}

fn per_op(exits: Option<f64>) -> String {
    exits.map_or_else(none, |exits| format!("{exits:.2}"))
}

fn nanoseconds(value: f64) -> String {
    if value.abs() < 100.0 {
        format!("{value:.1}")
    } else {
        count(value)
    }
}

/// A whole number with separators.
fn count(value: f64) -> String {
    let rounded = value.round() as i64;
    let digits = rounded.unsigned_abs().to_string();
    let mut text = if rounded < 0 {
        "-".to_owned()
    } else {
        String::new()
    };
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seeds(seeds: &[u64]) -> String {
    let seeds: Vec<_> = seeds.iter().map(u64::to_string).collect();
    format!("[{}]", seeds.join(" "))
}

/// The values beside the row's own that were not interrupted.
fn variants(row: &RowSummary) -> String {
    let value = row.figures.map(|figures| figures.median);
    let clean: Vec<&Variant> = row
        .variants
        .iter()
        .filter(|variant| !variant.interrupted)
        .collect();
    let others: Vec<&&Variant> = clean
        .iter()
        .filter(|variant| Some(variant.instructions as f64) != value)
        .collect();
    if others.is_empty() {
        return String::new();
    }
    let mut shown: Vec<String> = others
        .iter()
        .take(VARIANTS_SHOWN)
        .map(|variant| {
            let instructions = count(variant.instructions as f64);
            format!(
                "{instructions} × {} {}",
                variant.samples,
                seeds(&variant.seeds)
            )
        })
        .collect();
    if others.len() > VARIANTS_SHOWN {
        shown.push(format!("and {} more", others.len() - VARIANTS_SHOWN));
    }
    shown.join(", ")
}

fn notes(text: &mut String, rows: &[RowSummary]) {
    // One reason often holds for many rows: say it once.
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        for note in &row.notes {
            match said.iter_mut().find(|(known, _)| *known == note) {
                Some((_, names)) => names.push(&row.row.name),
                None => said.push((note, vec![&row.row.name])),
            }
        }
    }
    for (note, names) in &said {
        let _ = match names.as_slice() {
            [name] => writeln!(text, "{name}: {note}"),
            names if names.len() <= 4 => writeln!(text, "{}: {note}", names.join(", ")),
            names => writeln!(
                text,
                "{} and {} more rows: {note}",
                names[0],
                names.len() - 1
            ),
        };
    }
    if rows.iter().any(|row| row.verdict == Verdict::Void) {
        let _ = writeln!(
            text,
            "void: the value does not mean what the row's name says"
        );
    }
}

/// One line: what the figures hold for.
pub fn environment(manifest: &Manifest) -> String {
    let Environment {
        kernel,
        cmdline,
        cpu,
        cpus,
        qemu,
        seeds,
        ..
    } = &manifest.environment;
    let cpus = format!("{cpus} CPU{}", if *cpus == 1 { "" } else { "s" });
    match manifest.machine {
        Machine::Host => format!(
            "host: {cpu}, {cpus}, Linux {kernel} ({cmdline}), TSC {} kHz",
            manifest
                .environment
                .tsc_khz
                .map_or_else(none, |khz| khz.to_string())
        ),
        Machine::Lab => {
            let qemu = qemu.as_deref().unwrap_or("?");
            let seeds = self::seeds(seeds);
            format!(
                "lab: QEMU {qemu}, -cpu {cpu}, {cpus}, Linux {kernel} ({cmdline}), seeds {seeds}"
            )
        }
    }
}
