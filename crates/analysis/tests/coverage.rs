//! Do the intervals contain the truth as often as they say, and are the answers right? On a
//! simulated host whose truth is known; the seeds are fixed, so a failure is a change in the code.
//!
//! Each test prints what it measured:
//! `cargo test -p exitpath-analysis --test coverage -- --nocapture`

mod simulation;

use exitpath_analysis::compare::{Answer, Comparison, Criteria, PairedBlock, compare};
use exitpath_analysis::stats::{Bootstrap, Confidence, Interval, Sorted, mean, mean_interval};
use simulation::{Host, Row};

const COST_NS: f64 = 1_250.0;
const RUNS: usize = 20;

fn run_means(row: &Row) -> Vec<f64> {
    row.runs.iter().map(|run| mean(run).unwrap()).collect()
}

fn run_medians(row: &Row) -> Vec<f64> {
    row.runs
        .iter()
        .map(|run| Sorted::new(run.clone()).unwrap().median())
        .collect()
}

/// Simulates so many sessions of one row: of each thing asked, in what percentage it held.
fn percentages<const N: usize>(
    sessions: u64,
    host: Host,
    holds: impl Fn(&Row) -> [bool; N],
) -> [f64; N] {
    let mut counts = [0_u32; N];
    for seed in 0..sessions {
        let row = host.session(seed, RUNS, &[COST_NS]).remove(0);
        for (count, holds) in counts.iter_mut().zip(holds(&row)) {
            *count += u32::from(holds);
        }
    }
    counts.map(|count| 100.0 * f64::from(count) / sessions as f64)
}

fn mean_covered(values: &[f64], truth: f64) -> bool {
    let interval = mean_interval(values, Confidence::P95).unwrap().interval();
    interval.contains(truth)
}

/// The distribution-free 95 % interval of a median, from order statistics, normal approximation.
fn median_covered(samples: Vec<f64>, truth: f64) -> bool {
    let sorted = Sorted::new(samples).unwrap();
    let middle = sorted.as_slice().len() as f64 / 2.0;
    let reach = 1.96 * (middle / 2.0).sqrt();
    let at = |rank: f64| sorted.as_slice()[rank as usize];
    Interval {
        lo: at((middle - reach).floor()),
        hi: at((middle + reach).ceil()),
    }
    .contains(truth)
}

#[test]
fn run_level_intervals_of_means_cover_what_they_say() {
    for (name, host) in [("drifting", Host::DRIFTING), ("steady", Host::STEADY)] {
        let [covered] = percentages(1_000, host, |row| {
            [mean_covered(&run_means(row), row.true_mean_ns())]
        });
        eprintln!("{name}: 95 % run-level interval of means covers {covered} %");
        assert!((93.0..=97.0).contains(&covered));
    }
}

#[test]
fn run_level_intervals_of_medians_cover_what_they_say() {
    let [covered] = percentages(500, Host::DRIFTING, |row| {
        [mean_covered(&run_medians(row), row.true_median_ns())]
    });
    eprintln!("drifting: 95 % run-level interval of medians covers {covered} %");
    assert!((93.0..=97.0).contains(&covered));
}

/// Why a run, not a sample, is the unit: "95 %" intervals made from samples miss the truth, those
/// of one run, and those of all runs' samples poured together too.
#[test]
fn intervals_made_from_samples_do_not_cover() {
    let [median_of_one, mean_of_one, median_of_all, mean_of_all] =
        percentages(250, Host::DRIFTING, |row| {
            let (mean, median, all) = (row.true_mean_ns(), row.true_median_ns(), row.runs.concat());
            [
                median_covered(row.runs[0].clone(), median),
                mean_covered(&row.runs[0], mean),
                median_covered(all.clone(), median),
                mean_covered(&all, mean),
            ]
        });
    eprintln!("\"95 %\" from one run's samples: median {median_of_one} %, mean {mean_of_one} %");
    eprintln!("\"95 %\" from all runs' samples: median {median_of_all} %, mean {mean_of_all} %");
    assert!(median_of_one < 20.0);
    assert!(mean_of_one < 75.0);
    assert!(median_of_all < 20.0);
    assert!(mean_of_all < 88.0);
}

