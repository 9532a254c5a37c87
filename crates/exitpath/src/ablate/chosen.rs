//! The knobs that a user asks for in the lab.

use std::collections::BTreeSet;

use exitpath_analysis::ablation::knobs::Knob;
use exitpath_analysis::ablation::table::built_in;
use exitpath_cli::Ablate;
use exitpath_experiment::knobs::{SwitchKnob, find};
use exitpath_recording::{Difference, KnobKind};

use crate::failure::Failure;

/// Most knobs that need labs of their own: of four there are sixteen kinds.
const MOST_LABS: usize = 4;

/// The knobs that are asked for: those in the kernel's code, and those for which a lab of its own is needed.
pub(super) struct Chosen {
    pub(super) knobs: Vec<Knob>,
    pub(super) labs: Vec<LabKnob>,
}

/// A knob for which a lab of its own is needed, with it on or off.
pub(super) enum LabKnob {
    /// What is appended to the kernel's command line.
    Boot(String),
    /// What is switched inside.
    Switch(&'static SwitchKnob),
}

impl LabKnob {
    pub(super) fn name(&self) -> &str {
        match self {
            LabKnob::Boot(text) => text,
            LabKnob::Switch(knob) => knob.name,
        }
    }

    /// How it is told that the lab is booted with it.
    pub(super) fn booted_with(text: &str) -> Difference {
        let name = text.split('=').next().unwrap_or(text);
        Difference::Off {
            knob: text.to_owned(),
            kind: match name.contains('.') {
                true => KnobKind::Parameter,
                false => KnobKind::Cmdline,
            },
            changes: vec![format!("booted with {text}")],
        }
    }
}

pub(super) fn choose(args: &Ablate) -> Result<Chosen, Failure> {
    let known = built_in();
    let mut labs: Vec<LabKnob> = args.boot.iter().cloned().map(LabKnob::Boot).collect();
    let mut knobs = Vec::new();
    for name in &args.knob {
        let of_code = known.iter().find(|knob| knob.name == *name);
        match (of_code, find(name)) {
            (Some(knob), _) => knobs.push(knob.clone()),
            (None, Some(knob)) => labs.push(LabKnob::Switch(knob)),
            (None, None) => {
                return Err(Failure::usage(format!(
                    "there is no knob '{name}': `exitpath ablate --list-knobs` names them"
                )));
            }
        }
    }
    if args.knob.is_empty() && args.function.is_empty() && args.boot.is_empty() {
        knobs = known;
    }
    for text in &args.function {
        knobs.push(Knob::parse(text).map_err(Failure::usage)?);
    }
    let mut seen = BTreeSet::new();
    knobs.retain(|knob| seen.insert(knob.name.clone()));
    labs.retain(|knob| seen.insert(knob.name().to_owned()));
    if labs.len() > MOST_LABS {
        return Err(Failure::usage(format!(
            "{} of these knobs need a lab of their own, with each on and off: {} kinds of labs; {MOST_LABS} at most",
            labs.len(),
            1 << labs.len()
        )));
    }
    Ok(Chosen { knobs, labs })
}
