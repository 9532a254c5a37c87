//! Recordings of several conditions: what is said of a row is said of its runs under one of them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use exitpath_recording::{Recording, Run, Trace};

/// A recording in which every row has runs of one condition only: of those it was measured under, the first.
/// Nothing is left out where each row was.
pub(crate) fn first_of_each_row(recording: &Recording) -> Cow<'_, Recording> {
    let conditions = &recording.manifest.conditions;
    // Most recordings have one condition.
    if conditions.len() < 2 {
        return Cow::Borrowed(recording);
    }
    let places: HashMap<&str, usize> = conditions
        .iter()
        .enumerate()
        .map(|(place, condition)| (condition.name.as_str(), place))
        .collect();
    let place = |run: &Run| places.get(run.condition.as_str()).copied();
    let mut firsts: HashMap<&str, Option<usize>> = HashMap::new();
    for run in &recording.runs {
        let first = firsts.entry(run.row.as_str()).or_insert(place(run));
        *first = place(run).min(*first);
    }
    let is_first = |run: &&Run| firsts.get(run.row.as_str()) == Some(&place(run));
    if recording.runs.iter().all(|run| is_first(&run)) {
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
