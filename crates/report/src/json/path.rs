//! A traced path as one JSON object.

use std::collections::BTreeMap;

use exitpath_analysis::path as model;
use exitpath_recording::{Condition, Environment, Exit, Machine, Manifest, Space};
use serde::Serialize;

use crate::reasons;

/// The whole object. Figures are instructions of one round, unless they say otherwise; those
/// called `without_skip_emulation` leave out what KVM does only because the lab's CPU lacks NRIPS.
#[derive(Debug, Serialize)]
pub struct Path<'a> {
    /// The row's name.
    pub row: &'a str,
    /// What one operation is; null if the recording does not say.
    pub operation: Option<&'a str>,
    /// Always `lab`.
    pub machine: Machine,
    /// Always `instructions`.
    pub unit: &'static str,
    /// Rounds recorded.
    pub rounds: usize,
    /// The lab's seed.
    pub seed: Option<u64>,
    /// CPUs of the lab.
    pub cpus: u32,
    /// What it was traced on.
    pub environment: &'a Environment,
    /// The condition that it was measured under, as the manifest has it; of a recording that has several the one shown.
    pub conditions: &'a [Condition],
    /// Of the most frequent path, as is all below but for `variants`: the row's value, without what the row
    /// subtracts. With `baseline` and `delay` it is the sum over `phases`, and over the `self` of
    /// `functions`.
    pub total: u64,
    /// What was executed: `total`, `baseline` and `delay`; the sum over `phases`.
    pub executed: u64,
    /// Of what was executed, what surrounds the operation and is measured by itself.
    pub baseline: u64,
    /// `baseline` without skip-emulation.
    pub baseline_without_skip_emulation: u64,
    /// Of what was executed, the row's own delay, in which the guest waits.
    pub delay: u64,
    /// The part of it that the guest's clock has.
    pub guest_timed: u64,
    /// The part of it that was begun and not completed: the guest's clock does not have it.
    pub intercepted: u64,
    /// `total` less `guest_timed` and `intercepted`: what is not explained.
    pub residual: i64,
    /// Rounds whose own residual is not 0.
    pub rounds_with_residual: usize,
    /// Rounds in whose bracket without the operation something is not explained.
    pub rounds_with_empty_residual: usize,
    /// `total` without skip-emulation.
    pub total_without_skip_emulation: u64,
    /// VMRUNs in the round.
    pub exits: u64,
    /// Why the guest exited, in the order of the round; null where that is not known.
    pub exit_reasons: Option<Vec<ExitReason>>,
    /// Why that is not known, where the recording says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_reasons_unknown: Option<String>,
    /// By purpose.
    pub phases: Vec<Phase<'a>>,
    /// By whose code it is, in the order of a round; those without any are left out.
    pub parts: Vec<Part>,
    /// By function, most of its own first.
    pub functions: Vec<Function<'a>>,
    /// Whose turn it was, of several CPUs, in the order of the round; none where it is one CPU's alone.
    pub turns: Vec<Turn>,
    /// By class.
    pub classes: Vec<Class<'a>>,
    /// Groups of rounds that took the same functions in the same order and exited for the same reasons,
    /// most frequent first.
    pub variants: Vec<Variant<'a>>,
    /// What exists only because the CPU is emulated.
    pub emulated_cpu_artefacts: Vec<Artefact<'a>>,
    /// What a reader should know.
    pub warnings: &'a [String],
    /// The VMM it was traced under, where that is not exitpath's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmm: Option<String>,
    /// The same row under exitpath's own VMM in the same lab, where it was traced beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_vmm: Option<Beside>,
    /// The recording's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
}

/// An exit of the guest.
#[derive(Debug, Serialize)]
pub struct ExitReason {
    /// As the kernel's tracepoints name it; the code in hexadecimal where they have no name.
    pub reason: String,
    /// SVM's EXITCODE.
    pub code: u64,
    /// EXITINFO1.
    pub info1: u64,
    /// EXITINFO2.
    pub info2: u64,
}

