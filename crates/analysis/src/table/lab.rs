//! A row in the lab: exact values, no interval.

use std::collections::{BTreeMap, BTreeSet};

use exitpath_recording::{Batch, Environment, Run, counter};

use super::summary::{EMPTY_ROW, Figures, RowSummary, Variant, Verdict};
use crate::stats;

/// An interrupt of the lab's machine costs at least this many instructions (a timer tick that
/// hits a guest of Debian's 6.1 takes 9,000 and more: exit, handler, scheduler, entry), and
/// variation of the path itself rarely as many. Only samples this far above the row's value can
/// be called interrupted.
const INTERRUPT_INSTRUCTIONS: i64 = 2_500;
/// Slopes are compared as whole numbers of this part of an instruction, so that equal ones compare
/// equal.
const SLOPE_PARTS: i128 = 1_000_000;

/// The first QEMU that tells an INVD from a WBINVD: those before give KVM the exit code of WBINVD for both.
const TELLS_INVD: (u32, u32) = (8, 1);

/// The two numbers that a recorded QEMU's version begins with.
pub fn qemu_version(environment: &Environment) -> Option<(u32, u32)> {
    let mut numbers = environment.qemu.as_deref()?.split('.');
    let mut number = || {
        let digits = |word: &str| {
            word.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        numbers.next().and_then(|word| digits(word).parse().ok())
    };
    Some((number()?, number()?))
}

/// What the emulated CPU is known to do otherwise than it should, although the counts are right.
pub(super) fn check_emulator(summary: &mut RowSummary, environment: &Environment) {
    let is_old = qemu_version(environment).is_some_and(|version| version < TELLS_INVD);
    if summary.row.name == "invd" && is_old {
        summary.doubt(
            Verdict::Void,
            "QEMU before 8.1 exits for INVD with WBINVD's code: these are figures of a WBINVD exit \
             (--qemu)",
        );
    }
}

/// One net sample.
#[derive(Debug, Clone, Copy)]
struct Sampled {
    seed: Option<u64>,
    instructions: i64,
}

pub(super) fn apply(summary: &mut RowSummary, runs: &[&Run]) {
    let samples: Vec<Vec<Sampled>> = runs.iter().map(|run| net(summary, run)).collect();
    summary.runs = runs.len() as u32;
    summary.cpus = runs.iter().map(|run| run.cpus).max().unwrap_or(0);
    summary.samples = samples.iter().map(|run| run.len() as u64).sum();
    let (clean, interrupted) = tell_interrupted(summary, runs, &samples);
    summary.interrupted = interrupted.len() as u64;
    summary.variants = variants(&clean, false);
    summary.variants.extend(variants(&interrupted, true));

    let mut values: Vec<i64> = clean.iter().map(|sample| sample.instructions).collect();
    values.sort_unstable();
    // Every figure is a value that occurred, never one between two of them.
    let (Some(floor), Some(median), Some(p99)) =
        (rank(&values, 0.01), rank(&values, 0.5), rank(&values, 0.99))
    else {
        return;
    };
    // Nothing is averaged over seeds: the first one's mean stands for itself.
    let first = clean[0].seed;
    let of_first: Vec<f64> = clean
        .iter()
        .filter(|sample| sample.seed == first)
        .map(|sample| sample.instructions as f64)
        .collect();
    summary.figures = stats::mean(&of_first).ok().map(|mean| Figures {
        floor: floor as f64,
        median: median as f64,
        p99: p99 as f64,
        mean,
        ci95: None,
    });
    if summary.row.name == EMPTY_ROW && median != 0 {
        summary.doubt(
            Verdict::Void,
            format!("an empty bracket reads as {median} instructions, not as 0"),
        );
    }
    check_determinism(summary, runs, &samples);
    check_majority(summary, median, &values);
    check_slope(summary, runs);
    check_idle(summary, runs);
}

/// A run's samples, net of its empty bracket and of the row's delay.
fn net(summary: &mut RowSummary, run: &Run) -> Vec<Sampled> {
    let empties: Vec<u64> = run.samples.iter().map(|sample| sample.empty).collect();
    let Some(empty) = stats::mode(&empties) else {
        return Vec::new();
    };
    if empty.count * 2 <= empties.len() {
        summary.doubt(
            Verdict::Usable,
            "the bracket without the operation did not take the same number each time",
        );
    }
    let off = i128::from(empty.value) + i128::from(summary.row.delay_ticks);
    run.samples
        .iter()
        .map(|sample| Sampled {
            seed: run.seed,
            instructions: clamped(i128::from(sample.op) - off),
        })
        .collect()
}

/// A recording may claim anything; what no machine can count to is as good as the largest number.
fn clamped(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// The value of this probability by nearest rank: one that occurred. Of two middle ones the median
/// is the smaller.
fn rank<T: Copy>(sorted: &[T], probability: f64) -> Option<T> {
    let rank = (probability * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The samples as they are, and those into which an interrupt of the lab's machine fell.
///
/// A sample is interrupted if it is far above the row's value and its run had at least as many
/// interrupts as such samples. Where it had not, some of them are slow paths, nobody can say which,
/// and all stay.
fn tell_interrupted(
    summary: &mut RowSummary,
    runs: &[&Run],
    samples: &[Vec<Sampled>],
) -> (Vec<Sampled>, Vec<Sampled>) {
    let mut values: Vec<i64> = samples.iter().flatten().map(|s| s.instructions).collect();
    values.sort_unstable();
    let value = rank(&values, 0.5).unwrap_or_default();
    let is_far = |sample: &&Sampled| {
        sample.instructions.saturating_sub(value) >= INTERRUPT_INSTRUCTIONS
            && !summary.row.interrupts
    };
    let (mut clean, mut interrupted, mut unexplained) = (vec![], vec![], vec![]);
    let mut interrupts = 0;
    for (run, samples) in runs.iter().zip(samples) {
        let (far, near): (Vec<Sampled>, Vec<Sampled>) = samples.iter().partition(is_far);
        clean.extend(near);
        let of_run = run
            .counters
            .get(counter::CPU_INTERRUPTS)
            .copied()
            .unwrap_or(0)
            .max(0) as u64;
        if far.len() as u64 <= of_run {
            interrupted.extend(far);
        } else {
            interrupts = of_run.saturating_add(interrupts);
            unexplained.extend(far.iter().map(|sample| sample.instructions));
            clean.extend(far);
        }
    }
    if let (Some(least), Some(most)) = (unexplained.iter().min(), unexplained.iter().max()) {
        let why = format!(
            "{} samples took {least} to {most} instructions, and their runs had {interrupts} \
             interrupts: there is a slow path",
            unexplained.len(),
        );
        summary.doubt(Verdict::Usable, why);
    }
    (clean, interrupted)
}

/// Every value with its samples and seeds, the most frequent first.
fn variants(samples: &[Sampled], interrupted: bool) -> Vec<Variant> {
    let mut values: BTreeMap<i64, (u64, BTreeSet<u64>)> = BTreeMap::new();
    for sample in samples {
        let entry = values.entry(sample.instructions).or_default();
        entry.0 += 1;
        entry.1.extend(sample.seed);
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

/// The same seed gives the same values.
fn check_determinism(summary: &mut RowSummary, runs: &[&Run], samples: &[Vec<Sampled>]) {
    if runs.iter().any(|run| run.seed.is_none()) {
        summary.doubt(
            Verdict::Usable,
            "a run does not say its seed: it cannot be repeated",
        );
    }
    let mut first: BTreeMap<(u64, u32), Vec<i64>> = BTreeMap::new();
    for (run, samples) in runs.iter().zip(samples) {
        let Some(seed) = run.seed else { continue };
        let values: Vec<i64> = samples.iter().map(|sample| sample.instructions).collect();
        let known = first
            .entry((seed, run.cpus))
            .or_insert_with(|| values.clone());
        if *known != values {
            summary.doubt(
                Verdict::Usable,
                format!(
                    "seed {seed} did not give the same values twice: this lab is not deterministic"
                ),
            );
        }
    }
}

/// Where no value is in the majority, the median is one of several.
fn check_majority(summary: &mut RowSummary, median: i64, sorted: &[i64]) {
    let samples = sorted.iter().filter(|&&value| value == median).count();
    if samples * 2 > sorted.len() {
        return;
    }
    let others: Vec<&Variant> = summary
        .variants
        .iter()
        .filter(|variant| !variant.interrupted && variant.instructions != median)
        .collect();
    let why = match others.as_slice() {
        [other] => format!(
            "{median} and {} are equally frequent: the smaller one stands for the row",
            other.instructions
        ),
        _ => format!(
            "no value is in the majority: the median of {} different ones, {} to {}, stands for \
             the row",
            others.len() + 1,
            sorted[0],
            sorted[sorted.len() - 1]
        ),
    };
    summary.doubt(Verdict::Usable, why);
}

/// What a run's batches say: the value that most of its repetitions have, or else what the shortest of each
/// kind say. What happens to fall into a batch makes it longer, never shorter, and where that is seldom in an
/// operation it is often in a batch: then no repetition stands for the others, least of all one of two. `None`
/// without batches.
fn slope_of(run: &Run) -> Option<i128> {
    let batches = || run.batches.iter().filter(|batch| batch.n > 0);
    let n = i128::from(batches().next()?.n);
    let slope = |batch: &Batch| {
        let op = i128::from(batch.op_2n) - i128::from(batch.op_n);
        let empty = i128::from(batch.empty_2n) - i128::from(batch.empty_n);
        (op - empty) * SLOPE_PARTS / i128::from(batch.n)
    };
    let mut slopes: Vec<i128> = batches().map(slope).collect();
    slopes.sort_unstable();
    let usual = rank(&slopes, 0.5)?;
    let have_it = slopes.iter().filter(|&&slope| slope == usual).count();
    if have_it * 2 > slopes.len() {
        return Some(usual);
    }
    let shortest = |of: fn(&Batch) -> u64| batches().map(of).min().map(i128::from);
    let op = shortest(|batch| batch.op_2n)? - shortest(|batch| batch.op_n)?;
    let empty = shortest(|batch| batch.empty_2n)? - shortest(|batch| batch.empty_n)?;
    Some((op - empty) * SLOPE_PARTS / n)
}

/// The batch estimator must agree to the instruction: its batches consist of values that occurred.
fn check_slope(summary: &mut RowSummary, runs: &[&Run]) {
    let mut slopes: Vec<i128> = runs.iter().filter_map(|run| slope_of(run)).collect();
    slopes.sort_unstable();
    let Some(slope) = rank(&slopes, 0.5) else {
        return;
    };
    let slope = slope as f64 / SLOPE_PARTS as f64 - summary.row.delay_ticks as f64;
    summary.slope = Some(slope);
    let clean = || {
        let clean = summary.variants.iter().filter(|v| !v.interrupted);
        clean.map(|variant| variant.instructions as f64)
    };
    let least = clean().fold(f64::INFINITY, f64::min);
    let most = clean().fold(f64::NEG_INFINITY, f64::max);
    // 2n operations took between 2n times the least and the most, n operations likewise.
    if slope < 2.0 * least - most - 0.5 || slope > 2.0 * most - least + 0.5 {
        summary.doubt(
            Verdict::Usable,
            format!("the batch estimator says {slope:.1} instructions instead"),
        );
    }
}

/// While every CPU of the lab sleeps, its clock jumps to the next event: ticks, not instructions.
/// With several vCPUs another one was awake.
fn check_idle(summary: &mut RowSummary, runs: &[&Run]) {
    let blocked = |run: &&Run| {
        run.counters
            .get(counter::HALT_WAIT_NS)
            .is_some_and(|&ns| ns > 0)
    };
    if summary.row.halts && summary.row.vcpus == 1 && runs.iter().any(blocked) {
        summary.doubt(
            Verdict::Usable,
            "the vCPU slept in HLT: this is virtual time with idle time in it, not instructions",
        );
    }
}
