//! The table of exits.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use exitpath_analysis::table::{RowSummary, Variant, Verdict};
use exitpath_recording::{Machine, Manifest};

use super::environment::{environment, tone};
use crate::document::{Cell, Column, Document, Table, Unit};
use crate::format::{count, plain};
use crate::words;

/// A column's title.
const OTHER_VALUES: &str = "other values";
/// What these two columns are.
const EXITS_AND_USER: &str =
    "exits, user: exits, and those of them that return from KVM_RUN to the VMM, for one operation";
/// Columns for other values than the row's own; those that do not fit are counted.
const VARIANTS_WIDTH: usize = 44;
/// Seeds of such a value that a line shows; the rest are counted.
const SEEDS_SHOWN: usize = 3;

/// The table, what its columns mean, the notes, what it was measured on, and the warnings.
pub fn table(manifest: &Manifest, rows: &[RowSummary]) -> Document {
    let mut text = match manifest.machine {
        Machine::Lab => lab_table(manifest, rows),
        Machine::Host => host_table(manifest, rows),
    };
    notes(&mut text, rows);
    cpus(&mut text, rows);
    environment(&mut text, manifest);
    text.warnings(&manifest.warnings);
    text
}

fn lab_table(manifest: &Manifest, rows: &[RowSummary]) -> Document {
    let instructions = Unit::Instructions.name();
    let mut table = Table::new([
        Column::words("row"),
        Column::words("handled by"),
        Column::figures("exits", Unit::Count),
        Column::figures("user", Unit::Count),
        Column::figures(instructions, Unit::Instructions),
        Column::figures("samples", Unit::Count),
        Column::figures("interrupted", Unit::Count),
        Column::words("verdict"),
        Column::words(OTHER_VALUES),
    ])
    .leaving(&[
        "interrupted",
        "samples",
        OTHER_VALUES,
        "user",
        "exits",
        "handled by",
    ]);
    for row in rows {
        let cells = [
            Cell::name(&row.row.name),
            handled(row),
            Cell::known(row.exits_per_op, Cell::Hundredths),
            Cell::known(row.userspace_exits_per_op, Cell::Hundredths),
            Cell::known(row.figures, |figures| Cell::Rounded(figures.median)),
            Cell::Whole(row.samples),
            Cell::Whole(row.interrupted),
            words::verdict(row.verdict).into(),
            variants(row, &manifest.environment.seeds).into(),
        ];
        table.toned(tone(row.verdict), cells);
    }
    let mut text = Document::new();
    text.table(table);
    text.note(EXITS_AND_USER);
    text.note(
        "instructions: what most samples take, less what each takes without the operation; they are counted, \
         so that there is no interval",
    );
    if rows
        .iter()
        .any(|row| !variants(row, &manifest.environment.seeds).is_empty())
    {
        text.note(
            "other values: what other samples take, × how many of them, and in brackets under which seeds \
             where not under all",
        );
    }
    if rows.iter().any(|row| row.interrupted > 0) {
        text.note(
            "interrupted: samples that an interrupt of the lab's machine hit, left out of the figures",
        );
    }
    text
}

fn host_table(manifest: &Manifest, rows: &[RowSummary]) -> Document {
    let mut table = Table::new([
        Column::words("row"),
        Column::words("handled by"),
        Column::figures("exits", Unit::Count),
        Column::figures("user", Unit::Count),
        Column::figures("floor", Unit::Nanoseconds),
        Column::figures("median", Unit::Nanoseconds),
        Column::figures("p99", Unit::Nanoseconds),
        Column::figures("mean", Unit::Nanoseconds),
        Column::figures("95 % interval", Unit::Nanoseconds),
        Column::figures(Unit::Ticks.name(), Unit::Ticks),
        Column::figures("samples", Unit::Count),
        Column::figures("runs", Unit::Count),
        Column::words("verdict"),
    ])
    .leaving(&[
        "runs",
        "samples",
        "floor",
        "cycles",
        "user",
        "p99",
        "exits",
        "handled by",
        "95 % interval",
        "mean",
    ]);
    let to_ns = manifest.environment.nanoseconds_per_tick();
    for row in rows {
        let ns = row
            .figures
            .zip(to_ns)
            .map(|(figures, factor)| figures.scaled(factor));
        let show = |value: Option<f64>| Cell::known(value, Cell::Tenths);
        let interval = |(lo, hi)| Cell::range(Cell::Tenths(lo), Cell::Tenths(hi));
        let cells = [
            Cell::name(&row.row.name),
            handled(row),
            Cell::known(row.exits_per_op, Cell::Hundredths),
            Cell::known(row.userspace_exits_per_op, Cell::Hundredths),
            show(ns.map(|f| f.floor)),
            show(ns.map(|f| f.median)),
            show(ns.map(|f| f.p99)),
            show(ns.map(|f| f.mean)),
            Cell::known(ns.and_then(|f| f.ci95), interval),
            Cell::known(row.figures, |figures| Cell::Rounded(figures.median)),
            Cell::Whole(row.samples),
            Cell::Whole(row.runs.into()),
            words::verdict(row.verdict).into(),
        ];
        table.toned(tone(row.verdict), cells);
    }
    let mut text = Document::new();
    text.table(table);
    text.note(EXITS_AND_USER);
    text.note(
        "floor (p1), median, p99: of all samples, ns; mean: of the runs' means, with its interval, ns; cycles: \
         the median in TSC ticks",
    );
    text.note("of each sample, what it takes without the operation is subtracted");
    text
}

