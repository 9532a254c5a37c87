//! The ladder: differences within blocks and seeds, whether they add up, several vCPUs.

use exitpath_analysis::compare::Answer;
use exitpath_analysis::path::PhaseTable;
use exitpath_analysis::table::Verdict;
use exitpath_analysis::userspace::{Ladder, ladder};
use exitpath_recording::{Machine, Recording, RowInfo, Run, RungInfo, RungRole};

use crate::build::{With, exactly, hung, recording, row, run, skipped};

fn rung(name: &str, reference: Option<&str>, role: RungRole) -> RowInfo {
    RowInfo {
        userspace_exits: exactly(1.0),
        rung: Some(RungInfo {
            layers: Vec::new(),
            reference: reference.map(str::to_owned),
            role,
        }),
        ..row(name)
    }
}

/// Two layers that cost 100 and 50 and together 10 more than that.
fn rungs() -> Vec<RowInfo> {
    vec![
        rung("bare", None, RungRole::Bare),
        rung("one", Some("bare"), RungRole::Part),
        rung("two", Some("one"), RungRole::Part),
        rung("other", Some("bare"), RungRole::Layer),
        rung("all", Some("bare"), RungRole::AllOn),
    ]
}

const TICKS: [(&str, u64); 5] = [
    ("bare", 1000),
    ("one", 1100),
    ("two", 1150),
    ("other", 1007),
    ("all", 1160),
];

fn to_user(name: &str, ticks: u64) -> Run {
    let ops = 20;
    Run {
        userspace_exits: ops,
        ..run(name, &vec![ticks; ops as usize]).slope(ticks)
    }
}

fn of(recording: &Recording) -> Ladder {
    ladder(recording, &PhaseTable::default()).expect("there is no trace to be wrong")
}

/// Six blocks, each of which shifts all rungs by as much.
fn on_host() -> Recording {
    let runs = (0..6).flat_map(|block| {
        TICKS.map(|(name, ticks)| Run {
            block,
            ..to_user(name, ticks + 300 * u64::from(block))
        })
    });
    recording(Machine::Host, rungs(), runs.collect())
}

#[test]
fn what_all_rungs_of_a_block_share_is_in_no_difference() {
    let ladder = of(&on_host());
    let deltas: Vec<Option<f64>> = ladder
        .rungs
        .iter()
        .map(|rung| rung.delta.map(|delta| delta.value))
        .collect();
    assert_eq!(
        deltas,
        [None, Some(100.0), Some(50.0), Some(7.0), Some(160.0)]
    );
    for rung in &ladder.rungs[1..] {
        let delta = rung.delta.expect("it has a reference");
        let (lo, hi) = delta.ci95.expect("six blocks");
        assert!(hi - lo < 1e-6, "{lo} to {hi}");
        let (lo, hi) = rung.value.and_then(|value| value.ci95).expect("six runs");
        assert!(hi - lo > 500.0, "the values themselves vary: {lo} to {hi}");
    }
}

#[test]
fn whether_a_layer_costs_anything_is_answered_within_a_margin() {
    let answers = |recording: &Recording| -> Vec<Option<Answer>> {
        let rungs = of(recording).rungs;
        let answers = rungs.iter().map(|rung| rung.answer.map(|told| told.answer));
        answers.collect()
    };
    let (differs, same) = (Some(Answer::Different), Some(Answer::Same));
    // 1 % of a bare exit, 1000 and 750 of the blocks' shift on average, are more than 7 ticks.
    assert_eq!(answers(&on_host()), [None, differs, differs, same, differs]);
    let mut few = on_host();
    few.runs.retain(|run| run.block < 4);
    let open = Some(Answer::Undecided { needs_blocks: 2 });
    assert_eq!(answers(&few), [None, open, open, open, open]);
    let told = of(&on_host()).rungs[3].answer.expect("it has a reference");
    assert_eq!((told.margin, told.p), (17.5, Some(2.0 / 64.0)));
}

#[test]
fn what_layers_make_of_each_other_is_the_interaction() {
    let sum = of(&on_host()).sum.expect("all rungs are there");
    assert_eq!(sum.sum_of_deltas.value, 150.0);
    assert_eq!(sum.interaction.value, 10.0);
    let all = sum.bare.value + sum.sum_of_deltas.value + sum.interaction.value;
    assert_eq!(sum.all_on.value, all);
}

