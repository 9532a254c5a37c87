//! A row on a host: noisy times, runs as the unit of replication.

use exitpath_recording::{Environment, Run, Sample, counter, fact};

use super::counts::total;
use super::summary::{EMPTY_ROW, Figures, HandledBy, RowSummary, Verdict};
use crate::compare::{Finding, of_means};
use crate::stats::{self, Confidence, Sorted};

/// The two estimators agree when they are this near to each other, as a share of the median …
const AGREEMENT_SHARE: f64 = 0.10;
/// … or this near in ticks: out-of-order execution hides that much of a short operation. What is
/// below it in other respects does not matter either.
const NEGLIGIBLE_TICKS: f64 = 40.0;
/// An interval wider than this share of the mean, to each side, asks for more runs.
const WIDE_SHARE: f64 = 0.10;
/// One run that carries more than this share of the runs' variance decides the mean by itself …
const DOMINANT_SHARE: f64 = 0.5;
/// … if it is at least this share of the median away from the mean.
const DOMINANT_DISTANCE: f64 = 0.01;
/// Fewest runs that can show that one of them is odd.
const DOMINANT_RUNS: usize = 5;
/// Stolen time of more than this many scheduler ticks a run is worth a note.
const STEAL_TICKS_PER_RUN: f64 = 0.5;
/// A vCPU thread that loses its CPU in more than this share of the operations shows in the p99.
const PREEMPTED_SHARE: f64 = 0.01;
/// Fewest samples of which it is odd that all are the same.
const COUNTING_SAMPLES: u64 = 20;
/// How far a TSC frequency may be off before it is another: kernels round and calibrate it.
const TSC_SHARE: f64 = 0.001;

/// A guest that is interpreted does not exit as a guest on a CPU does. Whether the value says
/// anything all the same: if not, neither counts nor statistics need to be looked at.
pub(super) fn check_guest(summary: &mut RowSummary, environment: &Environment) -> bool {
    let fact = environment.facts.get(fact::GUESTS_ON_CPU);
    match fact.and_then(serde_json::Value::as_bool) {
        Some(true) => true,
        Some(false) if summary.handled_by == Some(HandledBy::Userspace) => {
            summary.doubt(
                Verdict::Usable,
                "guests are interpreted here: only the part above KVM_RUN is real",
            );
            true
        }
        Some(false) => {
            // That no exit was made is not the CPU's merit.
            if summary.handled_by == Some(HandledBy::Hardware) {
                summary.handled_by = None;
            }
            summary.doubt(
                Verdict::Void,
                "guests are interpreted here: this times the interpreter",
            );
            false
        }
        None => {
            summary.doubt(
                Verdict::Usable,
                "whether guests run on this machine's CPU is not known",
            );
            true
        }
    }
}

/// The mean of a run's samples, net of the mean of its empty brackets: means add up, so the bracket's
/// disturbances come off with it.
pub(crate) fn net_mean(run: &Run) -> Option<f64> {
    let of = |ticks: fn(&Sample) -> u64| {
        let ticks: Vec<f64> = run.samples.iter().map(|s| ticks(s) as f64).collect();
        stats::mean(&ticks).ok()
    };
    Some(of(|sample| sample.op)? - of(|sample| sample.empty)?)
}

/// What each run says, in TSC ticks.
#[derive(Debug, Default)]
pub(super) struct OfRuns {
    /// The means.
    means: Vec<f64>,
    /// The batch estimator's value less the bracketed median, of runs that have both.
    apart: Vec<f64>,
}

