//! The table of exits: one summary per row of a recording.
//!
//! Two lenses, two summaries. On a host, samples are noisy and runs (fresh VMs) are the unit of
//! replication: [`host`] pools the samples for quantiles and puts an interval on the mean of run
//! means. In the lab there is no sampling error: the figure is the value that most samples have,
//! every other value is listed with the seeds it occurred under, and interrupted samples are told
//! apart.
//!
//! Whatever a recording says, and be it forged, there is a summary: nothing here panics on it.

mod counts;
pub mod host;
mod lab;

use std::collections::BTreeSet;

use exitpath_recording::{Machine, Outcome, Recording, RowInfo, Run};

use crate::conditions::first_of_each_row;

pub use counts::HandledBy;
pub(crate) use counts::total;
pub(crate) use host::net_mean;
pub use lab::qemu_version;

pub use crate::nothing::of_table as nothing;

/// The row that does nothing: what it reads as, the method adds to every other row.
const EMPTY_ROW: &str = "empty";

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

/// Quantiles and mean of one operation in one unit, net of the empty bracket and of the row's
/// deliberate delay.
///
/// Quantiles are those of the samples of all runs. On a host, off each sample comes the median of
/// the empty brackets of its run. In the lab it is their most frequent value, and every quantile is
/// a value that occurred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// First percentile.
    pub floor: f64,
    /// Median. In the lab this is the row's value; of two middle ones it is the smaller.
    pub median: f64,
    /// 99th percentile.
    pub p99: f64,
    /// On a host the mean of the runs' means, each net of the mean of the run's empty brackets. In
    /// the lab the mean under the first seed, since nothing is averaged over seeds.
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
    /// The seeds under which it occurred, ascending.
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
    /// Samples taken.
    pub samples: u64,
    /// Of these, samples into which an interrupt of the lab's machine fell. They are left out of
    /// the figures and listed among the variants.
    pub interrupted: u64,
    /// Runs behind the figures.
    pub runs: u32,
    /// CPUs of the machine it was measured on.
    pub cpus: u32,
    /// In the lab, every value that occurred, most frequent first, interrupted ones last.
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

/// Summaries of all rows of a recording, in its order: of each the runs of the first condition it was measured
/// under.
pub fn summarise(recording: &Recording) -> Vec<RowSummary> {
    let recording = &*first_of_each_row(recording);
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
    let measured = check_outcomes(&mut summary, runs);
    if !measured.is_empty() {
        apply(&mut summary, recording, runs, &measured);
    }
    for note in runs.iter().flat_map(|run| &run.notes) {
        match summary.verdict {
            Verdict::Skipped => summary.note(note.clone()),
            _ => summary.doubt(Verdict::Usable, note.clone()),
        }
    }
    summary
}

/// Fills in what the runs that measured something say, and what speaks against it.
fn apply(summary: &mut RowSummary, recording: &Recording, runs: &[&Run], measured: &[&Run]) {
    counts::count(summary, measured);
    counts::check_wakeups(summary, measured);
    let environment = &recording.manifest.environment;
    match recording.manifest.machine {
        Machine::Lab => {
            check_sharing(summary, measured);
            lab::apply(summary, measured);
            lab::check_emulator(summary, environment);
            check_seeds(summary, runs, &environment.seeds);
            counts::verify(summary, measured, true);
        }
        Machine::Host => {
            let says_something = host::check_guest(summary, environment);
            let of_runs = host::figures(summary, measured, environment);
            if says_something {
                check_sharing(summary, measured);
                counts::verify(summary, measured, false);
                host::check(summary, measured, &of_runs, environment);
            }
        }
    }
}

/// The runs that measured something; why the others did not is noted.
fn check_outcomes<'a>(summary: &mut RowSummary, runs: &[&'a Run]) -> Vec<&'a Run> {
    let (mut measured, mut went_wrong) = (Vec::new(), false);
    // Each reason with the runs it holds for.
    let mut reasons: Vec<(&str, Vec<&Run>)> = Vec::new();
    for &run in runs {
        let reason = match &run.outcome {
            Outcome::Done if !run.samples.is_empty() => {
                measured.push(run);
                continue;
            }
            Outcome::Done => "no samples were taken",
            Outcome::Skipped { reason } => reason,
            Outcome::Fault { reason } | Outcome::Hung { reason } => {
                went_wrong = true;
                reason
            }
        };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, of)) => of.push(run),
            None => reasons.push((reason, vec![run])),
        }
    }
    for (reason, of) in &reasons {
        summary.note(format!("{}{reason}", where_it_held(of, runs.len())));
    }
    if runs.is_empty() {
        summary.note("it was not reached: the measurement was cut short");
    }
    summary.verdict = match (went_wrong, measured.is_empty()) {
        (true, _) => Verdict::Void,
        (false, true) => Verdict::Skipped,
        // A row that some runs could do has been measured.
        (false, false) if !reasons.is_empty() => Verdict::Usable,
        (false, false) => Verdict::Clean,
    };
    measured
}

/// Nothing where it held for all runs.
fn where_it_held(some: &[&Run], of: usize) -> String {
    if some.len() == of {
        return String::new();
    }
    let seeds: Option<Vec<String>> = some
        .iter()
        .map(|run| run.seed.map(|seed| seed.to_string()))
        .collect();
    match seeds {
        Some(seeds) => format!("seed {}: ", seeds.join(", ")),
        None => format!("{} of {of} runs: ", some.len()),
    }
}

/// In the lab every seed is to have its run.
fn check_seeds(summary: &mut RowSummary, runs: &[&Run], planned: &[u64]) {
    let missing: BTreeSet<u64> = planned
        .iter()
        .copied()
        .filter(|&seed| runs.iter().all(|run| run.seed != Some(seed)))
        .collect();
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(u64::to_string).collect();
        let why = format!("seed {}: not measured", missing.join(", "));
        summary.doubt(Verdict::Usable, why);
    }
}

/// vCPUs that spin, each waiting for the other, share a CPU one time slice at a time.
fn check_sharing(summary: &mut RowSummary, runs: &[&Run]) {
    let vcpus = summary.row.vcpus;
    if summary.row.rung.is_some() {
        // Those exit, each for itself, and wait for no other in the guest.
        return;
    }
    if vcpus > 1 && !summary.row.halts && runs.iter().any(|run| run.cpus < vcpus) {
        summary.doubt(
            Verdict::Void,
            "vCPUs that spin took turns on one CPU: these are time slices of its scheduler",
        );
    }
}