/// A limit of the printed interval, not a virtue: of stalls that most runs do not have, 20 runs
/// show too little, and the mean's interval is too narrow. The median's does not care.
#[test]
fn rare_stalls_break_the_interval_of_means_but_not_of_medians() {
    let [of_means, of_medians] = percentages(250, Host::STALLING, |row| {
        [
            mean_covered(&run_means(row), row.true_mean_ns()),
            mean_covered(&run_medians(row), row.true_median_ns()),
        ]
    });
    eprintln!(
        "stalling: run-level interval of means covers {of_means} %, of medians {of_medians} %"
    );
    assert!(of_means < 85.0);
    assert!((93.0..=97.5).contains(&of_medians));
}

/// 2 % of the cost.
const MARGIN_NS: f64 = 25.0;

/// Compares two rows that differ by so much.
fn compared(seed: u64, blocks: usize, difference_ns: f64) -> Comparison {
    compare(&pairs(seed, blocks, difference_ns), &criteria(seed)).unwrap()
}

/// Run means of two rows that differ by so much, measured in the same blocks.
fn pairs(seed: u64, blocks: usize, difference_ns: f64) -> Vec<PairedBlock> {
    let rows = Host::DRIFTING.session(seed, blocks, &[COST_NS, COST_NS + difference_ns]);
    let (a, b) = (run_means(&rows[0]), run_means(&rows[1]));
    a.into_iter()
        .zip(b)
        .zip(0..)
        .map(|((a, b), key)| PairedBlock { key, a, b })
        .collect()
}

fn criteria(seed: u64) -> Criteria {
    Criteria {
        margin: MARGIN_NS,
        confidence: Confidence::P95,
        // Fewer resamples than the default: 2,000 cover the same but take five times as long.
        bootstrap: Bootstrap {
            resamples: 400,
            seed,
        },
    }
}

#[test]
fn a_thing_compared_with_itself_is_the_same() {
    let comparisons: Vec<Comparison> = (0..100).map(|seed| compared(seed, 30, 0.0)).collect();
    let count = |answer| comparisons.iter().filter(|c| c.answer == answer).count();
    let (same, different) = (count(Answer::Same), count(Answer::Different));
    let excluding = comparisons.iter().filter(|c| c.excludes_zero()).count();
    eprintln!(
        "A/A, 30 blocks: same {same}, different {different}, zero excluded {excluding} of 100"
    );
    assert!(same >= 95);
    assert!(different <= 2);
    assert!(excluding <= 7);
}

#[test]
fn an_injected_difference_is_found_within_its_interval() {
    let (mut found, mut covered) = (0, 0);
    for seed in 1_000..1_200 {
        let difference_ns = if seed % 2 == 0 { 50.0 } else { -50.0 };
        let comparison = compared(seed, 20, difference_ns);
        if comparison.answer == Answer::Different {
            found += 1;
            covered += u32::from(comparison.interval.unwrap().contains(difference_ns));
        }
    }
    eprintln!("50 ns either way, 20 blocks: found {found}, in its interval {covered} of 200");
    assert!(covered >= 186);
}

/// A difference at the margin is called "same" about as often as the interval misses on one side.
#[test]
fn a_difference_as_large_as_the_margin_is_seldom_the_same() {
    let same = (2_000..2_100)
        .filter(|&seed| compared(seed, 30, MARGIN_NS).answer == Answer::Same)
        .count();
    eprintln!("difference at the margin: same {same} of 100");
    assert!(same <= 6);
}

#[test]
fn the_blocks_asked_for_bring_an_answer() {
    let (mut undecided, mut answered) = (0, 0);
    for seed in 3_000..3_020 {
        for difference_ns in [0.0, 12.5, 25.0] {
            let mut blocks = pairs(seed, 10, difference_ns);
            let first = compare(&blocks, &criteria(seed)).unwrap();
            let Answer::Undecided { needs_blocks } = first.answer else {
                continue;
            };
            undecided += 1;
            blocks.extend(pairs(seed + 1_000, needs_blocks, difference_ns));
            let again = compare(&blocks, &criteria(seed)).unwrap();
            answered += usize::from(!matches!(again.answer, Answer::Undecided { .. }));
        }
    }
    eprintln!("undecided after 10 blocks {undecided}; answered after those asked for {answered}");
    assert!(undecided >= 20);
    assert!(answered * 100 >= undecided * 90);
}
