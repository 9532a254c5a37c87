//! Runs that did not end as they should: skipped, hung, faulted, empty, missing.

use exitpath_analysis::table::Verdict::{Clean, Skipped, Usable, Void};
use exitpath_recording::{Machine, Outcome, Run};

use crate::build::{
    With, assert_verdict, bare_run, hung, in_lab, on_host, only, recording, row, run, skipped,
};

fn no_ibrs() -> Run {
    bare_run("cpuid").ended(skipped("no IBRS"))
}

#[test]
fn a_row_that_no_run_could_do_is_skipped_with_nulls_and_the_reason() {
    for runs in [vec![no_ibrs()], vec![no_ibrs(), no_ibrs()]] {
        let summary = on_host(row("cpuid"), runs);
        assert_verdict(&summary, Skipped, &["no IBRS"]);
        assert_eq!(summary.figures, None);
        assert_eq!(summary.slope, None);
        assert_eq!(summary.handled_by, None);
        assert_eq!(summary.exits_per_op, None);
        assert_eq!(summary.userspace_exits_per_op, None);
        assert_eq!((summary.samples, summary.runs), (0, 0));
    }
}

#[test]
fn a_row_that_was_not_reached_is_skipped() {
    for machine in [Machine::Host, Machine::Lab] {
        let summary = only(&recording(machine, vec![row("cpuid")], vec![]));
        assert_verdict(&summary, Skipped, &["it was not reached"]);
    }
}

#[test]
fn a_row_that_some_runs_could_do_is_usable() {
    let good = |seed| run("cpuid", &[3_000; 5]).seed(seed);
    let summary = in_lab(row("cpuid"), vec![good(1), no_ibrs().seed(2), good(3)]);
    assert_verdict(&summary, Usable, &["seed 2: no IBRS"]);
    assert_eq!((summary.samples, summary.runs), (10, 2));

    let good = || run("cpuid", &[3_000; 5]);
    let summary = on_host(row("cpuid"), vec![good(), no_ibrs(), good()]);
    assert_verdict(&summary, Usable, &["1 of 3 runs: no IBRS"]);
}

#[test]
fn a_run_that_went_wrong_voids_the_row_whatever_the_others_did() {
    let good = |seed| run("cpuid", &[3_000; 5]).seed(seed);
    let fault = Outcome::Fault {
        reason: "#PF at op".to_owned(),
    };
    for (outcome, note) in [
        (hung("no progress"), "seed 2: no progress"),
        (fault, "seed 2: #PF"),
    ] {
        let bad = bare_run("cpuid").seed(2).ended(outcome);
        let summary = in_lab(row("cpuid"), vec![good(1), bad.clone()]);
        assert_verdict(&summary, Void, &[note]);
        assert_eq!(summary.figures.map(|f| f.median), Some(3_000.0));

        // A skipped run besides does not hide it.
        let runs = vec![good(1), bad.clone(), no_ibrs().seed(3)];
        let summary = in_lab(row("cpuid"), runs);
        assert_verdict(&summary, Void, &[note, "seed 3: no IBRS"]);

        // Nor is a row skipped that could be begun.
        let summary = in_lab(row("cpuid"), vec![no_ibrs().seed(1), bad]);
        assert_verdict(&summary, Void, &["seed 1: no IBRS", note]);
        assert_eq!(summary.figures, None);
    }
}

#[test]
fn runs_without_samples_do_not_count() {
    let summary = on_host(row("cpuid"), vec![bare_run("cpuid")]);
    assert_verdict(&summary, Skipped, &["no samples were taken"]);
    assert_eq!(summary.exits_per_op, None);

    let good = || run("cpuid", &[3_000; 5]);
    let summary = on_host(row("cpuid"), vec![good(), bare_run("cpuid"), good()]);
    assert_verdict(&summary, Usable, &["1 of 3 runs: no samples were taken"]);
    assert_eq!((summary.samples, summary.runs), (10, 2));

    let runs = vec![good().seed(1), bare_run("cpuid").seed(2)];
    let summary = in_lab(row("cpuid"), runs);
    assert_verdict(&summary, Usable, &["seed 2: no samples were taken"]);
    assert_eq!((summary.samples, summary.runs), (5, 1));
}

#[test]
fn a_seed_that_was_planned_and_not_measured_is_named() {
    let runs = vec![run("cpuid", &[3_000; 5]).seed(1)];
    let mut recording = recording(Machine::Lab, vec![row("cpuid")], runs);
    recording.manifest.environment.seeds = vec![1, 2, 3];
    assert_verdict(&only(&recording), Usable, &["seed 2, 3: not measured"]);
}

#[test]
fn what_a_run_notes_makes_the_row_usable_and_is_said_once() {
    let noted = |seed| Run {
        notes: vec!["2 vCPUs on 1 CPU".to_owned()],
        ..run("cpuid", &[3_000; 5]).seed(seed)
    };
    let summary = in_lab(row("cpuid"), vec![noted(1), noted(2)]);
    assert_verdict(&summary, Usable, &["2 vCPUs on 1 CPU"]);
    // A run that hung may know why.
    let summary = in_lab(row("cpuid"), vec![noted(1).ended(hung("no progress"))]);
    assert_verdict(&summary, Void, &["no progress", "2 vCPUs on 1 CPU"]);
}

#[test]
fn rows_come_in_the_recordings_order_with_their_own_runs() {
    let rows = vec![row("b"), row("a"), row("c")];
    let runs = vec![run("a", &[100; 5]).seed(1), run("b", &[200; 5]).seed(1)];
    let recording = recording(Machine::Lab, rows, runs);
    let summaries = exitpath_analysis::table::summarise(&recording);
    let seen: Vec<_> = summaries
        .iter()
        .map(|s| (s.row.name.as_str(), s.figures.map(|f| f.median), s.verdict))
        .collect();
    assert_eq!(
        seen,
        [
            ("b", Some(200.0), Clean),
            ("a", Some(100.0), Clean),
            ("c", None, Skipped)
        ]
    );
}
