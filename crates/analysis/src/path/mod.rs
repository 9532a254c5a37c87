//! The path of an exit: from a recorded stream of instructions to calls, phases and classes.
//!
//! [`trace_rows`] makes a [`RowPath`] of each window of a trace, in two walks. The first goes over
//! the whole window in order, keeps the stack of calls, and sorts rounds into variants
//! (`rounds`, `variants`); the second goes over one round and tells all of it (`tree`, `nodes`,
//! `row`). Both are the same code, `walk`, with another observer. What an instruction is by
//! itself is worked out once for a trace (`code`, of `functions` and [`arch`]).
//!
//! How counts hang together, in instructions per round:
//!
//! ```text
//! begun between the clock reads = bracket + total
//! begun − intercepted           = ticks of the guest's clock + residual
//! total = Σ phases = Σ functions.own = Σ tree.own = Σ instructions.times
//! value = total − baseline − delay
//! ```

pub mod arch;
mod code;
pub mod conditions;
pub mod diff;
mod functions;
pub mod gate;
mod instructions;
pub mod model;
mod nodes;
pub mod parts;
pub mod phases;
mod rounds;
mod row;
mod stack;
mod state;
mod threads;
mod traits;
mod tree;
mod variants;
mod walk;
pub mod without;

use std::collections::HashMap;

use exitpath_recording::Recording;

use crate::conditions::first_of_each_row;

pub use arch::x86_64::classes;
pub use diff::{Incomparable, PathDiff, diff_paths};
pub use model::*;
pub use parts::{Part, Whose, parts};
pub use phases::{PhaseError, PhaseTable};

/// Why there is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No instructions were recorded.
    #[error("the recording has no trace; record one with `exitpath trace ROW`")]
    NoTrace,
    /// Nobody can read its instructions.
    #[error(
        "the recording was made on {arch}, whose instructions this exitpath cannot read: use a newer one"
    )]
    Arch {
        /// The architecture.
        arch: String,
    },
    /// A window belongs to no run.
    #[error("the trace has a window of run {run}, and the recording has no such run")]
    Run {
        /// The run's id.
        run: u32,
    },
    /// Brackets and samples do not pair.
    #[error(
        "run {run} has {samples} samples and its trace {brackets} brackets; the trace is not whole, record it again"
    )]
    Samples {
        /// The run's id.
        run: u32,
        /// Brackets of operations in the trace.
        brackets: usize,
        /// Samples of the run.
        samples: usize,
    },
    /// Exits and their reasons do not pair.
    #[error(
        "run {run} has {exits} exits in a round and reasons for {reasons}; the trace is not whole, record it again"
    )]
    Exits {
        /// The run's id.
        run: u32,
        /// VMRUNs in the round.
        exits: u64,
        /// Reasons in it.
        reasons: usize,
    },
    /// A path has an instruction that the trace has not.
    #[error("path {path} of the trace has instructions that are not in it; record it again")]
    Instruction {
        /// The path's id.
        path: usize,
    },
    /// A window has a path that the trace has not.
    #[error("the trace has no path {path}; record it again")]
    Path {
        /// The path's id.
        path: u32,
    },
    /// No lab has so many CPUs.
    #[error("the trace has {cpus} CPUs, and exitpath can follow 256")]
    Cpus {
        /// How many.
        cpus: usize,
    },
}

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
