//! A row with and without functions of the kernel, as one JSON object.

use exitpath_analysis::path::without::{RowWithout, Without as Model};
use exitpath_recording::{Condition, Environment, Machine, Manifest};
use serde::Serialize;

use crate::changes::instruction;

/// The whole object. Unit: instructions per round.
#[derive(Debug, Serialize)]
pub struct Without<'a> {
    /// Always `lab`.
    pub machine: Machine,
    /// Always `instructions`.
    pub unit: &'static str,
    /// What both conditions were measured on.
    pub environment: &'a Environment,
    /// The conditions: with the functions, and without.
    pub conditions: &'a [Condition],
    /// One object per row and seed.
    pub rows: Vec<Row<'a>>,
    /// What a reader should know.
    pub warnings: &'a [String],
    /// The recording's folder.
    pub recording: &'a str,
}

/// A row at one seed.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    /// The row.
    pub row: &'a str,
    /// The seed.
    pub seed: Option<u64>,
    /// What the guest's clock said with the functions.
    pub before: u64,
    /// And without.
    pub after: u64,
    /// The first less the second.
    pub saved: i64,
    /// Seeds of the row at which the most frequent saving, of equally frequent ones the first seed's, was made.
    pub seeds_agreeing: usize,
    /// What the functions should have saved.
    pub expected: i64,
    /// What of that was not saved, because the rest of the path changed.
    pub rest: i64,
    /// Each function.
    pub stubs: Vec<Stub<'a>>,
    /// Other functions that changed, by their own instructions.
    pub others: Vec<Other<'a>>,
    /// Instructions that became others, in functions that take as many.
    pub replaced: Vec<String>,
}

/// A function that returns at once.
#[derive(Debug, Serialize)]
pub struct Stub<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its calls in a round.
    pub calls: u64,
    /// Instructions of one with all that it calls.
    pub inclusive: u64,
    /// Instructions left of one.
    pub stub: u64,
    /// What all calls took less what is left of them.
    pub saved: u64,
}

/// Another function that changed.
#[derive(Debug, Serialize)]
pub struct Other<'a> {
    /// Its name.
    pub function: &'a str,
    /// Own instructions more than with the functions.
    pub change: i64,
}

/// The comparison as an object.
pub fn without<'a>(manifest: &'a Manifest, without: &'a Model, recording: &'a str) -> Without<'a> {
    Without {
        machine: manifest.machine,
        unit: "instructions",
        environment: &manifest.environment,
        conditions: &manifest.conditions,
        rows: without.rows.iter().map(row).collect(),
        warnings: &manifest.warnings,
        recording,
    }
}

fn row(row: &RowWithout) -> Row<'_> {
    let stubs = row.stubs.iter().map(|stub| Stub {
        name: &stub.name,
        calls: stub.calls,
        inclusive: stub.inclusive,
        stub: stub.stub_instructions,
        saved: stub.saved,
    });
    let others = row.others.iter().map(|(function, change)| Other {
        function,
        change: *change,
    });
    Row {
        row: &row.row,
        seed: row.seed,
        before: row.before,
        after: row.after,
        saved: row.saved,
        seeds_agreeing: row.of_seeds.agreeing,
        expected: row.expected,
        rest: row.rest,
        stubs: stubs.collect(),
        others: others.collect(),
        replaced: row.replaced.iter().map(instruction).collect(),
    }
}

impl Without<'_> {
    /// The object as text, one line per field.
    pub fn render(&self) -> String {
        super::render(self)
    }
}
