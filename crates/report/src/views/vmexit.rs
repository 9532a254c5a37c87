//! kvm-unit-tests' vmexit and exitpath's image, side by side.

use exitpath_analysis::vmexit::Comparison;
use exitpath_recording::Manifest;

use super::environment::measured_on;
use crate::document::{Cell, Column, Document, Table, Tone, Unit};

/// A line for each row with both figures and what their difference is made of, then what the columns
/// mean and what it was measured on.
pub fn vmexit(manifest: &Manifest, rows: &[Comparison]) -> Document {
    let ticks = |title| Column::figures(title, Unit::Instructions);
    let mut table = Table::new([
        Column::words("row"),
        ticks("vmexit"),
        ticks("exitpath"),
        ticks("difference"),
        ticks("their loop"),
        ticks("rest"),
        ticks("known"),
        Column::words("agree"),
    ])
    .leaving(&["known", "their loop", "rest"]);
    for row in rows {
        let theirs = i64::try_from(row.theirs).unwrap_or(i64::MAX);
        let (least, most) = row.known;
        let tone = if row.agrees() { Tone::Plain } else { Tone::Bad };
        let cells = [
            row.row.name.into(),
            Cell::Whole(row.theirs),
            Cell::Whole(row.ours.unsigned_abs()),
            Cell::Signed(theirs.saturating_sub(row.ours)),
            Cell::Whole(row.row.overhead),
            Cell::Signed(row.rest),
            Cell::range(Cell::Signed(least), Cell::Signed(most)),
            if row.agrees() { "yes" } else { "no" }.into(),
        ];
        table.toned(tone, cells);
    }
    let mut text = Document::new();
    text.table(table);
    text.note("vmexit: the mean of its last round, truncated, with all that interrupted it; exitpath: the \
         most frequent sample, less the empty bracket; their loop: instructions of loop and call");
    let interruptions: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {:.1}", row.row.name, row.interruptions))
        .collect();
    text.note(format!(
        "known: timer ticks (in ours they add, in the mean: {}), their guest's local APIC (up \
             to 16), memory (3 either way), truncation (−1), and for cpuid the leaf, which they \
             leave to chance (up to 140): of gcc 12's code on Linux 6.1",
        interruptions.join(", ")
    ));
    measured_on(&mut text, manifest);
    text.warnings(&manifest.warnings);
    text
}
