//! What patching functions out should save of each row, and what it saved.

use std::fmt::Write;

use exitpath_analysis::path::without::{RowWithout, Without};

use super::diff::instruction;
use crate::format::plain;
use crate::layout::Text;

/// Instructions named at most that became others outside of what was patched out.
const REPLACED: usize = 10;

/// Each row at each seed: what was to be expected, and what came of it.
pub fn without(without: &Without) -> Text {
    let mut text = Text::new();
    for row in &without.rows {
        of_row(&mut text, row);
    }
    text
}

fn of_row(text: &mut Text, row: &RowWithout) {
    for stub in &row.stubs {
        let _ = writeln!(
            text,
            "{}: {} calls {} × (inclusive {} - stub {}) = {}",
            row.row, stub.name, stub.calls, stub.inclusive, stub.stub_instructions, stub.saved
        );
    }
    let seed = row
        .seed
        .map_or_else(String::new, |seed| format!(" [seed {seed}]"));
    let _ = writeln!(
        text,
        "{}: {} -> {}: saved {}, expected {}, the rest of the path changed by {}{seed}",
        row.row, row.before, row.after, row.saved, row.expected, row.rest
    );
    for (name, change) in &row.others {
        let _ = writeln!(text, "  {} {change:+}", plain(name));
    }
    // What takes as many instructions as before may be others.
    for diff in row.replaced.iter().take(REPLACED) {
        let _ = writeln!(text, "  {}", instruction(diff));
    }
}
