//! An exception that a guest took, as what became of its run.

use exitpath_exits::Program;
use exitpath_recording::Outcome;

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
            name(self.vector),
            self.code,
            self.cr2,
            program.place(self.rip)
        );
        let refused = self.progress == 0 && matches!(self.vector, 6 | 13);
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

/// Names of the exceptions (Intel SDM vol. 3, table 6-1).
fn name(vector: u64) -> String {
    let name = match vector {
        0 => "#DE",
        1 => "#DB",
        3 => "#BP",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        19 => "#XM",
        _ => return format!("interrupt or exception {vector}"),
    };
    name.to_owned()
}
