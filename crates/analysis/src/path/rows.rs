//! The paths of a recording: one of each window of its trace.

use std::collections::HashMap;

use exitpath_recording::{Recording, Run, Trace};

use super::code::Code;
use super::model::RowPath;
use super::{PathError, PhaseTable, arch, row};
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
    let conditions = &recording.manifest.conditions;
    if conditions.len() < 2 {
        return rows(&recording, trace, phases);
    }
    // What an address is called is another thing under another condition.
    let mut of_conditions = HashMap::new();
    for condition in conditions {
        let under = recording.under(&condition.name);
        if let Some((under, trace)) = under.as_ref().and_then(|u| Some((u, u.trace.as_ref()?))) {
            of_conditions.insert(&condition.name, rows(under, trace, phases)?.into_iter());
        }
    }
    let runs: HashMap<u32, &Run> = recording.runs.iter().map(|run| (run.id, run)).collect();
    let windows = trace.windows.iter();
    let of_window = windows.map(|window| {
        let run = runs.get(&window.run);
        let of_condition = run.and_then(|run| of_conditions.get_mut(&run.condition));
        let row = of_condition.and_then(Iterator::next);
        row.ok_or(PathError::Run { run: window.run })
    });
    of_window.collect()
}

/// The paths of a recording of one condition.
fn rows(
    recording: &Recording,
    trace: &Trace,
    phases: &PhaseTable,
) -> Result<Vec<RowPath>, PathError> {
    let code = Code::new(trace, phases)?;
    let has = recording.manifest.environment.cpu_supplied();
    let runs: HashMap<u32, _> = recording.runs.iter().map(|run| (run.id, run)).collect();
    let windows = trace.windows.iter();
    windows
        .map(|window| {
            let run = runs.get(&window.run);
            let run = run.ok_or(PathError::Run { run: window.run })?;
            let mut rows = recording.manifest.rows.iter();
            let delay = rows.find(|row| row.name == run.row);
            let delay = delay.map_or(0, |row| row.delay_ticks);
            let mut row = row::row(&code, phases, window, run, delay)?;
            // What the emulator does for a CPU that has these is what it does for every CPU.
            row.artefacts
                .retain(|artefact| !has.contains(&artefact.lacks));
            Ok(row)
        })
        .collect()
}
