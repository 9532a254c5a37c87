//! The paths of a recording: one of each window of its trace.

use std::collections::HashMap;

use exitpath_recording::Recording;

use super::model::RowPath;
use super::{PathError, PhaseTable, arch, code, row};
use crate::conditions::first_of_each_row;

/// The paths of all windows of a recording's trace, in their order: of each row those of the first condition
/// it was measured under.
///
/// # Errors
///
/// If there is no trace, or it does not hold together: [`PathError`] says what and where.
pub fn trace_rows(recording: &Recording, phases: &PhaseTable) -> Result<Vec<RowPath>, PathError> {
    let recording = first_of_each_row(recording);
    let trace = recording.trace.as_ref().ok_or(PathError::NoTrace)?;
    let arch = &recording.manifest.environment.arch;
    if arch != arch::NAME {
        return Err(PathError::Arch { arch: arch.clone() });
    }
    let code = code::Code::new(trace, phases)?;
    let runs: HashMap<u32, _> = recording.runs.iter().map(|run| (run.id, run)).collect();
    let windows = trace.windows.iter();
    windows
        .map(|window| {
            let run = runs.get(&window.run);
            let run = run.ok_or(PathError::Run { run: window.run })?;
            let mut rows = recording.manifest.rows.iter();
            let delay = rows.find(|row| row.name == run.row);
            let delay = delay.map_or(0, |row| row.delay_ticks);
            row::row(&code, phases, window, run, delay)
        })
        .collect()
}
