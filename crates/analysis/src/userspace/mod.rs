//! The ladder: what each layer of a VMM's path adds to an exit, and whether the layers add up.
//!
//! A run's value is one number: on a host the mean of its samples, because means add up and
//! quantiles do not; in the lab the median, which is the value that nearly all of them have. Off it
//! comes the empty bracket. What a layer costs is the difference to the rung's reference, taken
//! within a block on a host (both were measured close together) and within a seed in the lab, and whether there
//! is a difference at all is answered by the comparison of all such pairs ([`compare`]).
//!
//! ```text
//! delta(rung)   = value(rung) − value(its reference)
//! sum of deltas = Σ delta(rung) over the rungs that all_on is made of
//! interaction   = (value(all_on) − value(bare)) − sum of deltas
//! ```
//!
//! In the lab each difference is also told by function, from the rungs' paths ([`explain`]).

pub mod explain;

use std::collections::BTreeMap;

use exitpath_recording::{Machine, Outcome, Recording, RowInfo, Run, RungInfo, RungRole, counter};

use crate::compare::{Answer, Criteria, Pair, compare, exact, paired};
use crate::conditions::first_of_each_row;
use crate::path::{PathError, PhaseTable};
use crate::stats::{self, Bootstrap, Confidence};
use crate::table::{RowSummary, Verdict, net_mean, summarise, total};
pub use explain::{Explained, Share};

/// Counter of all vCPUs' port writes while samples were taken, and how long that took in ns.
const PHASE: [&str; 2] = [counter::PHASE_PORT_WRITES, counter::PHASE_NS];
/// Counters that show what a rung does, per operation.
const WITNESSES: [&str; 10] = [
    counter::EXITS,
    counter::IO_EXITS,
    counter::HOST_STATE_RELOAD,
    counter::PREEMPTION_REPORTED,
    counter::PREEMPTION_OTHER,
    counter::VOLUNTARY_SWITCHES,
    counter::INVOLUNTARY_SWITCHES,
    counter::CALLS_BY_THREAD_1,
    counter::CALLS_BY_THREAD_2,
    counter::THREAD_CHANGES,
];
/// On a host a layer that adds less than this share of its reference adds nothing that matters.
const NOTHING_OF_REFERENCE: f64 = 0.01;
/// Seed of the resamples by which a host's differences are told.
const SEED: u64 = 1;
/// Rates below this are nothing.
const NEGLIGIBLE: f64 = 0.005;

/// An estimate and its 95 % interval, in ticks. In the lab there is no interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// On a host the mean over runs or blocks, in the lab the first seed's value.
    pub value: f64,
    /// Its interval over runs or blocks; `None` in the lab and for a single one.
    pub ci95: Option<(f64, f64)>,
    /// Runs, blocks or seeds behind it.
    pub n: usize,
}

/// The ladder of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    /// The rungs in the recording's order, those of several vCPUs left out.
    pub rungs: Vec<Rung>,
    /// Whether the layers add up; `None` where a rung for it is missing.
    pub sum: Option<Sum>,
    /// Several vCPUs at once.
    pub locking: Vec<Locking>,
}

/// A rung.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// What the table of exits says of it: verdict, notes, counts.
    pub summary: RowSummary,
    /// Its layers and its reference.
    pub info: RungInfo,
    /// One operation, net of the empty bracket.
    pub value: Option<Estimate>,
    /// The difference to the reference; `None` also where that is void.
    pub delta: Option<Estimate>,
    /// Whether there is a difference, by the pairs behind `delta`.
    pub answer: Option<DeltaAnswer>,
    /// How far to trust the difference: no further than either of the two.
    pub delta_verdict: Verdict,
    /// In the lab, the difference at each seed, where they are not all the same.
    pub delta_by_seed: Vec<(u64, f64)>,
    /// Counters per operation.
    pub witness: BTreeMap<String, f64>,
    /// Whose instructions they are and what the difference consists of, where there is a path.
    pub explained: Option<Explained>,
}

/// Whether a rung differs from its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeltaAnswer {
    /// In the lab, whether there is a difference at any seed.
    pub answer: Answer,
    /// The largest difference that would not matter, in ticks: on a host 1 % of the reference, in the lab 0.
    pub margin: f64,
    /// p of the permutation test against no difference; `None` in the lab.
    pub p: Option<f64>,
}