/// Fills in the figures; returns what they are made of.
pub(super) fn figures(
    summary: &mut RowSummary,
    runs: &[&Run],
    environment: &Environment,
) -> OfRuns {
    let delay = summary.row.delay_ticks as f64;
    let mut of_runs = OfRuns::default();
    let (mut net, mut slopes) = (vec![], vec![]);
    for run in runs {
        let Some(mean) = net_mean(run) else {
            continue;
        };
        of_runs.means.push(mean - delay);
        let op = run.samples.iter().map(|sample| sample.op as f64);
        let empty: Vec<f64> = run.samples.iter().map(|s| s.empty as f64).collect();
        // Quantiles do not: off every sample comes what the run's bracket usually takes.
        let Ok(empty) = Sorted::new(empty) else {
            continue;
        };
        let usual = empty.median();
        let of_run: Vec<f64> = op.map(|op| op - usual - delay).collect();
        net.extend(&of_run);
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
            if let Ok(of_run) = Sorted::new(of_run) {
                of_runs.apart.push(sorted.median() - of_run.median());
            }
        }
    }
    summary.samples = net.len() as u64;
    let run_means = &of_runs.means;
    summary.runs = run_means.len() as u32;
    summary.cpus = environment.cpus;
    summary.slope = Sorted::new(slopes).ok().map(|slopes| slopes.median());
    if let (Ok(net), Ok(mean)) = (Sorted::new(net), stats::mean(run_means)) {
        let interval = stats::mean_interval(run_means, Confidence::P95).ok();
        summary.figures = Some(Figures {
            floor: net.p1(),
            median: net.median(),
            p99: net.p99(),
            mean,
            ci95: interval.map(|interval| (interval.lo, interval.hi)),
        });
    }
    of_runs
}

/// Everything that speaks against the figures.
pub(super) fn check(
    summary: &mut RowSummary,
    runs: &[&Run],
    of_runs: &OfRuns,
    environment: &Environment,
) {
    let Some(figures) = summary.figures else {
        return;
    };
    check_clock(summary, figures, runs, environment);
    check_empty(summary, figures);
    check_estimators(summary, figures, &of_runs.apart);
    check_interval(summary, figures);
    check_dominance(summary, figures, &of_runs.means);
    check_noise(summary, runs);
}

/// Ticks become times only by the right frequency, and only if the TSC tells time at all.
fn check_clock(
    summary: &mut RowSummary,
    figures: Figures,
    runs: &[&Run],
    environment: &Environment,
) {
    // No CPU takes the same time for an exit again and again; an emulator that counts does.
    let exits = matches!(
        summary.handled_by,
        Some(HandledBy::Kernel | HandledBy::Userspace)
    );
    if exits && summary.samples >= COUNTING_SAMPLES && figures.floor == figures.p99 {
        summary.doubt(
            Verdict::Usable,
            "every exit took the same number of ticks: this machine's clock counts instructions, \
             and these are no times",
        );
    }
    let Some(khz) = environment.tsc_khz.filter(|&khz| khz > 0) else {
        summary.doubt(
            Verdict::Usable,
            "the TSC's frequency is unknown: there are cycles but no times",
        );
        return;
    };
    let other = runs
        .iter()
        .filter_map(|run| run.counters.get(counter::GUEST_TSC_KHZ))
        .find(|&&other| (other as f64 / khz as f64 - 1.0).abs() > TSC_SHARE);
    if let Some(other) = other {
        summary.doubt(
            Verdict::Void,
            format!("a guest's TSC ran at {other} kHz, and times are made with {khz} kHz"),
        );
    }
}

/// The row that does nothing checks what is subtracted from all others.
fn check_empty(summary: &mut RowSummary, figures: Figures) {
    let Some((lo, hi)) = figures.ci95.filter(|_| summary.row.name == EMPTY_ROW) else {
        return;
    };
    if (lo..=hi).contains(&0.0) || figures.mean.abs() < 1.0 {
        return;
    }
    let verdict = if lo > NEGLIGIBLE_TICKS || hi < -NEGLIGIBLE_TICKS {
        Verdict::Void
    } else {
        Verdict::Usable
    };
    summary.doubt(
        verdict,
        format!(
            "an empty bracket reads as {:.1} TSC ticks ({lo:.1} to {hi:.1}), not as 0: other rows \
             may be off by as much",
            figures.mean
        ),
    );
}

