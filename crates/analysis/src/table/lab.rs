//! A row in the lab: exact values, no interval.

use std::collections::{BTreeMap, BTreeSet};

use exitpath_recording::Run;

use super::{Figures, RowSummary, Variant, Verdict};
use crate::stats::{self, Sorted};

/// An interrupt of the lab's machine costs at least this many instructions (a timer tick that
/// hits a guest of Debian's 6.1 takes 9,000 and more: exit, handler, scheduler, entry), and
/// variation of the path itself rarely as many. Only samples this far above the row's value can
/// be called interrupted.
const INTERRUPT_INSTRUCTIONS: i64 = 2_500;
/// The counter of the machine's interrupts that the runner records.
const INTERRUPTS: &str = "host.cpu_interrupts";

struct Sampled {
    seed: u64,
    instructions: i64,
}

pub(super) fn apply(summary: &mut RowSummary, runs: &[&Run]) {
    let delay = summary.row.delay_ticks as i64;
    let mut samples = Vec::new();
    for run in runs {
        let empties: Vec<u64> = run.samples.iter().map(|sample| sample.empty).collect();
        let Some(empty) = stats::mode(&empties) else {
            continue;
        };
        samples.extend(run.samples.iter().map(|sample| Sampled {
            seed: run.seed.unwrap_or_default(),
            instructions: sample.op as i64 - empty.value as i64 - delay,
        }));
    }
    let Some(value) = most_frequent(samples.iter().map(|sample| sample.instructions)) else {
        return;
    };
    summary.runs = runs.len() as u32;
    summary.cpus = runs.iter().map(|run| run.cpus).max().unwrap_or(0);
    summary.samples = samples.len() as u64;

    let far = |sample: &Sampled| {
        !summary.row.interrupts && sample.instructions - value >= INTERRUPT_INSTRUCTIONS
    };
    let (interrupted, clean): (Vec<_>, Vec<_>) = samples.iter().partition(|sample| far(sample));
    let interrupts: i64 = runs
        .iter()
        .filter_map(|run| run.counters.get(INTERRUPTS))
        .sum();
    report_interrupted(summary, &interrupted, interrupts);

    summary.variants = variants(&clean, false);
    summary.variants.extend(variants(&interrupted, true));

    let figures = |values: Vec<f64>, first_seed: Vec<f64>| {
        let sorted = Sorted::new(values).ok()?;
        Some(Figures {
            floor: sorted.p1(),
            median: value as f64,
            p99: sorted.p99(),
            // Nothing is averaged over seeds: the first one's mean stands for itself.
            mean: stats::mean(&first_seed).ok()?,
            ci95: None,
        })
    };
    let first = clean.first().map(|sample| sample.seed);
    summary.figures = figures(
        clean
            .iter()
            .map(|sample| sample.instructions as f64)
            .collect(),
        clean
            .iter()
            .filter(|sample| Some(sample.seed) == first)
            .map(|sample| sample.instructions as f64)
            .collect(),
    );
    check_slope(summary, runs, delay as f64);
}

/// Counts the interrupted samples, and compares with how many interrupts the machine had.
fn report_interrupted(summary: &mut RowSummary, interrupted: &[&Sampled], interrupts: i64) {
    let values = interrupted.iter().map(|sample| sample.instructions);
    let (Some(least), Some(most)) = (values.clone().min(), values.max()) else {
        return;
    };
    let count = interrupted.len();
    let total = summary.samples;
    summary.interrupted = count as u64;
    if count as i64 > interrupts {
        summary.doubt(
            Verdict::Usable,
            format!(
                "{count} of {total} samples took {least} to {most} instructions, more of them \
                 than the machine had interrupts ({interrupts})"
            ),
        );
    }
}

/// The most frequent value, the smallest of several.
fn most_frequent(values: impl Iterator<Item = i64>) -> Option<i64> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_insert(0u64) += 1;
    }
    let most = *counts.values().max()?;
    counts
        .into_iter()
        .find(|&(_, count)| count == most)
        .map(|(value, _)| value)
}

fn variants(samples: &[&Sampled], interrupted: bool) -> Vec<Variant> {
    let mut values: BTreeMap<i64, (u64, BTreeSet<u64>)> = BTreeMap::new();
    for sample in samples {
        let entry = values.entry(sample.instructions).or_default();
        entry.0 += 1;
        entry.1.insert(sample.seed);
    }
    let mut variants: Vec<Variant> = values
        .into_iter()
        .map(|(instructions, (samples, seeds))| Variant {
            instructions,
            samples,
            seeds: seeds.into_iter().collect(),
            interrupted,
        })
        .collect();
    variants.sort_by_key(|variant| (std::cmp::Reverse(variant.samples), variant.instructions));
    variants
}

/// The batch estimator must agree to the instruction: it lies among the values that occurred.
fn check_slope(summary: &mut RowSummary, runs: &[&Run], delay: f64) {
    // Slopes as whole millionths of an instruction, so that equal ones compare equal.
    let slopes = runs
        .iter()
        .flat_map(|run| &run.batches)
        .filter(|batch| batch.n > 0)
        .map(|batch| {
            let op = batch.op_2n as i64 - batch.op_n as i64;
            let empty = batch.empty_2n as i64 - batch.empty_n as i64;
            (op - empty) * 1_000_000 / batch.n as i64
        });
    let Some(slope) = most_frequent(slopes).map(|slope| slope as f64 / 1e6 - delay) else {
        return;
    };
    summary.slope = Some(slope);
    let clean = summary
        .variants
        .iter()
        .filter(|variant| !variant.interrupted);
    let (Some(least), Some(most)) = (
        clean.clone().map(|variant| variant.instructions).min(),
        clean.map(|variant| variant.instructions).max(),
    ) else {
        return;
    };
    if slope < least as f64 - 0.5 || slope > most as f64 + 0.5 {
        summary.doubt(
            Verdict::Usable,
            format!("the batch estimator says {slope:.1} instructions instead"),
        );
    }
}
