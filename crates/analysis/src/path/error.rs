//! Why there is no path.

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