#[test]
fn without_one_of_the_rungs_there_is_no_sum() {
    for missing in ["bare", "all"] {
        let mut recording = on_host();
        recording.manifest.rows.retain(|row| row.name != missing);
        recording.runs.retain(|run| run.row != missing);
        assert_eq!(of(&recording).sum, None, "{missing}");
    }
    let mut recording = on_host();
    for run in &mut recording.runs {
        if run.row == "two" {
            run.outcome = skipped("it cannot be done here");
            run.samples.clear();
        }
    }
    let ladder = of(&recording);
    assert_eq!(ladder.sum, None, "a part of it was not measured");
    assert_eq!(ladder.rungs[2].summary.verdict, Verdict::Skipped);
    assert_eq!(ladder.rungs[2].delta, None);
}

#[test]
fn a_part_that_was_not_asked_for_is_a_part_that_is_missing() {
    let layers = |name: &str| -> &[&str] {
        match name {
            "one" => &["x"],
            "two" => &["x", "y"],
            "all" => &["x", "y"],
            _ => &[],
        }
    };
    let mut recording = on_host();
    for row in &mut recording.manifest.rows {
        let rung = row.rung.as_mut().expect("a rung");
        rung.layers = layers(&row.name)
            .iter()
            .map(|&name| name.to_owned())
            .collect();
    }
    assert!(of(&recording).sum.is_some());
    recording.manifest.rows.retain(|row| row.name != "two");
    recording.runs.retain(|run| run.row != "two");
    assert_eq!(of(&recording).sum, None);
}

#[test]
fn there_is_no_difference_to_a_void_rung_and_none_is_better_than_its_two() {
    let mut recording = on_host();
    for run in recording.runs.iter_mut().filter(|run| run.row == "one") {
        run.userspace_exits = 0;
    }
    let ladder = of(&recording);
    assert_eq!(ladder.rungs[1].summary.verdict, Verdict::Void);
    assert_eq!(ladder.rungs[1].delta_verdict, Verdict::Void);
    let two = &ladder.rungs[2];
    assert!(two.summary.verdict < Verdict::Void);
    assert_eq!((two.delta, two.delta_verdict), (None, Verdict::Void));
    assert_eq!(ladder.sum.map(|sum| sum.verdict), Some(Verdict::Void));
}

#[test]
fn kicks_that_were_taken_together_void_a_rung() {
    let wakeups = |wakeups| {
        let mut recording = on_host();
        for run in recording.runs.iter_mut().filter(|run| run.row == "other") {
            run.counters.insert("kick.taken".to_owned(), 20);
            run.counters.insert("kick.wakeups".to_owned(), wakeups);
        }
        let ladder = of(&recording);
        assert_eq!(
            ladder.rungs[3].witness["wakeups_per_kick"],
            wakeups as f64 / 20.0
        );
        ladder.rungs[3].summary.verdict
    };
    assert!(wakeups(20) < Verdict::Void);
    assert_eq!(wakeups(13), Verdict::Void);
}

#[test]
fn the_users_first_seed_is_the_one_that_figures_are_of() {
    let runs = [3, 1].into_iter().flat_map(|seed| {
        TICKS
            .map(|(name, ticks)| to_user(name, ticks + seed * u64::from(name != "bare")).seed(seed))
    });
    let mut recording = recording(Machine::Lab, rungs(), runs.collect());
    recording.manifest.environment.seeds = vec![3, 1];
    let ladder = of(&recording);
    assert_eq!(ladder.rungs[1].delta.map(|delta| delta.value), Some(103.0));
    assert_eq!(ladder.rungs[1].delta_by_seed, [(3, 103.0), (1, 101.0)]);
    // Without it there are no figures, rather than another one's.
    recording.runs.retain(|run| run.seed == Some(1));
    let ladder = of(&recording);
    assert!(ladder.rungs.iter().all(|rung| rung.value.is_none()));
}