/// Whether the layers add up.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum {
    /// Without layers.
    pub bare: Estimate,
    /// With all.
    pub all_on: Estimate,
    /// What the layers cost one by one.
    pub sum_of_deltas: Estimate,
    /// What all of them cost together less that.
    pub interaction: Estimate,
    /// The functions it is in, most first; empty where there are no paths.
    pub functions: Vec<(String, i64)>,
    /// What of the interaction the functions do not explain; `None` where there are no paths.
    pub unexplained: Option<i64>,
    /// How far to trust all of it: no further than any of its rungs.
    pub verdict: Verdict,
}

/// Several vCPUs that exit at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Locking {
    /// How many.
    pub vcpus: u32,
    /// `none`, `global` or `device`.
    pub lock: String,
    /// The first vCPU's exits.
    pub per_exit: Option<Estimate>,
    /// Exits of all vCPUs in a second by the machine's clock; in the lab a virtual one, of 10⁹ instructions.
    pub exits_per_second: Option<Estimate>,
    /// Those over one vCPU's under the same lock; on a host the mean of the ratios within blocks.
    pub to_one: Option<Estimate>,
    /// How far to trust it.
    pub verdict: Verdict,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// What pairs runs: the block on a host, the seed's place among the recording's in the lab. With
/// each the rungs' values.
type Values = BTreeMap<usize, BTreeMap<String, f64>>;

/// The ladder of a recording.
///
/// # Errors
/// If the recording has a trace that does not hold together.
pub fn ladder(recording: &Recording, phases: &PhaseTable) -> Result<Ladder, PathError> {
    let recording = &*first_of_each_row(recording);
    let lab = recording.manifest.machine == Machine::Lab;
    let values = values(recording, value);
    let rates = self::values(recording, |run, _| rate(run));
    let paths = explain::Paths::of(recording, phases)?;
    let summaries = summarise(recording);
    let verdict_of = |name: &str| {
        let of_name = |summary: &&RowSummary| summary.row.name == name;
        summaries
            .iter()
            .find(of_name)
            .map(|summary| summary.verdict)
    };
    let (mut rungs, mut locking) = (Vec::new(), Vec::new());
    for mut summary in summaries.iter().cloned() {
        let Some(info) = summary.row.rung.clone() else {
            continue;
        };
        let runs: Vec<&Run> = done(recording, &summary.row.name).collect();
        let name = summary.row.name.clone();
        let own = |values: &BTreeMap<String, f64>| values.get(&name).copied();
        let value = estimate(&values, own, lab);
        if let RungRole::Locking(lock) = &info.role {
            locking.push(Locking {
                vcpus: summary.row.vcpus,
                lock: lock.clone(),
                per_exit: value,
                exits_per_second: estimate(&rates, own, lab),
                to_one: one_vcpu(recording, lock).and_then(|one| {
                    let ratio = |rates: &BTreeMap<String, f64>| {
                        Some(rates.get(&name)? / rates.get(one)?).filter(|ratio| ratio.is_finite())
                    };
                    estimate(&rates, ratio, lab)
                }),
                verdict: summary.verdict,
                notes: notes_on_locking(summary, lab),
            });
            continue;
        }
        let reference = info.reference.as_deref();
        let of_reference = reference.and_then(verdict_of).unwrap_or(summary.verdict);
        let of = |name: &str| -> Vec<(usize, f64)> {
            let of_all = values.iter();
            let of_rung = of_all.filter_map(|(&key, values)| Some((key, *values.get(name)?)));
            of_rung.collect()
        };
        let reference = reference.filter(|_| of_reference != Verdict::Void);
        let pairs =
            reference.map_or_else(Vec::new, |reference| paired(of(reference), of(&name)).pairs);
        let delta = delta(&pairs, lab);
        let explained = paths.explain(
            &name,
            info.reference.as_deref(),
            delta.map(|delta| delta.value),
        );
        if let Some(explained) = explained.as_ref().filter(|explained| explained.idle > 0) {
            let Explained { halts, idle, .. } = *explained;
            summary.notes.push(format!(
                "{idle} of it are no work: the lab's CPU had nothing to run and halted ({halts} times), and its \
                 clock went on"
            ));
        }
        rungs.push(Rung {
            value,
            delta,
            delta_verdict: summary.verdict.max(of_reference),
            answer: answer(&pairs, lab),
            delta_by_seed: if lab {
                by_seed(recording, &pairs)
            } else {
                Vec::new()
            },
            witness: witness(&runs),
            explained,
            summary,
            info,
        });
    }
    let sum = sum(&rungs, &values, lab, &paths);
    Ok(Ladder {
        rungs,
        sum,
        locking,
    })
}

