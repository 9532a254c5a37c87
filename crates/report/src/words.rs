//! Words and factors that text and JSON share.

use exitpath_analysis::ablation::summary::Status;
use exitpath_analysis::table::{HandledBy, Verdict};

/// The word for who handled an exit.
pub(crate) fn handled_by(by: HandledBy) -> &'static str {
    match by {
        HandledBy::None => "none",
        HandledBy::Hardware => "hardware",
        HandledBy::Kernel => "kernel",
        HandledBy::Userspace => "userspace",
    }
}

/// The word for a verdict.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Clean => "clean",
        Verdict::Usable => "usable",
        Verdict::Void => "void",
        Verdict::Skipped => "skipped",
    }
}

/// The word for what came of a knob.
pub(crate) fn status(status: &Status) -> &'static str {
    match status {
        Status::Measured => "measured",
        Status::Required(_) => "required",
        Status::Absent => "absent",
        Status::LeftOut(_) => "left-out",
    }
}