#[test]
fn a_lab_says_at_which_seed_a_difference_is_another() {
    let runs = [1, 2, 3].into_iter().flat_map(|seed| {
        TICKS.map(|(name, ticks)| {
            let more = u64::from(name == "two" && seed == 3);
            to_user(name, ticks + seed + more).seed(seed)
        })
    });
    let ladder = of(&recording(Machine::Lab, rungs(), runs.collect()));
    for rung in &ladder.rungs {
        assert!(rung.value.is_some_and(|value| value.ci95.is_none()));
        let name = rung.summary.row.name.as_str();
        let expected: &[(u64, f64)] = match name {
            "two" => &[(1, 50.0), (2, 50.0), (3, 51.0)],
            _ => &[],
        };
        assert_eq!(rung.delta_by_seed, expected, "{name}");
    }
    let sum = ladder.sum.expect("all rungs are there");
    assert_eq!(sum.interaction.value, 10.0, "the first seed's");
}

#[test]
fn an_interrupted_sample_does_not_decide_a_rung_in_the_lab() {
    let mut rows = rungs();
    rows.truncate(2);
    let mut runs = vec![to_user("bare", 1000).seed(1), to_user("one", 1100).seed(1)];
    runs[1].samples[7].op += 40_000;
    let ladder = of(&recording(Machine::Lab, rows, runs));
    assert_eq!(ladder.rungs[1].delta.map(|delta| delta.value), Some(100.0));
}

#[test]
fn throughput_is_of_all_vcpus_and_by_the_clock() {
    let locking = |vcpus: u32| RowInfo {
        vcpus,
        ..rung(
            &format!("locked_{vcpus}"),
            None,
            RungRole::Locking("global".to_owned()),
        )
    };
    let run = |vcpus: u32, block, writes| Run {
        block,
        cpus: 8,
        ..to_user(&format!("locked_{vcpus}"), 2000)
            .count("phase.port_writes", writes)
            .count("phase.ns", 1_000_000)
    };
    let runs = vec![
        run(1, 0, 400),
        run(1, 1, 400),
        run(2, 0, 700),
        run(2, 1, 800),
    ];
    let ladder = of(&recording(
        Machine::Host,
        vec![locking(1), locking(2)],
        runs,
    ));
    assert!(ladder.rungs.is_empty());
    let rates: Vec<(u32, Option<f64>)> = ladder
        .locking
        .iter()
        .map(|row| (row.vcpus, row.exits_per_second.map(|rate| rate.value)))
        .collect();
    assert_eq!(rates, [(1, Some(400_000.0)), (2, Some(750_000.0))]);
    assert!(ladder.locking.iter().all(|row| row.lock == "global"));
    // Against one vCPU, within blocks: 1.75 and 2 times.
    let ratios: Vec<Option<f64>> = ladder
        .locking
        .iter()
        .map(|row| row.to_one.map(|ratio| ratio.value))
        .collect();
    assert_eq!(ratios, [Some(1.0), Some(1.875)]);
    let (lo, hi) = ladder.locking[1]
        .to_one
        .and_then(|ratio| ratio.ci95)
        .expect("two blocks");
    assert!(lo < 1.0 && hi > 2.0, "two blocks tell little: {lo} {hi}");
}

#[test]
fn recordings_without_sense_have_a_ladder_without_figures() {
    let none = of(&recording(Machine::Host, Vec::new(), Vec::new()));
    assert!(none.rungs.is_empty() && none.sum.is_none() && none.locking.is_empty());

    let empty = of(&recording(Machine::Lab, rungs(), Vec::new()));
    assert!(empty.rungs.iter().all(|rung| rung.value.is_none()));

    // A rung that is its own reference, one whose reference does not exist, one that hung.
    let rows = vec![
        rung("self", Some("self"), RungRole::Part),
        rung("lost", Some("nowhere"), RungRole::Part),
        rung("hung", Some("self"), RungRole::AllOn),
        rung("bare", None, RungRole::Bare),
    ];
    let mut runs = vec![to_user("self", 5), to_user("lost", 7), to_user("hung", 9)];
    runs[2].outcome = hung("no progress");
    runs[0].counters.insert("phase.ns".to_owned(), i64::MIN);
    runs[1].ops = u64::MAX;
    let ladder = of(&recording(Machine::Host, rows, runs));
    assert_eq!(ladder.sum, None);
    let deltas: Vec<Option<f64>> = ladder
        .rungs
        .iter()
        .map(|rung| rung.delta.map(|delta| delta.value))
        .collect();
    assert_eq!(deltas, [Some(0.0), None, None, None]);
}