/// The row of one vCPU under this lock.
fn one_vcpu<'a>(recording: &'a Recording, lock: &str) -> Option<&'a str> {
    let is_it = |row: &&RowInfo| {
        let role = row.rung.as_ref().map(|rung| &rung.role);
        row.vcpus == 1 && matches!(role, Some(RungRole::Locking(of)) if of == lock)
    };
    let row = recording.manifest.rows.iter().find(is_it)?;
    Some(&row.name)
}

fn notes_on_locking(summary: RowSummary, lab: bool) -> Vec<String> {
    let mut notes = summary.notes;
    if lab && summary.row.vcpus > 1 {
        notes.push(
            "the emulator runs the lab's CPUs in turns: throughput cannot grow with vCPUs there, \
             and is to be measured on a host"
                .to_owned(),
        );
    }
    notes
}

fn done<'a>(recording: &'a Recording, row: &'a str) -> impl Iterator<Item = &'a Run> {
    let of_row = recording.runs.iter().filter(move |run| run.row == row);
    of_row.filter(|run| run.outcome == Outcome::Done && !run.samples.is_empty())
}

/// What `of` says of every rung in each block or at each seed.
fn values(recording: &Recording, of: impl Fn(&Run, Machine) -> Option<f64>) -> Values {
    let machine = recording.manifest.machine;
    let seeds = &recording.manifest.environment.seeds;
    let mut values = Values::new();
    for row in &recording.manifest.rows {
        if row.rung.is_none() {
            continue;
        }
        for run in done(recording, &row.name) {
            let key = match machine {
                Machine::Host => Some(run.block as usize),
                Machine::Lab => seeds.iter().position(|&seed| run.seed == Some(seed)),
            };
            let value = of(run, machine).filter(|value| value.is_finite());
            if let (Some(key), Some(value)) = (key, value) {
                values
                    .entry(key)
                    .or_default()
                    .insert(row.name.clone(), value);
            }
        }
    }
    values
}

/// A run's value.
fn value(run: &Run, machine: Machine) -> Option<f64> {
    match machine {
        Machine::Host => net_mean(run),
        Machine::Lab => median(run),
    }
}

/// The median of a run's samples, net of its most frequent empty bracket.
fn median(run: &Run) -> Option<f64> {
    let empties: Vec<u64> = run.samples.iter().map(|sample| sample.empty).collect();
    let empty = stats::mode(&empties)?.value as f64;
    let net = run.samples.iter().map(|sample| sample.op as f64 - empty);
    let mut net: Vec<f64> = net.collect();
    net.sort_unstable_by(f64::total_cmp);
    // A value that occurred, never one between two of them.
    net.get((net.len().saturating_sub(1)) / 2).copied()
}

/// On a host the mean and its interval, in the lab the first seed's value.
fn estimate(
    values: &Values,
    of: impl Fn(&BTreeMap<String, f64>) -> Option<f64>,
    lab: bool,
) -> Option<Estimate> {
    let of_all = values.iter();
    let all = of_all.filter_map(|(&key, values)| Some((key, of(values)?)));
    estimated(&all.collect::<Vec<_>>(), lab)
}

/// The same of values with what pairs them.
fn estimated(values: &[(usize, f64)], lab: bool) -> Option<Estimate> {
    let all: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    if lab {
        let of_first_seed = values.iter().find(|(at, _)| *at == 0);
        return Some(Estimate {
            value: of_first_seed?.1,
            ci95: None,
            n: all.len(),
        });
    }
    let interval = stats::mean_interval(&all, Confidence::P95).ok();
    Some(Estimate {
        value: stats::mean(&all).ok()?,
        ci95: interval.map(|interval| (interval.lo, interval.hi)),
        n: all.len(),
    })
}

/// What a rung costs more than its reference.
fn delta(pairs: &[Pair<usize, f64>], lab: bool) -> Option<Estimate> {
    let differences = pairs.iter().map(|pair| (pair.key, pair.difference()));
    estimated(&differences.collect::<Vec<_>>(), lab)
}

/// Whether it costs anything.
fn answer(pairs: &[Pair<usize, f64>], lab: bool) -> Option<DeltaAnswer> {
    if lab {
        let differences: Vec<f64> = pairs.iter().map(Pair::difference).collect();
        return exact(&differences).map(|told| DeltaAnswer {
            answer: told.answer,
            margin: 0.0,
            p: None,
        });
    }
    let of_reference: Vec<f64> = pairs.iter().map(|pair| pair.a).collect();
    let criteria = Criteria {
        margin: NOTHING_OF_REFERENCE * stats::mean(&of_reference).ok()?.abs(),
        confidence: Confidence::P95,
        bootstrap: Bootstrap::seeded(SEED),
    };
    let compared = compare(pairs, &criteria).ok()?;
    Some(DeltaAnswer {
        answer: compared.answer,
        margin: compared.margin,
        p: Some(compared.p),
    })
}

