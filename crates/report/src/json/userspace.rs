//! The ladder as one JSON object.

use std::collections::BTreeMap;

use exitpath_analysis::compare::Answer;
use exitpath_analysis::userspace::{Estimate, Ladder};
use exitpath_recording::{Environment, Machine, Manifest};
use serde::Serialize;

use super::{render, verdict};

/// The whole object. Figures are nanoseconds on a host and instructions in the lab; null where
/// there is none.
#[derive(Debug, Serialize)]
pub struct Userspace<'a> {
    /// `host` or `lab`.
    pub machine: Machine,
    /// `ns` or `instructions`.
    pub unit: &'static str,
    /// What it was measured on.
    pub environment: &'a Environment,
    /// One object per rung.
    pub rungs: Vec<RungObject<'a>>,
    /// The value without layers.
    pub bare: Option<f64>,
    /// The value with all layers.
    pub all_on: Option<f64>,
    /// The sum of what the layers of `all_on` cost one by one.
    pub sum_of_deltas: Option<f64>,
    /// `all_on - bare - sum_of_deltas`.
    pub interaction: Option<f64>,
    /// Its 95 % interval over blocks; null in the lab.
    pub interaction_ci95: Option<[f64; 2]>,
    /// In the lab, the functions it is in.
    pub interaction_functions: Vec<Change<'a>>,
    /// In the lab, what of the interaction the functions do not explain.
    pub interaction_unexplained: Option<i64>,
    /// How far to trust the sum: no further than any rung of it.
    pub sum_verdict: Option<&'static str>,
    /// One object per number of vCPUs and lock.
    pub locking: Vec<LockingObject<'a>>,
    /// What `exits_per_unit` counts by: `second`, or `10^9 instructions`.
    pub exits_per: &'static str,
    /// Warnings with advice.
    pub warnings: &'a [String],
    /// The recording's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
}

/// A rung.
#[derive(Debug, Serialize)]
pub struct RungObject<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub operation: &'a str,
    /// What the VMM does beyond what it must.
    pub layers: &'a [String],
    /// The rung it is compared with.
    pub reference: Option<&'a str>,
    /// On a host the mean over runs, in the lab the value.
    pub value: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub value_ci95: Option<[f64; 2]>,
    /// The difference to the reference.
    pub delta: Option<f64>,
    /// Its 95 % interval over blocks; null in the lab.
    pub ci95: Option<[f64; 2]>,
    /// In the lab the difference at each seed, where they are not all the same.
    pub delta_by_seed: Vec<SeedDelta>,
    /// Runs, or seeds.
    pub n: usize,
    /// Whether there is a difference: `different`, `same` or `undecided`; null where there is no `delta`.
    pub delta_answer: Option<&'static str>,
    /// The largest difference that would not matter: on a host 1 % of the reference, in the lab 0.
    pub delta_margin: Option<f64>,
    /// p of the permutation test against no difference; null in the lab.
    pub delta_p: Option<f64>,
    /// Blocks to measure more before asking again, where it is undecided.
    pub delta_needs_blocks: Option<usize>,
    /// Blocks, or seeds, that have the reference as well.
    pub delta_n: usize,
    /// Counters per operation, by KVM's names.
    pub witness: &'a BTreeMap<String, f64>,
    /// In the lab, whose instructions they are.
    pub share: Option<ShareObject>,
    /// In the lab, the functions that the difference is in.
    pub functions: Vec<Change<'a>>,
    /// In the lab, what of the difference the functions do not explain.
    pub unexplained: Option<i64>,
    /// In the lab, by how much the guest's clock went on while the lab's CPU was halted, in which no
    /// instruction ran; of `value`, and most of `unexplained`.
    pub idle: Option<u64>,
    /// CPUs of the machine it was measured on.
    pub cpus: u32,
    /// `clean`, `usable`, `void` or `skipped`.
    pub verdict: &'static str,
    /// The same of the difference: the worse of the two rungs'.
    pub delta_verdict: &'static str,
    /// What a reader should know.
    pub notes: &'a [String],
}

/// A difference at a seed.
#[derive(Debug, Serialize)]
pub struct SeedDelta {
    /// The lab's seed.
    pub seed: u64,
    /// Instructions.
    pub delta: f64,
}

/// Whose instructions a round consists of.
#[derive(Debug, Serialize)]
pub struct ShareObject {
    /// The guest's.
    pub guest: u64,
    /// The kernel's.
    pub kernel: u64,
    /// libc's.
    pub libc: u64,
    /// The VMM's own.
    pub vmm: u64,
}

/// A function whose own instructions differ.
#[derive(Debug, Serialize)]
pub struct Change<'a> {
    /// Its name.
    pub name: &'a str,
    /// By how many instructions.
    pub delta: i64,
}