fn handled(row: &RowSummary) -> Cell {
    Cell::known(row.handled_by, |by| words::handled_by(by).into())
}

/// The values beside the row's own that were not interrupted. Seeds are named where a value did not
/// occur under all.
fn variants(row: &RowSummary, all: &[u64]) -> String {
    let value = row.figures.map(|figures| figures.median);
    let others: Vec<&Variant> = row
        .variants
        .iter()
        .filter(|variant| !variant.interrupted && Some(variant.instructions as f64) != value)
        .collect();
    let mut text = String::new();
    for (i, variant) in others.iter().enumerate() {
        let instructions = count(variant.instructions as f64);
        let seeds = where_seen(&variant.seeds, all);
        let separator = if i == 0 { "" } else { ", " };
        let next = format!("{separator}{instructions} × {}{seeds}", variant.samples);
        let rest = match others.len() - i {
            1 => String::new(),
            rest => format!(", {rest} more"),
        };
        if i > 0 && text.chars().chain(next.chars()).chain(rest.chars()).count() > VARIANTS_WIDTH {
            let _ = write!(text, ", {} more", others.len() - i);
            break;
        }
        text.push_str(&next);
    }
    text
}

/// Nothing where these are all.
fn where_seen(seeds: &[u64], all: &[u64]) -> String {
    if all.iter().all(|seed| seeds.contains(seed)) {
        return String::new();
    }
    let mut shown: Vec<String> = seeds.iter().take(SEEDS_SHOWN).map(u64::to_string).collect();
    if seeds.len() > SEEDS_SHOWN {
        shown.push(format!("+{}", seeds.len() - SEEDS_SHOWN));
    }
    format!(" [{}]", shown.join(" "))
}

fn names<'a>(rows: impl Iterator<Item = &'a RowSummary>) -> Vec<String> {
    rows.map(|row| plain(&row.row.name)).collect()
}

fn notes(text: &mut Document, rows: &[RowSummary]) {
    // One reason often holds for many rows: say it once.
    let mut said: Vec<&str> = Vec::new();
    for note in rows.iter().flat_map(|row| &row.notes) {
        if said.contains(&note.as_str()) {
            continue;
        }
        said.push(note);
        let names = names(rows.iter().filter(|row| row.notes.contains(note)));
        let whose = if names.len() == rows.len() && names.len() > 1 {
            "all rows".to_owned()
        } else {
            names.join(", ")
        };
        text.note(format!("{whose}: {}", plain(note)));
    }
    if rows.iter().any(|row| row.verdict == Verdict::Void) {
        text.lines("void: the value does not mean what the row's name says\n");
    }
}

/// Which rows were measured on how many CPUs, where it was not the same number.
fn cpus(text: &mut Document, rows: &[RowSummary]) {
    let counts: BTreeSet<u32> = rows.iter().map(|row| row.cpus).collect();
    let counts: Vec<u32> = counts.into_iter().filter(|&cpus| cpus > 0).collect();
    let [least, more @ ..] = counts.as_slice() else {
        return;
    };
    for &cpus in more {
        let names = names(rows.iter().filter(|row| row.cpus == cpus)).join(", ");
        text.note(format!("on {cpus} CPUs: {names}; others on {least}"));
    }
}
