//! What patching functions out should save of each row, and what it saved.

use exitpath_analysis::path::without::{RowWithout, Without};

use crate::changes::instruction;
use crate::document::Document;
use crate::format::plain;

/// Instructions named at most that became others outside of what was patched out.
const REPLACED: usize = 10;

/// Each row at each seed: what was to be expected, and what came of it.
pub fn without(without: &Without) -> Document {
    let mut text = Document::new();
    for row in &without.rows {
        of_row(&mut text, row);
    }
    text
}

fn of_row(text: &mut Document, row: &RowWithout) {
    for stub in &row.stubs {
        text.lines(&format!(
            "{}: {} calls {} × (inclusive {} - stub {}) = {}\n",
            row.row, stub.name, stub.calls, stub.inclusive, stub.stub_instructions, stub.saved
        ));
    }
    let seed = row
        .seed
        .map_or_else(String::new, |seed| format!(" [seed {seed}]"));
    text.lines(&format!(
        "{}: {} -> {}: saved {}, expected {}, the rest of the path changed by {}{seed}\n",
        row.row, row.before, row.after, row.saved, row.expected, row.rest
    ));
    for (name, change) in &row.others {
        text.lines(&format!("  {} {change:+}\n", plain(name)));
    }
    // What takes as many instructions as before may be others.
    for diff in row.replaced.iter().take(REPLACED) {
        text.lines(&format!("  {}\n", instruction(diff)));
    }
}