/// The two estimators must be shown to agree: that their difference, of each run one, is nothing within a
/// margin. A single run has no interval to show it by, and is told so anyway.
fn check_estimators(summary: &mut RowSummary, figures: Figures, apart: &[f64]) {
    let Some(slope) = summary.slope else { return };
    let margin = (AGREEMENT_SHARE * figures.median.abs()).max(NEGLIGIBLE_TICKS);
    let differ = format!(
        "the batch estimator says {slope:.0} TSC ticks, the bracketed median {:.0}",
        figures.median
    );
    match of_means(apart, 0.0, margin).1 {
        Finding::Same => {}
        Finding::More | Finding::Less => summary.doubt(Verdict::Usable, differ),
        Finding::Undecided { .. } if summary.runs < 2 => {
            if (slope - figures.median).abs() > margin {
                summary.doubt(Verdict::Usable, differ);
            }
        }
        Finding::Undecided { needs_blocks } => summary.doubt(
            Verdict::Usable,
            format!("{differ}: whether they agree is undecided, {needs_blocks} more --runs"),
        ),
    }
}

fn check_interval(summary: &mut RowSummary, figures: Figures) {
    let Some((lo, hi)) = figures.ci95 else {
        summary.doubt(
            Verdict::Usable,
            "a single run has no interval: use --runs 20",
        );
        return;
    };
    let reach = (hi - lo) / 2.0;
    let mean = figures.mean.abs();
    if reach > (WIDE_SHARE * mean).max(NEGLIGIBLE_TICKS) {
        let known = if reach < mean {
            format!("{:.0} %", 100.0 * reach / mean)
        } else {
            format!("{reach:.0} TSC ticks")
        };
        summary.doubt(
            Verdict::Usable,
            format!("the mean is known to ±{known} only: more --runs"),
        );
    }
}

/// Where stalls are rare and huge, a run that has one decides the mean. Where no run has one, the
/// interval is too narrow and nothing can show it (`tests/coverage.rs`, `tests/table/simulated.rs`).
fn check_dominance(summary: &mut RowSummary, figures: Figures, run_means: &[f64]) {
    if run_means.len() < DOMINANT_RUNS {
        return;
    }
    let squares = run_means.iter().map(|run| (run - figures.mean).powi(2));
    let largest = squares.clone().fold(0.0, f64::max);
    let share = largest / squares.sum::<f64>();
    let least = (DOMINANT_DISTANCE * figures.median.abs()).max(NEGLIGIBLE_TICKS);
    if share > usual_share(run_means.len()).max(DOMINANT_SHARE) && largest.sqrt() > least {
        summary.doubt(
            Verdict::Usable,
            "one run carries most of the variance between runs: trust the median rather than the \
             mean and its interval",
        );
    }
}

/// The share of n normal values' squared deviations that the one farthest out exceeds in 5 of 100
/// sets. It is G²/(n − 1) with the critical G of Grubbs, "Procedures for detecting outlying
/// observations in samples", Technometrics 11 (1969). Of five values one often carries more than
/// half without being odd.
fn usual_share(n: usize) -> f64 {
    let t = stats::student_t_quantile(1.0 - 0.05 / (2.0 * n as f64), n - 2);
    let (t2, n) = (t.map_or(f64::INFINITY, |t| t * t), n as f64);
    (n - 1.0) / n / ((n - 2.0) / t2 + 1.0)
}

fn check_noise(summary: &mut RowSummary, runs: &[&Run]) {
    let counted = |name: &str| total(runs, name).unwrap_or(0.0);
    // What was stolen from the CPU that the only vCPU was bound to, or else from any.
    let bound = counter::CPU_STEAL_TICKS;
    let known = |name| runs.iter().all(|run| run.counters.contains_key(name));
    let stolen = if summary.row.vcpus == 1 && known(bound) {
        counted(bound)
    } else {
        counted(counter::STEAL_TICKS)
    };
    let ops: f64 = runs.iter().map(|run| run.ops as f64).sum();
    let disturbances = [
        (
            stolen > STEAL_TICKS_PER_RUN * runs.len() as f64,
            "the hypervisor below took CPU time away (steal)",
        ),
        (
            counted(counter::SMI) > 0.0,
            "the firmware interrupted (SMI)",
        ),
        (
            counted(counter::THERMAL_THROTTLE) > 0.0,
            "the CPU slowed down for heat",
        ),
        (
            counted(counter::INVOLUNTARY_SWITCHES) > PREEMPTED_SHARE * ops,
            "the vCPU's thread often lost its CPU to others: they are in mean and p99",
        ),
    ];
    for (happened, what) in disturbances {
        if happened {
            summary.doubt(Verdict::Usable, what);
        }
    }
}
