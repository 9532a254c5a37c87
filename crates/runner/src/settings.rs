//! What a run is asked for: how much it measures, and where it stands in its recording.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much is measured in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Bracketed samples, unless the row limits itself.
    pub samples: u32,
    /// Iterations before the first sample that counts.
    pub warm_up: u32,
    /// Repetitions of the batch estimator.
    pub batches: u32,
    /// Operations in the shorter batch.
    pub batch_length: u32,
    /// How long a guest may go without finishing an operation.
    pub watchdog: Duration,
    /// CPUs that vCPU threads are bound to, in the order of the vCPUs. Fewer than vCPUs: some
    /// share one, and the run says so. Empty: threads are not bound.
    pub cpus: Vec<usize>,
    /// How a VM differs from the usual one.
    #[serde(default)]
    pub machine: Machine,
    /// Whether a vCPU that waits for another must pause to let it run: true where an emulator
    /// runs one CPU at a time.
    pub yielding: bool,
}

/// How a VM differs from the usual one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// It has no interrupt controllers in the kernel.
    pub without_irqchip: bool,
    /// It has no PMU for the guest.
    pub without_pmu: bool,
    /// Its CPUID has only those leaves that a 64-bit guest cannot do without.
    pub trimmed_cpuid: bool,
    /// HLT, PAUSE and MWAIT do not exit.
    pub without_idle_exits: bool,
    /// Accesses to MSRs go by a filter, which lets all through.
    pub msr_filter: bool,
}

/// Where a run stands in its recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Position in the order the runs were made, from 0.
    pub id: u32,
    /// The block of the randomised order.
    pub block: u32,
    /// The lab's seed.
    pub seed: Option<u64>,
    /// CPUs of the machine.
    pub cpus: u32,
}