fn exit_reasons(exits: Option<&[Exit]>) -> Option<Vec<ExitReason>> {
    let told = exits?.iter().map(|exit| ExitReason {
        reason: reasons::word(exit),
        code: exit.code,
        info1: exit.info1,
        info2: exit.info2,
    });
    Some(told.collect())
}

/// Instructions of one owner.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Whose they are.
    pub name: &'static str,
    /// How many.
    pub instructions: u64,
    /// Of these, not skip-emulation.
    pub without_skip_emulation: u64,
}

/// A row under another VMM.
#[derive(Debug, Serialize)]
pub struct Beside {
    /// Of its most frequent path.
    pub total: u64,
    /// Of it, what is not explained.
    pub residual: i64,
    /// By whose code it is.
    pub parts: Vec<Part>,
}

/// Instructions of one purpose.
#[derive(Debug, Serialize)]
pub struct Phase<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many.
    pub instructions: u64,
    /// Of these, not skip-emulation.
    pub without_skip_emulation: u64,
}

/// A function.
#[derive(Debug, Serialize)]
pub struct Function<'a> {
    /// Its symbol, or `0x…`.
    pub name: &'a str,
    /// `vmlinux`, a module, a program or library, `guest`, or empty.
    pub module: &'a str,
    /// `guest`, `user` or `kernel`.
    pub space: Space,
    /// The phase that most of its own instructions count for.
    pub phase: &'a str,
    #[serde(flatten)]
    figures: Figures,
    /// The same without skip-emulation.
    without_skip_emulation: Figures,
}

#[derive(Debug, Serialize)]
struct Figures {
    /// Instructions of its own.
    #[serde(rename = "self")]
    own: u64,
    /// With everything it calls.
    total: u64,
    /// Times entered.
    calls: u64,
}

/// Instructions of one class.
#[derive(Debug, Serialize)]
pub struct Class<'a> {
    /// Its name.
    pub class: &'a str,
    /// How many.
    pub count: u64,
    /// Of these, not skip-emulation.
    pub without_skip_emulation: u64,
    /// How many by phase.
    pub phases: BTreeMap<&'a str, u64>,
    /// How many by function, most first.
    pub functions: Vec<Share<'a>>,
}

/// A function's part.
#[derive(Debug, Serialize)]
pub struct Share<'a> {
    /// The function.
    pub name: &'a str,
    /// Its part.
    pub count: u64,
}

/// Rounds that took the same functions in the same order and exited for the same reasons.
#[derive(Debug, Serialize)]
pub struct Variant<'a> {
    /// How many rounds.
    pub rounds: usize,
    /// Instructions of the most frequent path among them.
    pub total: u64,
    /// Smallest and largest number of instructions among them.
    pub range: [u64; 2],
    /// What it has and the most frequent variant has not; empty for that one.
    pub differs_by: &'a str,
    /// Why the guest exited in its most frequent path; null where that is not known.
    pub exit_reasons: Option<Vec<ExitReason>>,
}

/// Work that exists only because the CPU is emulated.
#[derive(Debug, Serialize)]
pub struct Artefact<'a> {
    /// What it is.
    pub what: &'a str,
    /// How many.
    pub instructions: u64,
}

/// A traced path.
pub fn path<'a>(
    manifest: &'a Manifest,
    path: &'a model::RowPath,
    recording: Option<String>,
) -> Path<'a> {
    let info = manifest.rows.iter().find(|row| row.name == path.row);
    Path {
        row: &path.row,
        operation: info.map(|row| row.operation.as_str()),
        machine: manifest.machine,
        unit: "instructions",
        rounds: path.rounds,
        seed: path.seed,
        cpus: path.cpus,
        environment: &manifest.environment,
        conditions: &manifest.conditions,
        total: path.value().all,
        executed: path.total.all,
        baseline: path.baseline.all,
        baseline_without_skip_emulation: path.baseline.lean,
        delay: path.delay,
        guest_timed: path.guest_timed,
        intercepted: path.intercepted,
        residual: path.residual,
        rounds_with_residual: path.rounds_with_residual,
        rounds_with_empty_residual: path.rounds_with_empty_residual,
        total_without_skip_emulation: path.value().lean,
        exits: path.exits,
        exit_reasons: exit_reasons(path.exit_reasons.as_deref()),
        exit_reasons_unknown: reasons::unread(manifest),
        phases: path.phases.iter().map(Phase::from).collect(),
        parts: parts(path),
        functions: path.functions.iter().map(Function::from).collect(),
        turns: turns(path),
        classes: path.classes.iter().map(Class::from).collect(),
        variants: path.variants.iter().map(Variant::from).collect(),
        emulated_cpu_artefacts: path.artefacts.iter().map(Artefact::from).collect(),
        warnings: &manifest.warnings,
        vmm: None,
        own_vmm: None,
        recording,
    }
}

