//! kvm-unit-tests' vmexit and exitpath's image, side by side, as one JSON object.

use exitpath_analysis::vmexit::Comparison;
use exitpath_recording::{Environment, Machine, Manifest};
use serde::Serialize;

/// The whole object. Figures are instructions an operation.
#[derive(Debug, Serialize)]
pub struct Vmexit<'a> {
    /// Always `lab`.
    pub machine: Machine,
    /// Always `instructions`.
    pub unit: &'static str,
    /// What both were measured on.
    pub environment: &'a Environment,
    /// One object per row.
    pub rows: Vec<Row>,
    /// What a reader should know.
    pub warnings: &'a [String],
    /// The folder of the recording of exitpath's image.
    pub recording: &'a str,
}

/// One row.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name in both programs.
    pub name: &'static str,
    /// What vmexit printed.
    pub vmexit: u64,
    /// The most frequent sample of exitpath's image, net.
    pub exitpath: i64,
    /// The first less the second.
    pub difference: i64,
    /// Instructions of vmexit's loop and call.
    pub their_loop: u64,
    /// What interruptions add to exitpath's mean.
    pub interruptions: f64,
    /// `difference` less `their_loop`.
    pub rest: i64,
    /// Smallest and largest rest that is explained.
    pub known: [i64; 2],
    /// Whether the rest is one of these.
    pub agree: bool,
}

/// The comparison as an object.
pub fn vmexit<'a>(manifest: &'a Manifest, rows: &[Comparison], recording: &'a str) -> Vmexit<'a> {
    let row = |row: &Comparison| Row {
        name: row.row.name,
        vmexit: row.theirs,
        exitpath: row.ours,
        difference: i64::try_from(row.theirs)
            .unwrap_or(i64::MAX)
            .saturating_sub(row.ours),
        their_loop: row.row.overhead,
        interruptions: row.interruptions,
        rest: row.rest,
        known: row.known.into(),
        agree: row.agrees(),
    };
    Vmexit {
        machine: manifest.machine,
        unit: "instructions",
        environment: &manifest.environment,
        rows: rows.iter().map(row).collect(),
        warnings: &manifest.warnings,
        recording,
    }
}

impl Vmexit<'_> {
    /// The object as text, one line per field.
    pub fn render(&self) -> String {
        super::render(self)
    }
}
