//! The unit costs of an exit's way, as one JSON object: a table of exits whose rows say how often each is used.

use std::collections::BTreeMap;

use exitpath_analysis::table::RowSummary;
use exitpath_recording::{Environment, Machine, Manifest, fact};
use serde::Serialize;

use super::{Row, table};

/// The whole object.
#[derive(Debug, Serialize)]
struct Primitives<'a> {
    machine: Machine,
    unit: &'static str,
    environment: &'a Environment,
    rows: Vec<Primitive<'a>>,
    warnings: &'a [String],
    recording: &'a str,
}

/// A row as the table of exits has it, and what it is used for.
#[derive(Debug, Serialize)]
struct Primitive<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    /// What it is used for on an exit's way.
    what: &'a str,
    /// How often each of these rows' ways executes it; null where that is not known.
    used: Option<&'a BTreeMap<String, u64>>,
}

/// How often ways execute each primitive, by its name and the row's.
pub type Used = BTreeMap<String, BTreeMap<String, u64>>;

/// That as a recording's fact.
pub fn used_as_fact(used: &Used) -> serde_json::Value {
    serde_json::to_value(used).expect("plain data always serialises")
}

/// That as a recording knows it.
pub fn used_of(manifest: &Manifest) -> Used {
    let used = manifest.environment.facts.get(fact::PRIMITIVES_USED);
    let used = used.and_then(|used| serde_json::from_value(used.clone()).ok());
    used.unwrap_or_default()
}

/// The rows as text.
pub fn primitives(
    manifest: &Manifest,
    rows: &[RowSummary],
    what: impl Fn(&str) -> &'static str,
    used: &Used,
    recording: &str,
) -> String {
    let table = table(manifest, rows, None);
    let rows = table.rows.into_iter().map(|row| Primitive {
        what: what(row.name),
        used: used.get(row.name),
        row,
    });
    super::render(&Primitives {
        machine: table.machine,
        unit: table.unit,
        environment: table.environment,
        rows: rows.collect(),
        warnings: table.warnings,
        recording,
    })
}
