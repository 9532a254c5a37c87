//! What is to be measured, as plain data.

use std::time::Duration;

use exitpath_exits::Row;
use exitpath_recording as recording;
use exitpath_runner::Settings;

/// Repetitions of the batch estimator in a run.
const BATCHES: u32 = 8;
/// Operations in its shorter batch.
const BATCH_LENGTH: u32 = 16;
/// Iterations before the first sample that counts.
const WARM_UP: u32 = 64;
/// Iterations before the first round that is recorded.
pub const TRACED_WARM_UP: u32 = WARM_UP;

/// How much of a row one run measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Bracketed samples, unless a row limits itself.
    pub samples: u32,
    /// Iterations before the first sample that counts.
    pub warm_up: u32,
    /// Repetitions of the batch estimator.
    pub batches: u32,
    /// Operations in its shorter batch.
    pub batch_length: u32,
    /// How long a guest may go without progress.
    pub watchdog: Duration,
}

impl Sampling {
    /// So many samples, and batches for the second estimator.
    pub fn measured(samples: u32, watchdog: Duration) -> Sampling {
        Sampling {
            samples,
            warm_up: WARM_UP,
            batches: BATCHES,
            batch_length: BATCH_LENGTH,
            watchdog,
        }
    }

    /// So many rounds that are recorded to the instruction: no second estimator is needed.
    pub fn traced(rounds: u32, watchdog: Duration) -> Sampling {
        Sampling {
            warm_up: TRACED_WARM_UP,
            batches: 0,
            batch_length: 0,
            ..Sampling::measured(rounds, watchdog)
        }
    }

    /// For vCPUs bound to these CPUs.
    pub(crate) fn settings(&self, cpus: Vec<usize>, yielding: bool) -> Settings {
        Settings {
            samples: self.samples,
            warm_up: self.warm_up,
            batches: self.batches,
            batch_length: self.batch_length,
            watchdog: self.watchdog,
            cpus,
            machine: Default::default(),
            yielding,
        }
    }
}

/// What is to be measured, whatever measures it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The command that wants it.
    pub command: &'static str,
    /// The rows, each once.
    pub rows: Vec<&'static Row>,
    /// How much of each.
    pub sampling: Sampling,
    /// Seed of the random order of rows and runs.
    pub order_seed: u64,
    /// Whether each row is a condition of its own, told from the others by what the VMM does on each exit:
    /// the ladder's rungs.
    pub by_layers: bool,
}

impl Plan {
    /// As a recording keeps it, with so many runs of each row.
    pub(crate) fn kept(&self, runs: u32) -> recording::Plan {
        recording::Plan {
            runs,
            samples: self.sampling.samples,
            batches: self.sampling.batches,
            batch_length: self.sampling.batch_length,
            order_seed: self.order_seed,
        }
    }
}
