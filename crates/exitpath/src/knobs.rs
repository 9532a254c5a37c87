//! What `ablate` and those who show its recordings have in common.

use exitpath_analysis::ablation::knobs::Knob;
use exitpath_experiment::host::knobs::{HOST_KNOBS, HostKnob};
use exitpath_recording::Machine;

/// The condition in which nothing is off, measured as all others are.
pub(crate) const ALL_ON: &str = "all on";

/// Knobs that a recording of this machine may have beside those of the kernel's code.
pub(crate) fn further(machine: Machine) -> Vec<Knob> {
    let knob = |knob: &HostKnob| Knob {
        name: knob.name.to_owned(),
        what: knob.what.to_owned(),
        places: Vec::new(),
    };
    match machine {
        Machine::Host => HOST_KNOBS.iter().map(knob).collect(),
        Machine::Lab => Vec::new(),
    }
}
