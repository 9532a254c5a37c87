//! What differs between two traces, for a pull request.

use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff::{PathDiff, RowDiff, Verdict};
use exitpath_recording::Manifest;

use super::Functions;
use super::diff::tables;
use crate::changes::{classes, elsewhere, largest, notes, other_seeds, otherwise, side};
use crate::document::{Block, Cell, Column, Document, Prose, Table, Unit};
use crate::format::{change, machine, plain, subject};

/// A table of the rows, and below it, folded, the phases and functions of those that differ. `a` and
/// `b` are the manifests of the first and the second recording.
///
/// All figures are instructions per round.
pub fn pull_request(a: &Manifest, b: &Manifest, diff: &PathDiff, functions: Functions) -> Document {
    let differ = |row: &&RowDiff| row.verdict == Verdict::Different;
    let mut text = Document::new();
    text.push(Block::Title(
        match diff.rows.iter().filter(differ).count() {
            0 => "exitpath: the same".to_owned(),
            number => format!("exitpath: {number} of {} rows differ", diff.rows.len()),
        },
    ));
    let mut table = Table::new([
        Column::words("row"),
        Column::figures("a", Unit::Instructions),
        Column::figures("b", Unit::Instructions),
        Column::figures("delta", Unit::Instructions),
        Column::parts("seeds"),
        Column::words("mostly"),
    ]);
    for row in &diff.rows {
        table.row([
            Cell::name(&row.name),
            Cell::Whole(row.a),
            Cell::Whole(row.b),
            Cell::Change(row.delta),
            Cell::Parts(row.seeds_agreeing as u64, row.seeds.len() as u64),
            mostly(row).into(),
        ]);
    }
    text.table(table);
    for row in diff.rows.iter().filter(differ) {
        let details = details(row, functions);
        text.push(Block::Details(plain(&row.name).into(), details));
    }
    text.note("Instructions, not time; a row's by the guest's clock, of the most frequent path.");
    let mut item = |before: &str, name: &str| {
        text.push(Block::Item(Prose::from(before).name(name)));
    };
    item("", &machine(a, a.environment.cpus, &a.environment.seeds));
    item("a: ", &subject(a));
    item("b: ", &subject(b));
    for note in notes(diff) {
        item("", &note);
    }
    for warning in warnings(a, b) {
        item("warning: ", &warning);
    }
    text
}

/// What a row's difference comes from.
fn mostly(row: &RowDiff) -> Prose {
    let mut words: Vec<Prose> = Vec::new();
    if !row.functions.is_empty() {
        words.push(largest(&row.functions));
    } else if row.verdict == Verdict::Different {
        words.extend(otherwise(row));
    }
    if !row.classes.is_empty() {
        words.push(format!("classes: {}", classes(&row.classes)).into());
    }
    words.extend(elsewhere(row).map(Prose::from));
    Prose::joined(words, "; ")
}

fn details(row: &RowDiff, functions: Functions) -> Document {
    let mut text = Document::new();
    if let Some(others) = other_seeds(row) {
        let (delta, agreeing, all) = (change(row.delta), row.seeds_agreeing, row.seeds.len());
        text.note(format!("{delta} at {agreeing} of {all} seeds, {others}."));
    }
    for table in tables(row, functions, side) {
        text.table(table);
    }
    text
}
