//! Recordings of several conditions: what is said of a row is said of its runs under one of them.

use std::borrow::Cow;
use std::collections::HashSet;

use exitpath_recording::{Recording, Run, Trace};

/// A recording in which every row has runs of one condition only: of those it was measured under, the first.
/// Nothing is left out where each row was.
pub(crate) fn first_of_each_row(recording: &Recording) -> Cow<'_, Recording> {
    let conditions = &recording.manifest.conditions;
    let is_first = |run: &&Run| {
        let of_row = recording.runs.iter().filter(|other| other.row == run.row);
        let place = |name: &str| conditions.iter().position(|known| known.name == name);
        let first = of_row.map(|other| place(&other.condition)).min();
        first == Some(place(&run.condition))
    };
    // Most recordings have one condition.
    if conditions.len() < 2 || recording.runs.iter().all(|run| is_first(&run)) {
        return Cow::Borrowed(recording);
    }
    let runs: Vec<Run> = recording.runs.iter().filter(is_first).cloned().collect();
    let ids: HashSet<u32> = runs.iter().map(|run| run.id).collect();
    let trace = recording.trace.as_ref().map(|trace| Trace {
        windows: trace
            .windows
            .iter()
            .filter(|window| ids.contains(&window.run))
            .cloned()
            .collect(),
        ..trace.clone()
    });
    Cow::Owned(Recording {
        manifest: recording.manifest.clone(),
        runs,
        trace,
    })
}