/// Several vCPUs at once.
#[derive(Debug, Serialize)]
pub struct LockingObject<'a> {
    /// How many.
    pub vcpus: u32,
    /// `none`, `global` or `device`.
    pub lock: &'a str,
    /// The first vCPU's exits.
    pub per_exit: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub per_exit_ci95: Option<[f64; 2]>,
    /// Exits of all vCPUs.
    pub exits_per_unit: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub exits_per_unit_ci95: Option<[f64; 2]>,
    /// Those over one vCPU's under the same lock.
    pub to_one_vcpu: Option<f64>,
    /// Its 95 % interval over blocks; null in the lab.
    pub to_one_vcpu_ci95: Option<[f64; 2]>,
    /// Runs, or seeds.
    pub n: usize,
    /// `clean`, `usable`, `void` or `skipped`.
    pub verdict: &'static str,
    /// What a reader should know.
    pub notes: &'a [String],
}

fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Different => "different",
        Answer::Same => "same",
        Answer::Undecided { .. } => "undecided",
    }
}

/// The ladder of a recording.
pub fn userspace<'a>(
    manifest: &'a Manifest,
    ladder: &'a Ladder,
    recording: Option<String>,
) -> Userspace<'a> {
    let host = manifest.machine == Machine::Host;
    let factor = if host {
        manifest.environment.nanoseconds_per_tick()
    } else {
        Some(1.0)
    };
    let value = |estimate: Option<Estimate>| Some(estimate?.value * factor?);
    let interval = |estimate: Option<Estimate>| {
        let ((lo, hi), factor) = (estimate?.ci95?, factor?);
        Some([lo * factor, hi * factor])
    };
    let sum = ladder.sum.as_ref();
    Userspace {
        machine: manifest.machine,
        unit: if host { "ns" } else { "instructions" },
        environment: &manifest.environment,
        rungs: ladder
            .rungs
            .iter()
            .map(|rung| RungObject {
                name: &rung.summary.row.name,
                operation: &rung.summary.row.operation,
                layers: &rung.info.layers,
                reference: rung.info.reference.as_deref(),
                value: value(rung.value),
                value_ci95: interval(rung.value),
                delta: value(rung.delta),
                ci95: interval(rung.delta),
                delta_by_seed: rung
                    .delta_by_seed
                    .iter()
                    .map(|&(seed, delta)| SeedDelta { seed, delta })
                    .collect(),
                n: rung.value.map_or(0, |value| value.n),
                delta_answer: rung.answer.map(|told| answer(told.answer)),
                delta_margin: rung.answer.and_then(|told| Some(told.margin * factor?)),
                delta_p: rung.answer.and_then(|told| told.p),
                delta_needs_blocks: rung.answer.and_then(|told| match told.answer {
                    Answer::Undecided { needs_blocks } => Some(needs_blocks),
                    Answer::Same | Answer::Different => None,
                }),
                delta_n: rung.delta.map_or(0, |delta| delta.n),
                witness: &rung.witness,
                share: rung.explained.as_ref().map(|explained| ShareObject {
                    guest: explained.share.guest,
                    kernel: explained.share.kernel,
                    libc: explained.share.libc,
                    vmm: explained.share.vmm,
                }),
                functions: rung
                    .explained
                    .as_ref()
                    .map_or_else(Vec::new, |explained| changes(&explained.functions)),
                unexplained: rung
                    .explained
                    .as_ref()
                    .map(|explained| explained.unexplained),
                idle: rung.explained.as_ref().map(|explained| explained.idle),
                cpus: rung.summary.cpus,
                verdict: verdict(rung.summary.verdict),
                delta_verdict: verdict(rung.delta_verdict),
                notes: &rung.summary.notes,
            })
            .collect(),
        bare: value(sum.map(|sum| sum.bare)),
        all_on: value(sum.map(|sum| sum.all_on)),
        sum_of_deltas: value(sum.map(|sum| sum.sum_of_deltas)),
        interaction: value(sum.map(|sum| sum.interaction)),
        interaction_ci95: interval(sum.map(|sum| sum.interaction)),
        interaction_functions: sum.map_or_else(Vec::new, |sum| changes(&sum.functions)),
        interaction_unexplained: sum.and_then(|sum| sum.unexplained),
        sum_verdict: sum.map(|sum| verdict(sum.verdict)),
        locking: ladder
            .locking
            .iter()
            .map(|row| LockingObject {
                vcpus: row.vcpus,
                lock: &row.lock,
                per_exit: value(row.per_exit),
                per_exit_ci95: interval(row.per_exit),
                exits_per_unit: row.exits_per_second.map(|rate| rate.value),
                exits_per_unit_ci95: row
                    .exits_per_second
                    .and_then(|rate| rate.ci95)
                    .map(|(lo, hi)| [lo, hi]),
                to_one_vcpu: row.to_one.map(|ratio| ratio.value),
                to_one_vcpu_ci95: row
                    .to_one
                    .and_then(|ratio| ratio.ci95)
                    .map(<[f64; 2]>::from),
                n: row.per_exit.map_or(0, |value| value.n),
                verdict: verdict(row.verdict),
                notes: &row.notes,
            })
            .collect(),
        exits_per: if host { "second" } else { "10^9 instructions" },
        warnings: &manifest.warnings,
        recording,
    }
}

fn changes(functions: &[(String, i64)]) -> Vec<Change<'_>> {
    let changes = functions.iter();
    changes
        .map(|(name, delta)| Change {
            name,
            delta: *delta,
        })
        .collect()
}

impl Userspace<'_> {
    /// The object as text, one line per field.
    pub fn render(&self) -> String {
        render(self)
    }
}
