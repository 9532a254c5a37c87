//! The table of exits, the ladder, traced paths and their differences, each as one JSON object.
//!
//! Field names are a promise. Figures are nanoseconds on a host (with the same in TSC ticks
//! under `cycles`) and instructions in the lab.

mod ablate;
mod diff;
mod doctor;
mod kick;
mod live;
mod path;
mod primitives;
mod userspace;
mod vmexit;
mod without;

use exitpath_analysis::table::{Figures, RowSummary, Variant};
use exitpath_recording::{Condition, Environment, Machine, Manifest};
use serde::Serialize;

pub use ablate::ablations;
pub use diff::{Diff, diff, incomparable};
pub use doctor::doctor;
pub use kick::{Kick, kick};
pub use live::live;
pub use path::{Path, path};
pub use primitives::{Used, primitives, used_as_fact, used_of};
pub use userspace::{Userspace, userspace};
pub use vmexit::{Vmexit, vmexit};
pub use without::{Without, without};

use crate::words::{handled_by, verdict};

/// The whole object.
#[derive(Debug, Serialize)]
pub struct Table<'a> {
    /// `host` or `lab`.
    pub machine: Machine,
    /// `ns` or `instructions`.
    pub unit: &'static str,
    /// What it was measured on.
    pub environment: &'a Environment,
    /// The condition that it was measured under, as the manifest has it; of a recording that has several the one shown.
    pub conditions: &'a [Condition],
    /// One object per row, in the catalogue's order.
    pub rows: Vec<Row<'a>>,
    /// Warnings with advice.
    pub warnings: &'a [String],
    /// The recording's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
}

/// One row. Nulls where there is no such figure.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    /// The row's name.
    pub name: &'a str,
    /// What one operation is.
    pub operation: &'a str,
    /// `none`, `hardware`, `kernel`, `userspace`, or null where the counts do not tell.
    pub handled_by: Option<&'static str>,
    /// Exits per operation.
    pub exits_per_op: Option<f64>,
    /// Returns of `KVM_RUN` per operation.
    pub userspace_exits_per_op: Option<f64>,
    #[serde(flatten)]
    figures: FigureFields,
    /// The same in TSC ticks; absent in the lab.
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles: Option<FigureFields>,
    /// The batch estimator's value in the table's unit.
    pub slope: Option<f64>,
    /// Samples behind the figures.
    pub samples: u64,
    /// Of these, samples into which an interrupt of the lab's machine fell: not in the figures.
    pub interrupted: u64,
    /// Runs behind the figures.
    pub runs: u32,
    /// CPUs of the machine it was measured on.
    pub cpus: u32,
    /// In the lab, every value that occurred; empty on a host.
    pub variants: Vec<VariantFields<'a>>,
    /// `clean`, `usable`, `void` or `skipped`.
    pub verdict: &'static str,
    /// What a reader should know.
    pub notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct FigureFields {
    floor: Option<f64>,
    median: Option<f64>,
    p99: Option<f64>,
    mean: Option<f64>,
    ci95: Option<[f64; 2]>,
}

impl From<Option<Figures>> for FigureFields {
    fn from(figures: Option<Figures>) -> Self {
        FigureFields {
            floor: figures.map(|f| f.floor),
            median: figures.map(|f| f.median),
            p99: figures.map(|f| f.p99),
            mean: figures.map(|f| f.mean),
            ci95: figures.and_then(|f| f.ci95).map(|(lo, hi)| [lo, hi]),
        }
    }
}

/// One value that occurred in the lab.
#[derive(Debug, Serialize)]
pub struct VariantFields<'a> {
    /// Instructions.
    pub value: i64,
    /// Samples that had it.
    pub samples: u64,
    /// Seeds under which it occurred.
    pub seeds: &'a [u64],
    /// Whether an interrupt of the lab's machine fell into the bracket.
    pub interrupted: bool,
}

impl<'a> From<&'a Variant> for VariantFields<'a> {
    fn from(variant: &'a Variant) -> Self {
        VariantFields {
            value: variant.instructions,
            samples: variant.samples,
            seeds: &variant.seeds,
            interrupted: variant.interrupted,
        }
    }
}

/// The table of a recording.
pub fn table<'a>(
    manifest: &'a Manifest,
    rows: &'a [RowSummary],
    recording: Option<String>,
) -> Table<'a> {
    let host = manifest.machine == Machine::Host;
    let factor = if host {
        manifest.environment.nanoseconds_per_tick()
    } else {
        Some(1.0)
    };
    Table {
        machine: manifest.machine,
        unit: if host { "ns" } else { "instructions" },
        environment: &manifest.environment,
        conditions: &manifest.conditions,
        rows: rows
            .iter()
            .map(|row| Row {
                name: &row.row.name,
                operation: &row.row.operation,
                handled_by: row.handled_by.map(handled_by),
                exits_per_op: row.exits_per_op,
                userspace_exits_per_op: row.userspace_exits_per_op,
                figures: row.figures.zip(factor).map(|(f, by)| f.scaled(by)).into(),
                cycles: host.then(|| row.figures.into()),
                slope: row.slope.zip(factor).map(|(slope, by)| slope * by),
                samples: row.samples,
                interrupted: row.interrupted,
                runs: row.runs,
                cpus: row.cpus,
                variants: row.variants.iter().map(VariantFields::from).collect(),
                verdict: verdict(row.verdict),
                notes: &row.notes,
            })
            .collect(),
        warnings: &manifest.warnings,
        recording,
    }
}

impl Table<'_> {
    /// The object as text, one line per field.
    pub fn render(&self) -> String {
        render(self)
    }
}

fn render(object: &impl Serialize) -> String {
    serde_json::to_string_pretty(object).expect("plain data with string keys always serialises")
}
