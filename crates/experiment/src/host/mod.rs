//! This machine's KVM: each run is a fresh VM of exitpath's own, or a fresh process of another VMM.

mod environment;
mod foreign;
pub mod journal;
pub mod own;
mod place;

pub(crate) use foreign::add_vmm;

use exitpath_host::GuestOutcome;
use exitpath_recording::Recording;

use crate::control::Control;
use crate::error::Result;
use crate::plan::Plan;
use crate::vmm::Vmm;

/// What a host is asked for besides the plan.
pub struct Host<'a> {
    /// What a calibration guest said of its KVM.
    pub guest: GuestOutcome,
    /// Fresh VMs for each row.
    pub runs: u32,
    /// The VMM to measure under; `None`: exitpath's own.
    pub vmm: Option<&'a Vmm>,
}

/// Measures on this machine.
///
/// # Errors
/// Where KVM or the VMM refuses what every row needs, or the user interrupts. What goes wrong with one row
/// is its run's outcome.
pub fn record(plan: &Plan, host: &Host<'_>, control: &Control) -> Result<Recording> {
    match host.vmm {
        Some(vmm) => foreign::record(plan, &host.guest, host.runs, vmm, control),
        None => {
            let base = [own::Switched::base()];
            own::record(plan, &host.guest, host.runs, &base, control)
        }
    }
}
