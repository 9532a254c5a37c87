//! A row's optional work, as one JSON object.

use exitpath_analysis::ablation::summary::{Ablation, Floor, Status, rest};
use exitpath_recording::{Environment, KnobKind, Machine, Manifest};
use serde::Serialize;

/// The whole object. Figures are instructions per operation in the lab, nanoseconds on a host.
#[derive(Debug, Serialize)]
struct Ablate<'a> {
    /// The row.
    row: &'a str,
    /// Where it was measured.
    machine: Machine,
    /// `instructions` or `ns`.
    unit: &'static str,
    /// What it was measured on.
    environment: &'a Environment,
    /// Each combination.
    conditions: Vec<Combination<'a>>,
    /// Each knob.
    knobs: Vec<Knob<'a>>,
    /// Knobs that save together something else than each by itself.
    interactions: Vec<Interaction<'a>>,
    /// The largest difference between a value and what effects of one and two knobs make of it.
    unexplained: f64,
    /// What all measured knobs save beyond the sum of their shares.
    rest: Option<f64>,
    /// Whether all combinations were measured, or a fraction of them.
    all_combinations: bool,
    /// What remains.
    floor: Option<FloorFields>,
    /// On a host what is left with all measured knobs off: what the hardware adds, and code that cannot be switched off there.
    remainder: Option<f64>,
    /// The value with all on.
    full: Option<f64>,
    /// And with all measured knobs off.
    all_off: Option<f64>,
    /// What a reader should know.
    warnings: &'a [String],
    /// The recording's folder.
    recording: &'a str,
}

#[derive(Debug, Serialize)]
struct Combination<'a> {
    knobs_off: &'a [String],
    value: Option<f64>,
    ci95: Option<[f64; 2]>,
    /// `clean`, or `void` where there is no value.
    verdict: &'static str,
    /// Why there is none.
    notes: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct Knob<'a> {
    name: &'a str,
    /// `code`: the kernel's code is changed; `cmdline`, `parameter`: it is booted with that; `setting`: a
    /// file of the host's; `vm`: what a VM is made without.
    kind: KnobKind,
    first: Option<f64>,
    last: Option<f64>,
    shapley: Option<f64>,
    ci95: Option<[f64; 2]>,
    predicted: Option<i64>,
    /// `measured`, `required`, `absent` or `left-out`.
    status: &'static str,
    /// What it is, what was changed for it, and why it has no figures.
    notes: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct Interaction<'a> {
    knobs: &'a [String],
    value: f64,
}

#[derive(Debug, Serialize)]
struct FloorFields {
    assembly: u64,
    shortcut: Option<u64>,
}

/// The rows as text: an object for one, an array for several.
pub fn ablations(manifest: &Manifest, ablations: &[Ablation], recording: &str) -> String {
    let objects: Vec<Ablate<'_>> = ablations
        .iter()
        .map(|ablation| object(manifest, ablation, recording))
        .collect();
    match objects.as_slice() {
        [one] => super::render(one),
        several => super::render(&several),
    }
}

fn object<'a>(manifest: &'a Manifest, ablation: &'a Ablation, recording: &'a str) -> Ablate<'a> {
    let pair = |interval: Option<(f64, f64)>| interval.map(|(low, high)| [low, high]);
    let conditions = ablation.combinations.iter().map(|combination| Combination {
        knobs_off: &combination.off,
        value: combination.value,
        ci95: pair(combination.interval),
        verdict: match combination.value {
            Some(_) => "clean",
            None => "void",
        },
        notes: combination.why.iter().map(String::as_str).collect(),
    });
    let knobs = ablation.knobs.iter().map(|knob| {
        let why = match &knob.status {
            Status::Required(why) | Status::LeftOut(why) => Some(why),
            Status::Measured | Status::Absent => None,
        };
        let notes = std::iter::once(&knob.what).chain(&knob.changes).chain(why);
        Knob {
            name: &knob.name,
            kind: knob.kind,
            first: knob.cost.map(|cost| cost.first),
            last: knob.cost.map(|cost| cost.last),
            shapley: knob.cost.map(|cost| cost.shapley),
            ci95: pair(knob.interval),
            predicted: knob.predicted,
            status: crate::words::status(&knob.status),
            notes: notes.map(String::as_str).collect(),
        }
    });
    let interactions = ablation
        .interactions
        .iter()
        .map(|(knobs, value)| Interaction {
            knobs,
            value: *value,
        });
    Ablate {
        row: &ablation.row,
        machine: ablation.machine,
        unit: match ablation.machine {
            Machine::Lab => "instructions",
            Machine::Host => "ns",
        },
        environment: &manifest.environment,
        conditions: conditions.collect(),
        knobs: knobs.collect(),
        interactions: interactions.collect(),
        unexplained: ablation.unexplained,
        rest: rest(ablation),
        all_combinations: ablation.all_combinations,
        floor: ablation
            .floor
            .map(|Floor { assembly, shortcut }| FloorFields { assembly, shortcut }),
        remainder: ablation
            .all_off
            .filter(|_| ablation.machine == Machine::Host),
        full: ablation.full,
        all_off: ablation.all_off,
        warnings: &manifest.warnings,
        recording,
    }
}
