//! What the table says of one row.

use exitpath_recording::RowInfo;

/// The row that does nothing: what it reads as, the method adds to every other row.
pub(super) const EMPTY_ROW: &str = "empty";

/// Who handled an exit, as the counters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandledBy {
    /// There was nothing to handle.
    None,
    /// The CPU: no exit was made.
    Hardware,
    /// KVM, without leaving the kernel.
    Kernel,
    /// The VMM.
    Userspace,
}

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
    pub(super) fn new(row: &RowInfo) -> RowSummary {
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
    pub(super) fn doubt(&mut self, verdict: Verdict, why: impl Into<String>) {
        self.verdict = self.verdict.max(verdict);
        self.note(why);
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}
