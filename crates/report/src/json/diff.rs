//! What differs between two traces as one JSON object.

use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff as model;
use exitpath_recording::{Condition, Environment, Manifest};
use serde::Serialize;

/// The whole object. Figures are instructions of one round.
#[derive(Debug, Serialize)]
pub struct Diff<'a> {
    /// Whether the two can be held against each other.
    pub comparable: bool,
    /// `same` or `different`; null where they are not comparable.
    pub verdict: Option<&'static str>,
    /// Why they are not comparable; absent where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Always `instructions`.
    pub unit: &'static str,
    /// What the two were traced on.
    pub environments: Sides<'a, Environment>,
    /// Under which condition each was traced, as the manifests have it.
    pub conditions: Sides<'a, [Condition]>,
    /// What these differ in, in words.
    pub notes: &'a [String],
    /// What a reader should know of either, and whether the two command lines made two conditions.
    pub warnings: Vec<String>,
    /// Rows that both have.
    pub rows: Vec<RowDiff<'a>>,
}

/// Something of both sides.
#[derive(Debug, Serialize)]
pub struct Sides<'a, T: ?Sized> {
    /// The first one's.
    pub a: &'a T,
    /// The second one's.
    pub b: &'a T,
}

/// A row. `delta` is always `b` less `a`.
#[derive(Debug, Serialize)]
pub struct RowDiff<'a> {
    /// Its name.
    pub name: &'a str,
    #[serde(flatten)]
    figures: Figures,
    /// Seeds at which the difference is this one.
    pub seeds_agreeing: usize,
    /// The difference at each seed.
    pub seeds: Vec<Seed>,
    /// Whether anything in it differs, at any seed: its value, a function's number of instructions,
    /// or an instruction.
    pub different: bool,
    /// `identical` where the same instructions run in the same order, else `differ`.
    pub paths: &'static str,
    /// Whether the same instructions run in another order, and nothing else differs.
    pub reordered: bool,
    /// Phases that differ, most first.
    pub phases: Vec<Phase<'a>>,
    /// Functions that differ, most first.
    pub functions: Vec<FunctionDiff<'a>>,
    /// Classes of instructions of which there are more or fewer.
    pub classes: Vec<Class>,
    /// Instructions that differ in functions that both have.
    pub instructions: Vec<Instruction<'a>>,
    /// How many more differ, in functions that are too different to list them.
    pub instructions_left_out: usize,
}

#[derive(Debug, Serialize)]
struct Figures {
    a: u64,
    b: u64,
    delta: i64,
}

/// The difference at one seed.
#[derive(Debug, Serialize)]
pub struct Seed {
    /// The seed.
    pub seed: Option<u64>,
    /// The difference.
    pub delta: i64,
    /// `identical` or `differ`.
    pub paths: &'static str,
}

/// A class of instructions.
#[derive(Debug, Serialize)]
pub struct Class {
    /// Its name.
    pub class: &'static str,
    #[serde(flatten)]
    figures: Figures,
}

/// An instruction that differs.
#[derive(Debug, Serialize)]
pub struct Instruction<'a> {
    /// Its function.
    pub function: &'a str,
    /// The function's module.
    pub module: &'a str,
    /// Whether it is in a part that the compiler has moved out of the function.
    pub cold: bool,
    /// Bytes from the function's beginning, in the first, or else in the second.
    pub offset: u64,
    /// The same in the second; null where only the first has it.
    pub offset_b: Option<u64>,
    /// Its text in the first; null where only the second has it.
    pub a: Option<&'a str>,
    /// Its text in the second; null where only the first has it.
    pub b: Option<&'a str>,
    /// Times it ran, in the first and the second.
    pub times: [u64; 2],
}

/// A phase.
#[derive(Debug, Serialize)]
pub struct Phase<'a> {
    /// Its name.
    pub name: &'a str,
    #[serde(flatten)]
    figures: Figures,
}

/// A function, with its own instructions.
#[derive(Debug, Serialize)]
pub struct FunctionDiff<'a> {
    /// Its name without compilers' suffixes.
    pub name: &'a str,
    /// Its module.
    pub module: &'a str,
    #[serde(flatten)]
    figures: Figures,
    /// With everything it calls, in the first and the second.
    pub total: [u64; 2],
    /// Times it was called, in the first and the second.
    pub calls: [u64; 2],
    /// `both`, `new` where only the second has it, `gone` where only the first has it.
    pub presence: &'static str,
}

