//! Recordings in which there is nothing to show.

use crate::kick::{Kicks, Line};
use crate::table::{RowSummary, Verdict};
use crate::userspace::Ladder;

/// Why there is nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nothing {
    /// The recording holds other things.
    NotThere(String),
    /// None of it could be measured; why, of the first.
    Measured(String),
}

fn failed(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Skipped | Verdict::Void)
}

/// Whether a table of exits in which every row failed says nothing. One without rows is only empty.
pub fn of_table(rows: &[RowSummary]) -> Option<Nothing> {
    let nothing = |row: &RowSummary| failed(row.verdict) && row.figures.is_none();
    let first = rows.first().filter(|_| rows.iter().all(nothing))?;
    let why = first.notes.first().map_or("", String::as_str);
    Some(Nothing::Measured(format!(
        "no row could be measured; {}: {why}",
        first.row.name
    )))
}

impl Ladder {
    /// Whether no rung of it could be measured.
    pub fn nothing(&self) -> Option<Nothing> {
        let rungs = self.rungs.iter();
        let rungs = rungs.map(|rung| (rung.summary.verdict, rung.summary.notes.first()));
        let locking = self.locking.iter();
        let locking = locking.map(|row| (row.verdict, row.notes.first()));
        let all: Vec<(Verdict, Option<&String>)> = rungs.chain(locking).collect();
        let Some((_, why)) = all.first() else {
            return Some(Nothing::NotThere("the recording has no rungs".to_owned()));
        };
        let nothing = all.iter().all(|(verdict, _)| failed(*verdict));
        nothing.then(|| {
            let why = why.map_or("the recording is empty", String::as_str);
            Nothing::Measured(format!("no rung could be measured: {why}"))
        })
    }
}

impl Kicks {
    /// Whether nothing of it could be measured.
    pub fn nothing(&self) -> Option<Nothing> {
        let Some(first) = self.lines().next() else {
            return Some(Nothing::NotThere("the recording has no kicks".to_owned()));
        };
        let nothing = |line: &Line| failed(line.summary.verdict) && line.value.is_none();
        self.lines().all(nothing).then(|| {
            let why = first.summary.notes.first();
            Nothing::Measured(format!(
                "nothing could be measured; {}: {}",
                first.summary.row.name,
                why.map_or("the recording is empty", String::as_str)
            ))
        })
    }
}
