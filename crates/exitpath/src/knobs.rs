//! What `ablate` and those who show its recordings have in common.

use exitpath_analysis::ablation::knobs::Knob;
use exitpath_experiment::knobs::SWITCH_KNOBS;

/// The condition in which nothing is off, measured as all others are.
const ALL_ON: &str = "all on";

/// Knobs that a recording may have beside those of the kernel's code and those that take a boot.
pub(crate) fn further() -> Vec<Knob> {
    let knobs = SWITCH_KNOBS.iter();
    knobs
        .map(|knob| Knob {
            name: knob.name.to_owned(),
            what: knob.what.to_owned(),
            places: Vec::new(),
        })
        .collect()
}

/// The condition in which these are off, of code and others.
pub(crate) fn condition_name(off: &[&str]) -> String {
    match off {
        [] => ALL_ON.to_owned(),
        names => format!("without {}", names.join(", ")),
    }
}
