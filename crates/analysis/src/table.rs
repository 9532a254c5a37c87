//! The table of exits: one summary per row of a recording.
//!
//! Two lenses, two summaries. On a host, samples are noisy and runs (fresh VMs) are the unit of
//! replication: [`host`](mod@self) figures pool the samples for quantiles and put an interval on
//! the mean of run means. In the lab there is no sampling error: the figure is the most frequent
//! value, every other value is listed with the seeds it occurred under, and interrupted samples
//! are told apart.

mod counts;
pub mod host;
mod lab;

use exitpath_recording::{Machine, Outcome, Recording, RowInfo, Run};

pub use counts::HandledBy;

/// How far a row can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The counts are as they should be and nothing speaks against the value.
    Clean,
    /// The counts are as they should be, but see the notes.
    Usable,
    /// The value does not mean what the row's name says.
    Void,
    /// Not measured; the notes say why.
    Skipped,
}

/// Quantiles and mean of one operation, net of the empty bracket, in one unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// First percentile.
    pub floor: f64,
    /// Median. In the lab this is the row's value: its most frequent one.
    pub median: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// 95 % interval of the mean over runs; `None` in the lab and for a single run.
    pub ci95: Option<(f64, f64)>,
}

impl Figures {
    /// The same figures in another unit.
    pub fn scaled(self, factor: f64) -> Figures {
        Figures {
            floor: self.floor * factor,
            median: self.median * factor,
            p99: self.p99 * factor,
            mean: self.mean * factor,
            ci95: self.ci95.map(|(lo, hi)| (lo * factor, hi * factor)),
        }
    }
}

/// One value that occurred in the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Instructions, net of the empty bracket.
    pub instructions: i64,
    /// How many samples had it.
    pub samples: u64,
    /// The seeds under which it occurred.
    pub seeds: Vec<u64>,
    /// Whether an interrupt of the lab's machine fell into the bracket.
    pub interrupted: bool,
}

/// What a recording says about one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowSummary {
    /// The row as the catalogue described it when it was measured.
    pub row: RowInfo,
    /// Who handled the exits, measured; `None` where the counts do not tell.
    pub handled_by: Option<HandledBy>,
    /// Exits per operation by KVM's statistics, all vCPUs together.
    pub exits_per_op: Option<f64>,
    /// Returns of `KVM_RUN` per operation.
    pub userspace_exits_per_op: Option<f64>,
    /// In ticks: TSC ticks on a host, instructions in the lab.
    pub figures: Option<Figures>,
    /// The batch estimator's value in ticks: `((T(2n)-T(n)) - (E(2n)-E(n))) / n`.
    pub slope: Option<f64>,
    /// Samples behind the figures.
    pub samples: u64,
    /// Of these, samples into which an interrupt of the lab's machine fell. They are left out of
    /// the figures and listed among the variants.
    pub interrupted: u64,
    /// Runs behind the figures.
    pub runs: u32,
    /// CPUs of the machine it was measured on.
    pub cpus: u32,
    /// In the lab, every value that occurred, most frequent first.
    pub variants: Vec<Variant>,
    /// How far to trust it.
    pub verdict: Verdict,
    /// What a reader should know, most important first.
    pub notes: Vec<String>,
}

impl RowSummary {
    fn new(row: &RowInfo) -> RowSummary {
        RowSummary {
            row: row.clone(),
            handled_by: None,
            exits_per_op: None,
            userspace_exits_per_op: None,
            figures: None,
            slope: None,
            samples: 0,
            interrupted: 0,
            runs: 0,
            cpus: 0,
            variants: Vec::new(),
            verdict: Verdict::Clean,
            notes: Vec::new(),
        }
    }

    /// Lowers the verdict, never raises it, and says why.
    fn doubt(&mut self, verdict: Verdict, why: impl Into<String>) {
        self.verdict = self.verdict.max(verdict);
        self.note(why);
    }

    fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// Summaries of all rows of a recording, in its order.
pub fn summarise(recording: &Recording) -> Vec<RowSummary> {
    recording
        .manifest
        .rows
        .iter()
        .map(|row| {
            let runs: Vec<&Run> = recording
                .runs
                .iter()
                .filter(|run| run.row == row.name)
                .collect();
            summarise_row(recording, row, &runs)
        })
        .collect()
}

fn summarise_row(recording: &Recording, row: &RowInfo, runs: &[&Run]) -> RowSummary {
    let mut summary = RowSummary::new(row);
    let done: Vec<&Run> = runs
        .iter()
        .copied()
        .filter(|run| run.outcome == Outcome::Done)
        .collect();
    for run in runs {
        match &run.outcome {
            Outcome::Done => {}
            Outcome::Skipped { reason } => summary.doubt(Verdict::Skipped, reason.clone()),
            Outcome::Fault { reason } | Outcome::Hung { reason } => {
                summary.doubt(Verdict::Void, reason.clone());
            }
        }
    }
    if runs.is_empty() {
        summary.doubt(
            Verdict::Skipped,
            "it was not reached: the measurement was cut short",
        );
    }
    if done.is_empty() {
        return summary;
    }
    // A row that some runs could do has been measured.
    if summary.verdict == Verdict::Skipped {
        summary.verdict = Verdict::Usable;
    }
    for note in done.iter().flat_map(|run| &run.notes) {
        summary.doubt(Verdict::Usable, note.clone());
    }
    counts::apply(&mut summary, &done);
    match recording.manifest.machine {
        Machine::Lab => lab::apply(&mut summary, &done),
        Machine::Host => host::apply(&mut summary, &done, &recording.manifest.environment),
    }
    summary
}