/// The differences at each seed, unless all are the same.
fn by_seed(recording: &Recording, pairs: &[Pair<usize, f64>]) -> Vec<(u64, f64)> {
    let seeds = &recording.manifest.environment.seeds;
    let of_seed = |pair: &Pair<usize, f64>| Some((*seeds.get(pair.key)?, pair.difference()));
    let all: Vec<(u64, f64)> = pairs.iter().filter_map(of_seed).collect();
    let same = all.windows(2).all(|two| two[0].1 == two[1].1);
    if same { Vec::new() } else { all }
}

/// Port writes of all vCPUs in a second.
fn rate(run: &Run) -> Option<f64> {
    let [writes, ns] = PHASE.map(|name| run.counters.get(name).copied());
    let (writes, ns) = (writes? as f64, ns? as f64);
    (ns > 0.0).then(|| writes * 1e9 / ns)
}

fn witness(runs: &[&Run]) -> BTreeMap<String, f64> {
    let ops: u64 = runs.iter().map(|run| run.ops).fold(0, u64::saturating_add);
    let mut witness = BTreeMap::new();
    if ops == 0 {
        return witness;
    }
    for name in WITNESSES {
        let Some(counted) = total(runs, name) else {
            continue;
        };
        let per_op = counted / ops as f64;
        // That it did not happen is the point of some rungs.
        if per_op.abs() >= NEGLIGIBLE
            || [counter::HOST_STATE_RELOAD, counter::THREAD_CHANGES].contains(&name)
        {
            witness.insert(name.to_owned(), per_op);
        }
    }
    // Of all kicks, those before the first sample included.
    if let Some(taken) = total(runs, counter::KICK_TAKEN).filter(|&taken| taken > 0.0) {
        let wakeups = total(runs, counter::KICK_WAKEUPS).unwrap_or(0.0);
        witness.insert("wakeups_per_kick".to_owned(), wakeups / taken);
    }
    let exits = runs
        .iter()
        .map(|run| run.userspace_exits as f64)
        .sum::<f64>();
    witness.insert("userspace_exits".to_owned(), exits / ops as f64);
    witness
}

fn sum(rungs: &[Rung], values: &Values, lab: bool, paths: &explain::Paths) -> Option<Sum> {
    let one = |role: &RungRole| rungs.iter().find(|rung| rung.info.role == *role);
    let (bare, all_on) = (one(&RungRole::Bare)?, one(&RungRole::AllOn)?);
    let name = |rung: &Rung| rung.summary.row.name.clone();
    let parts: Vec<&Rung> = rungs
        .iter()
        .filter(|rung| rung.info.role == RungRole::Part)
        .collect();
    let is_told = |layer: &String| parts.iter().any(|part| part.info.layers.contains(layer));
    if parts.is_empty() || !all_on.info.layers.iter().all(is_told) {
        return None;
    }
    let deltas = parts.iter().map(|part| part.delta_verdict);
    let verdict = deltas.fold(bare.summary.verdict.max(all_on.summary.verdict), Ord::max);
    let parts: Vec<(String, String)> = parts
        .iter()
        .filter_map(|part| Some((name(part), part.info.reference.clone()?)))
        .collect();
    let (bare, all_on) = (name(bare), name(all_on));
    let of_parts = |values: &BTreeMap<String, f64>| {
        let deltas = parts.iter();
        deltas
            .map(|(part, reference)| Some(values.get(part)? - values.get(reference)?))
            .sum::<Option<f64>>()
    };
    let interaction = |values: &BTreeMap<String, f64>| {
        Some(values.get(&all_on)? - values.get(&bare)? - of_parts(values)?)
    };
    // All of it from the same blocks, or it would not add up.
    let mut values = values.clone();
    values.retain(|_, values| interaction(values).is_some());
    let whole = estimate(&values, interaction, lab)?;
    let functions = paths.interaction(&bare, &all_on, &parts);
    let told = |functions: &[(String, i64)]| functions.iter().map(|(_, by)| by).sum::<i64>();
    Some(Sum {
        bare: estimate(&values, |values| values.get(&bare).copied(), lab)?,
        all_on: estimate(&values, |values| values.get(&all_on).copied(), lab)?,
        sum_of_deltas: estimate(&values, of_parts, lab)?,
        interaction: whole,
        unexplained: functions
            .as_deref()
            .map(|functions| whole.value as i64 - told(functions)),
        functions: functions.unwrap_or_default(),
        verdict,
    })
}