/// What differs. `a` and `b` are the manifests of the first and the second recording.
pub fn diff<'a>(a: &'a Manifest, b: &'a Manifest, diff: &'a model::PathDiff) -> Diff<'a> {
    Diff {
        comparable: true,
        verdict: Some(if diff.verdict == model::Verdict::Different {
            "different"
        } else {
            "same"
        }),
        notes: &diff.notes,
        warnings: warnings(a, b),
        rows: diff.rows.iter().map(RowDiff::from).collect(),
        ..nothing(a, b)
    }
}

/// Two recordings that cannot be held against each other, and why.
pub fn incomparable<'a>(a: &'a Manifest, b: &'a Manifest, why: &model::Incomparable) -> Diff<'a> {
    Diff {
        reason: Some(why.to_string()),
        ..nothing(a, b)
    }
}

fn nothing<'a>(a: &'a Manifest, b: &'a Manifest) -> Diff<'a> {
    Diff {
        comparable: false,
        verdict: None,
        reason: None,
        unit: "instructions",
        environments: Sides {
            a: &a.environment,
            b: &b.environment,
        },
        conditions: Sides {
            a: &a.conditions,
            b: &b.conditions,
        },
        notes: &[],
        warnings: Vec::new(),
        rows: Vec::new(),
    }
}

impl Diff<'_> {
    /// The object as text, one line per field.
    pub fn render(&self) -> String {
        super::render(self)
    }
}

impl<'a> From<&'a model::RowDiff> for RowDiff<'a> {
    fn from(row: &'a model::RowDiff) -> Self {
        let seed = |of: &model::SeedDiff| Seed {
            seed: of.seed,
            delta: of.delta,
            paths: paths(of.paths_differ),
        };
        let class = |of: &model::ClassDiff| Class {
            class: of.class,
            figures: Figures {
                a: of.a,
                b: of.b,
                delta: of.delta,
            },
        };
        RowDiff {
            name: &row.name,
            figures: Figures {
                a: row.a,
                b: row.b,
                delta: row.delta,
            },
            seeds_agreeing: row.seeds_agreeing,
            seeds: row.seeds.iter().map(seed).collect(),
            different: row.verdict == model::Verdict::Different,
            paths: paths(row.paths_differ()),
            reordered: row.reordered,
            phases: row.phases.iter().map(Phase::from).collect(),
            functions: row.functions.iter().map(FunctionDiff::from).collect(),
            classes: row.classes.iter().map(class).collect(),
            instructions: row.instructions.iter().map(Instruction::from).collect(),
            instructions_left_out: row.instructions_left_out,
        }
    }
}

fn paths(differ: bool) -> &'static str {
    if differ { "differ" } else { "identical" }
}

impl<'a> From<&'a model::InstructionDiff> for Instruction<'a> {
    fn from(diff: &'a model::InstructionDiff) -> Self {
        let either = diff.a.as_ref().or(diff.b.as_ref());
        let times = |side: &Option<model::Side>| side.as_ref().map_or(0, |side| side.times);
        Instruction {
            function: &diff.function,
            module: &diff.module,
            cold: either.is_some_and(|side| side.cold),
            offset: either.map_or(0, |side| side.offset),
            offset_b: diff.b.as_ref().map(|side| side.offset),
            a: diff.a.as_ref().map(|side| side.text.as_str()),
            b: diff.b.as_ref().map(|side| side.text.as_str()),
            times: [times(&diff.a), times(&diff.b)],
        }
    }
}

impl<'a> From<&'a model::PhaseDiff> for Phase<'a> {
    fn from(phase: &'a model::PhaseDiff) -> Self {
        Phase {
            name: &phase.name,
            figures: Figures {
                a: phase.a,
                b: phase.b,
                delta: phase.delta,
            },
        }
    }
}

impl<'a> From<&'a model::FunctionDiff> for FunctionDiff<'a> {
    fn from(function: &'a model::FunctionDiff) -> Self {
        FunctionDiff {
            name: &function.name,
            module: &function.module,
            figures: Figures {
                a: function.a,
                b: function.b,
                delta: function.delta,
            },
            total: function.total.into(),
            calls: function.calls.into(),
            presence: match function.change {
                model::Change::Changed => "both",
                model::Change::New => "new",
                model::Change::Gone => "gone",
            },
        }
    }
}
