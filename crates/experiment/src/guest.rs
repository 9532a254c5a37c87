//! What this machine's KVM is: a calibration guest's word, and what the doctor makes of the machine with it.

use exitpath_host::{Examination, GuestCheck, GuestOutcome, Root};
use exitpath_runner::calibrate;
use exitpath_vmm::{Error, Kvm};

/// Exits of one RDTSC above which it is said to exit.
const EXITS: f64 = 0.5;

/// Looks at the machine, knowing what the calibration guest said.
pub fn examine(guest: GuestOutcome) -> Examination {
    exitpath_host::examine(&Root::default(), Some(&GuestCheck { outcome: guest }))
}

/// What the calibration guest says of this machine's KVM.
pub fn check() -> GuestOutcome {
    let failed = |reason: String| GuestOutcome::Failed { reason };
    let kvm = match Kvm::open() {
        Ok(kvm) => kvm,
        Err(Error::NoDevice) => return GuestOutcome::NoDevice,
        Err(Error::NoPermission) => return GuestOutcome::NoPermission,
        Err(error) => return failed(error.to_string()),
    };
    let found = match calibrate(&kvm) {
        Ok(found) => found,
        Err(error) => return failed(error.to_string()),
    };
    let tsc_khz = found.tsc_khz.unwrap_or(0);
    let ticks_per_iteration = found.ticks_per_nop;
    if found.interpreted() {
        return GuestOutcome::Interpreted {
            ticks_per_iteration,
            tsc_khz,
        };
    }
    GuestOutcome::OnCpu {
        ticks_per_iteration,
        tsc_khz,
        rdtsc_exits: found.exits_per_rdtsc.map(|exits| exits > EXITS),
    }
}
