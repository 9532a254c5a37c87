//! What differs between two traces as one JSON object.

use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff as model;
use exitpath_recording::{Environment, Manifest};
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
    pub environments: Environments<'a>,
    /// What these differ in, in words.
    pub notes: &'a [String],
    /// What a reader should know of either, and whether the two command lines made two conditions.
    pub warnings: Vec<String>,
    /// Rows that both have.
    pub rows: Vec<RowDiff<'a>>,
}

/// What the two were traced on.
#[derive(Debug, Serialize)]
pub struct Environments<'a> {
    /// The first one.
    pub a: &'a Environment,
    /// The second one.
    pub b: &'a Environment,
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
    /// Whether anything in it differs: its value or a function's instructions.
    pub different: bool,
    /// Phases that differ, most first.
    pub phases: Vec<Phase<'a>>,
    /// Functions that differ, most first.
    pub functions: Vec<FunctionDiff<'a>>,
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
        environments: Environments {
            a: &a.environment,
            b: &b.environment,
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
            phases: row.phases.iter().map(Phase::from).collect(),
            functions: row.functions.iter().map(FunctionDiff::from).collect(),
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