/// Instructions that a CPU executes before another one's turn.
#[derive(Debug, Serialize)]
pub struct Turn {
    /// The CPU.
    pub cpu: u32,
    /// Instructions of the round before it.
    pub begin: u64,
    /// Instructions in it.
    pub instructions: u64,
    /// Of these, the guest's.
    pub guest: u64,
    /// The function that the first one is in.
    pub first: String,
    /// The function that the last one is in.
    pub last: String,
}

fn turns(path: &model::RowPath) -> Vec<Turn> {
    let turns = model::turns(path).into_iter();
    turns
        .map(|turn| Turn {
            cpu: turn.cpu,
            begin: turn.begin,
            instructions: turn.instructions,
            guest: turn.guest,
            first: turn.first,
            last: turn.last,
        })
        .collect()
}

fn parts(path: &model::RowPath) -> Vec<Part> {
    let parts = model::parts(path).into_iter();
    let some = parts.filter(|part| part.instructions.all > 0);
    some.map(|part| Part {
        name: part.whose.name(),
        instructions: part.instructions.all,
        without_skip_emulation: part.instructions.lean,
    })
    .collect()
}

impl Path<'_> {
    /// The same, traced under this VMM; beside it the row's path under exitpath's own.
    #[must_use]
    pub fn under(mut self, vmm: Option<String>, own: Option<&model::RowPath>) -> Self {
        self.vmm = vmm;
        self.own_vmm = own.map(|own| Beside {
            total: own.value().all,
            residual: own.residual,
            parts: parts(own),
        });
        self
    }

    /// The object as text, one line per field.
    pub fn render(&self) -> String {
        super::render(self)
    }
}

impl<'a> From<&'a model::Phase> for Phase<'a> {
    fn from(phase: &'a model::Phase) -> Self {
        Phase {
            name: &phase.name,
            instructions: phase.instructions.all,
            without_skip_emulation: phase.instructions.lean,
        }
    }
}

impl<'a> From<&'a model::Function> for Function<'a> {
    fn from(function: &'a model::Function) -> Self {
        Function {
            name: &function.name,
            module: &function.module,
            space: function.space,
            phase: &function.phase,
            figures: Figures {
                own: function.own.all,
                total: function.total.all,
                calls: function.calls.all,
            },
            without_skip_emulation: Figures {
                own: function.own.lean,
                total: function.total.lean,
                calls: function.calls.lean,
            },
        }
    }
}

impl<'a> From<&'a model::ClassCount> for Class<'a> {
    fn from(class: &'a model::ClassCount) -> Self {
        let share = |(name, count): &'a (String, u64)| Share {
            name,
            count: *count,
        };
        Class {
            class: class.class,
            count: class.count.all,
            without_skip_emulation: class.count.lean,
            phases: class
                .phases
                .iter()
                .map(|(name, count)| (&**name, *count))
                .collect(),
            functions: class.functions.iter().map(share).collect(),
        }
    }
}

impl<'a> From<&'a model::Variant> for Variant<'a> {
    fn from(variant: &'a model::Variant) -> Self {
        Variant {
            rounds: variant.rounds,
            total: variant.total,
            range: variant.range.into(),
            differs_by: &variant.differs_by,
            exit_reasons: exit_reasons(variant.exit_reasons.as_deref()),
        }
    }
}

impl<'a> From<&'a model::Artefact> for Artefact<'a> {
    fn from(artefact: &'a model::Artefact) -> Self {
        Artefact {
            what: &artefact.what,
            instructions: artefact.instructions,
        }
    }
}
