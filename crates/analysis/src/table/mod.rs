//! The table of exits: one summary per row of a recording.
//!
//! Two lenses, two summaries. On a host, samples are noisy and runs (fresh VMs) are the unit of
//! replication: `host.rs` pools the samples for quantiles and puts an interval on the mean of run
//! means. In the lab there is no sampling error: the figure is the value that most samples have,
//! every other value is listed with the seeds it occurred under, and interrupted samples are told
//! apart.
//!
//! Whatever a recording says, and be it forged, there is a summary: nothing here panics on it.

mod counts;
mod host;
mod lab;
mod summary;

use std::collections::BTreeSet;

use exitpath_recording::{Machine, Outcome, Recording, RowInfo, Run};

use crate::conditions::first_of_each_row;

pub(crate) use counts::total;
pub(crate) use host::net_mean;
pub use lab::qemu_version;
pub use summary::{Figures, HandledBy, RowSummary, Variant, Verdict};

pub use crate::nothing::of_table as nothing;

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
