//! An exception that a guest took, as what became of its run.

use exitpath_exits::Program;
use exitpath_recording::Outcome;

use crate::arch;

/// What a guest's stub tells of an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) vector: u64,
    pub(crate) code: u64,
    pub(crate) rip: u64,
    pub(crate) cr2: u64,
    /// Operations until then.
    pub(crate) progress: u64,
}

impl Exception {
    /// An operation that never worked is one that the CPU refuses; all else is a fault.
    pub(crate) fn outcome(self, program: &Program) -> Outcome {
        let what = format!(
            "{} (error code {:#x}, CR2 {:#x}) at {}",
            arch::exception(self.vector),
            self.code,
            self.cr2,
            program.place(self.rip)
        );
        let refused = self.progress == 0 && arch::REFUSALS.contains(&self.vector);
        if refused && program.is_in_op(self.rip) {
            Outcome::Skipped {
                reason: format!("the CPU that KVM gives the guest refuses it: {what}"),
            }
        } else {
            Outcome::Fault {
                reason: format!("{what}, after {} operations", self.progress),
            }
        }
    }
}
