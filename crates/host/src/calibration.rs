//! What the calibration guest said. Somebody else runs it; here it is data.

use serde::Serialize;

/// The result of the calibration guest: a few guest instructions in a loop, timed, under a
/// watchdog. Made by another crate; here it is data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuestCheck {
    /// How it ended.
    pub outcome: GuestOutcome,
}

/// How the calibration guest ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum GuestOutcome {
    /// There is no `/dev/kvm`, or nothing behind it.
    NoDevice,
    /// This user may not open `/dev/kvm`.
    NoPermission,
    /// The guest could not be built, did not run or did not end.
    Failed {
        /// What went wrong, one line.
        reason: String,
    },
    /// The guest's instructions run on the CPU itself.
    OnCpu {
        /// TSC ticks for one iteration of the calibration loop.
        ticks_per_iteration: f64,
        /// TSC ticks per millisecond, as KVM tells the guest.
        tsc_khz: u64,
        /// Whether reading the TSC in the guest makes an exit; `None` if that was not found out.
        rdtsc_exits: Option<bool>,
    },
    /// The guest's instructions are emulated one by one.
    Interpreted {
        /// TSC ticks for one iteration of the calibration loop.
        ticks_per_iteration: f64,
        /// TSC ticks per millisecond, as KVM tells the guest.
        tsc_khz: u64,
    },
}
