//! kvm-unit-tests' vmexit and exitpath's image, side by side.

use exitpath_analysis::vmexit::Comparison;
use exitpath_recording::Manifest;

use super::environment;
use crate::format::{signed, thousands};
use crate::layout::{Text, Tone, new_table, push_lines, push_warnings, push_wrapped};

/// A line for each row with both figures and what their difference is made of, then what the columns
/// mean and what it was measured on.
pub fn vmexit(manifest: &Manifest, rows: &[Comparison]) -> Text {
    let header = [
        "row",
        "vmexit",
        "exitpath",
        "difference",
        "their loop",
        "rest",
        "known",
        "agree",
    ];
    let mut table = new_table(&header, &[0, 7]).leaving(&["known", "their loop", "rest"]);
    for row in rows {
        let theirs = i64::try_from(row.theirs).unwrap_or(i64::MAX);
        let (least, most) = row.known;
        let tone = if row.agrees() { Tone::Plain } else { Tone::Bad };
        let cells = [
            row.row.name.to_owned(),
            thousands(row.theirs),
            thousands(row.ours.unsigned_abs()),
            signed(theirs.saturating_sub(row.ours)),
            thousands(row.row.overhead),
            signed(row.rest),
            format!("{} … {}", signed(least), signed(most)),
            if row.agrees() { "yes" } else { "no" }.to_owned(),
        ];
        table.add_toned(tone, cells);
    }
    let mut text = Text::new();
    text.table(table);
    push_wrapped(
        &mut text,
        "vmexit: the mean of its last round, truncated, with all that interrupted it; exitpath: the \
         most frequent sample, less the empty bracket; their loop: instructions of loop and call",
    );
    let interruptions: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {:.1}", row.row.name, row.interruptions))
        .collect();
    push_wrapped(
        &mut text,
        &format!(
            "known: timer ticks (in ours they add, in the mean: {}), their guest's local APIC (up \
             to 16), memory (3 either way), truncation (−1), and for cpuid the leaf, which they \
             leave to chance (up to 140): of gcc 12's code on Linux 6.1",
            interruptions.join(", ")
        ),
    );
    push_lines(&mut text, &environment(manifest));
    push_warnings(&mut text, &manifest.warnings);
    text
}
