//! A row on a host: noisy times, runs as the unit of replication.

use exitpath_recording::{Environment, Run};

use super::{Figures, HandledBy, RowSummary, Verdict};
use crate::stats::{self, Confidence, Sorted};

/// Fact that says whether guests run on the CPU (`true`) or are interpreted (`false`).
pub const GUESTS_RUN_ON_CPU: &str = "guests_run_on_cpu";
/// The two estimators agree when they are this near to each other, as a share of the mean …
const AGREEMENT_SHARE: f64 = 0.10;
/// … or this near in ticks: out-of-order execution hides that much of a short operation.
const AGREEMENT_TICKS: f64 = 40.0;
/// An interval wider than this share of the mean, to each side, asks for more runs.
const WIDE_SHARE: f64 = 0.10;
/// One run that carries more than this share of the runs' variance decides the mean by itself.
const DOMINANT_SHARE: f64 = 0.5;
/// Stolen time of more than this many scheduler ticks a run is worth a note.
const STEAL_TICKS_PER_RUN: f64 = 0.5;

pub(super) fn apply(summary: &mut RowSummary, runs: &[&Run], environment: &Environment) {
    let delay = summary.row.delay_ticks as f64;
    let (mut ops, mut empties, mut run_means, mut slopes) = (vec![], vec![], vec![], vec![]);
    for run in runs {
        let op: Vec<f64> = run.samples.iter().map(|sample| sample.op as f64).collect();
        let empty: Vec<f64> = run
            .samples
            .iter()
            .map(|sample| sample.empty as f64)
            .collect();
        if let (Ok(op_mean), Ok(empty_mean)) = (stats::mean(&op), stats::mean(&empty)) {
            run_means.push(op_mean - empty_mean - delay);
        }
        ops.extend(op);
        empties.extend(empty);
        let batch: Vec<f64> = run
            .batches
            .iter()
            .filter(|batch| batch.n > 0)
            .map(|batch| {
                let op = batch.op_2n as f64 - batch.op_n as f64;
                let empty = batch.empty_2n as f64 - batch.empty_n as f64;
                (op - empty) / batch.n as f64 - delay
            })
            .collect();
        // The median of a run's repetitions: one interrupted batch would decide their mean.
        if let Ok(sorted) = Sorted::new(batch) {
            slopes.push(sorted.median());
        }
    }
    summary.samples = ops.len() as u64;
    summary.runs = run_means.len() as u32;
    summary.cpus = environment.cpus;
    let (Ok(ops), Ok(empties), Ok(mean)) = (
        Sorted::new(ops),
        Sorted::new(empties),
        stats::mean(&run_means),
    ) else {
        return;
    };
    let interval = stats::mean_interval(&run_means, Confidence::P95).ok();
    let figures = Figures {
        floor: ops.p1() - empties.p1() - delay,
        median: ops.median() - empties.median() - delay,
        p99: ops.p99() - empties.median() - delay,
        mean,
        ci95: interval.map(|interval| (interval.lo, interval.hi)),
    };
    summary.figures = Some(figures);
    summary.slope = Sorted::new(slopes).ok().map(|slopes| slopes.median());

    check_guest(summary, environment);
    check_estimators(summary, figures);
    check_interval(summary, figures, &run_means);
    check_noise(summary, runs);
}

/// A guest that is interpreted does not exit as a guest on a CPU does.
fn check_guest(summary: &mut RowSummary, environment: &Environment) {
    if environment
        .facts
        .get(GUESTS_RUN_ON_CPU)
        .and_then(serde_json::Value::as_bool)
        != Some(false)
    {
        return;
    }
    if summary.handled_by == Some(HandledBy::Userspace) {
        summary.doubt(
            Verdict::Usable,
            "guests are interpreted here: only the part above KVM_RUN is real",
        );
    } else {
        if summary.handled_by == Some(HandledBy::Hardware) {
            summary.handled_by = None;
        }
        summary.doubt(
            Verdict::Void,
            "guests are interpreted here: this times the interpreter",
        );
    }
}

fn check_estimators(summary: &mut RowSummary, figures: Figures) {
    let Some(slope) = summary.slope else { return };
    let apart = (slope - figures.median).abs();
    if apart > (AGREEMENT_SHARE * figures.median.abs()).max(AGREEMENT_TICKS) {
        summary.doubt(
            Verdict::Usable,
            format!(
                "the batch estimator says {slope:.0} ticks, the bracketed median {:.0}",
                figures.median
            ),
        );
    }
}

fn check_interval(summary: &mut RowSummary, figures: Figures, run_means: &[f64]) {
    let Some((lo, hi)) = figures.ci95 else {
        summary.doubt(
            Verdict::Usable,
            "a single run has no interval: use --runs 20",
        );
        return;
    };
    let reach = (hi - lo) / 2.0;
    if !summary.row.reference && reach > (WIDE_SHARE * figures.mean.abs()).max(AGREEMENT_TICKS) {
        let share = 100.0 * reach / figures.mean.abs();
        summary.doubt(
            Verdict::Usable,
            format!("the mean is known to ±{share:.0} % only: more --runs"),
        );
    }
    let deviations: Vec<f64> = run_means
        .iter()
        .map(|run| (run - figures.mean).powi(2))
        .collect();
    let total: f64 = deviations.iter().sum();
    let largest = deviations.iter().copied().fold(0.0, f64::max);
    if run_means.len() >= 5
        && largest > DOMINANT_SHARE * total
        && largest.sqrt() > AGREEMENT_TICKS.max(WIDE_SHARE * figures.median.abs())
    {
        summary.doubt(
            Verdict::Usable,
            "one run decides the mean and its interval: trust the median rather",
        );
    }
}

fn check_noise(summary: &mut RowSummary, runs: &[&Run]) {
    let total = |name: &str| {
        runs.iter()
            .filter_map(|run| run.counters.get(name))
            .sum::<i64>() as f64
    };
    let runs = runs.len() as f64;
    if total("host.steal_ticks") / runs > STEAL_TICKS_PER_RUN {
        summary.doubt(
            Verdict::Usable,
            "the hypervisor below took CPU time away (steal)",
        );
    }
    if total("host.smi") > 0.0 {
        summary.doubt(Verdict::Usable, "the firmware interrupted (SMI)");
    }
}
