//! Kicks, many ioeventfds, disks and completions, from recordings made up here.

use exitpath_analysis::kick::{Finding, Kicks, Shape, kicks};
use exitpath_analysis::table::Verdict;
use exitpath_recording::{KickInfo, KickPart, Machine, RowInfo, Run};

use crate::build::{With, hung, recording, row, run};

fn kick(name: &str, part: KickPart, how: &str) -> RowInfo {
    RowInfo {
        kick: Some(KickInfo {
            part,
            how: how.to_owned(),
            eventfds: None,
            disks: None,
            requests: None,
        }),
        ..row(name)
    }
}

fn many(how: &str, eventfds: u32) -> RowInfo {
    let mut row = kick(&format!("{how}_{eventfds}"), KickPart::Scaling, how);
    row.kick.as_mut().expect("it is one").eventfds = Some(eventfds);
    row
}

fn disks(how: &str, disks: u32) -> RowInfo {
    let mut row = kick(&format!("{how}_{disks}"), KickPart::Disks, how);
    let kick = row.kick.as_mut().expect("it is one");
    (kick.disks, kick.requests) = (Some(disks), Some(64 * u64::from(disks)));
    row
}

fn in_lab(rows: Vec<RowInfo>, ticks: &[u64]) -> Kicks {
    let runs = rows.iter().zip(ticks);
    let runs = runs.map(|(row, &ticks)| run(&row.name, &[ticks; 9]).seed(1));
    let runs = runs.collect();
    kicks(&recording(Machine::Lab, rows, runs))
}

#[test]
fn one_way_of_kicking_is_one_line() {
    let rows = vec![
        kick("a", KickPart::Cost, "PIO"),
        kick("b", KickPart::Wakeup, "PIO"),
        kick("c", KickPart::Waited, "PIO"),
        kick("d", KickPart::Cost, "MMIO"),
        row("no_kick"),
        kick("e", KickPart::Completion, "irqfd"),
    ];
    let kicks = in_lab(rows, &[1700, 4700, 9000, 4200, 1, 10_000]);
    let value = |line: Option<&exitpath_analysis::kick::Line>| line?.value.map(|v| v.value);
    let [pio, mmio] = kicks.kicks.as_slice() else {
        panic!("two ways: {:?}", kicks.kicks);
    };
    assert_eq!(value(Some(&pio.cost)), Some(1700.0));
    assert_eq!(value(pio.waited.as_ref()), Some(9000.0));
    assert_eq!(value(pio.wakeup.as_ref()), Some(4700.0));
    assert_eq!(value(Some(&mmio.cost)), Some(4200.0));
    assert_eq!((&mmio.waited, &mmio.wakeup), (&None, &None));
    assert_eq!(value(kicks.completions.first()), Some(10_000.0));
    assert_eq!(
        kicks.lines().count(),
        5,
        "the row that is no kick is left out"
    );
}

#[test]
fn how_a_kick_grows_with_ioeventfds_is_told_by_its_last_doubling() {
    let of = |values: fn(u32) -> u64, numbers: &[u32]| {
        let rows = numbers.iter().map(|&n| many("way", n)).collect();
        let ticks: Vec<u64> = numbers.iter().map(|&n| values(n)).collect();
        in_lab(rows, &ticks).trends
    };
    let numbers = [1, 2, 4, 8, 16, 32, 64, 128, 256];
    for (values, shape) in [
        ((|_| 1700) as fn(u32) -> u64, Shape::Flat),
        (|n| 1700 + u64::from(n.is_multiple_of(2)), Shape::Flat),
        (|n| 1700 + 43 * u64::from(n.ilog2()), Shape::Logarithmic),
        (|n| 1700 + 72 * u64::from(n), Shape::Steeper),
        (|n| 3000 - 5 * u64::from(n), Shape::Unclear),
    ] {
        let trends = of(values, &numbers);
        assert_eq!(trends.len(), 1);
        assert_eq!(trends[0].shape, shape, "{trends:?}");
        assert_eq!(trends[0].eventfds, (1, 256));
    }
    assert_eq!(of(|_| 1700, &[4]), [], "one number has no trend");
    // What KVM does with values at one address and with addresses of their own, four numbers each.
    let line = of(
        |n| [1744, 1826, 1890, 2180][n.ilog2() as usize],
        &[1, 2, 4, 8],
    );
    assert_eq!(line[0].shape, Shape::Steeper, "{line:?}");
    let searched = |n: u32| 1734 + 43 * u64::from(n.ilog2().saturating_sub(1));
    let search = of(searched, &numbers);
    assert_eq!(search[0].shape, Shape::Logarithmic, "{search:?}");
    assert_eq!(
        of(|n| 1700 + 72 * u64::from(n), &[1, 2])[0].shape,
        Shape::Unclear
    );
}

#[test]
fn disks_are_told_in_requests_per_second() {
    let rows = vec![disks("shared", 2), disks("each", 2), disks("each", 4)];
    // 128 requests in 2,560,000 instructions, and in half of that.
    let kicks = in_lab(rows, &[2_560_000, 1_280_000, 2_560_000]);
    let rates: Vec<f64> = kicks
        .disks
        .iter()
        .filter_map(|line| line.value.map(|rate| rate.value))
        .collect();
    assert_eq!(rates, [50_000.0, 100_000.0, 100_000.0]);
    let [ratio] = kicks.ratios.as_slice() else {
        panic!("one number of disks has both: {:?}", kicks.ratios);
    };
    assert_eq!((ratio.disks, ratio.each_to_shared), (2, 2.0));
    assert_eq!(ratio.finding, Finding::More);
}

#[test]
fn a_host_says_what_its_intervals_say() {
    let finding = |each: [u64; 4]| {
        let runs = each.into_iter().zip(0..).flat_map(|(each, block)| {
            [("shared_2", 2_000_000), ("each_2", each)].map(|(name, ticks)| Run {
                block,
                ..run(name, &[ticks; 9])
            })
        });
        let rows = vec![disks("shared", 2), disks("each", 2)];
        kicks(&recording(Machine::Host, rows, runs.collect())).ratios[0]
    };
    assert_eq!(
        finding([2_000_000, 2_010_000, 1_990_000, 2_000_000]).finding,
        Finding::Same
    );
    assert_eq!(
        finding([1_000_000, 1_010_000, 990_000, 1_000_000]).finding,
        Finding::More
    );
    assert_eq!(
        finding([4_000_000, 4_100_000, 3_900_000, 4_000_000]).finding,
        Finding::Less
    );
    assert!(matches!(
        finding([1_000_000, 4_000_000, 1_000_000, 4_000_000]).finding,
        Finding::Undecided { needs_blocks: 2.. }
    ));
}

/// A host's recording: each row with its ticks in each block.
fn on_host(rows: &[(RowInfo, &[u64])]) -> Kicks {
    let of_row = |(row, ticks): &(RowInfo, &[u64])| -> Vec<Run> {
        let blocks = ticks.iter().zip(0..);
        let run = |(&ticks, block)| Run {
            block,
            ..run(&row.name, &[ticks; 9])
        };
        blocks.map(run).collect()
    };
    let runs = rows.iter().flat_map(of_row).collect();
    let rows = rows.iter().map(|(row, _)| row.clone()).collect();
    kicks(&recording(Machine::Host, rows, runs))
}

#[test]
fn whether_a_kick_is_flat_on_a_host_is_said_by_the_interval_of_the_difference() {
    // With 1 ioeventfd always the same; with 256 what is given here.
    let shape = |last: &[u64]| {
        let first = vec![10_000; last.len()];
        let trends = on_host(&[(many("way", 1), &first), (many("way", 256), last)]).trends;
        trends[0].shape
    };
    // 200 ticks are the margin. All within it:
    assert_eq!(shape(&[10_010, 9_990, 10_010, 9_990]), Shape::Flat);
    // A real difference below it.
    assert_eq!(shape(&[10_100, 10_101, 10_099, 10_100]), Shape::Flat);
    // The means are the same to the tick, and nothing is known.
    assert!(matches!(
        shape(&[15_000, 5_000, 15_000, 5_000]),
        Shape::Undecided { needs_runs: 100.. }
    ));
    // Nor from a single run, however near.
    assert_eq!(shape(&[10_000]), Shape::Undecided { needs_runs: 1 });
    // It grows, by how is not told by two numbers; it falls.
    assert_eq!(shape(&[12_000, 12_010, 11_990, 12_000]), Shape::Unclear);
    assert_eq!(shape(&[8_000, 8_010, 7_990, 8_000]), Shape::Unclear);
}

#[test]
fn what_all_runs_of_a_block_share_does_not_hide_a_difference() {
    // The machine is slower in each block than in the one before.
    let first = [10_000, 14_000, 18_000, 22_000];
    let last = first.map(|ticks| ticks + 1_000);
    let trend = &on_host(&[(many("way", 1), &first), (many("way", 256), &last)]).trends[0];
    assert_eq!(trend.difference.value, 1_000.0);
    assert_eq!(trend.difference.ci95, Some((1_000.0, 1_000.0)));
    assert_eq!(trend.shape, Shape::Unclear, "it is not flat");
}

#[test]
fn a_law_on_a_host_is_one_that_holds_whichever_runs_are_drawn() {
    let numbers = [1, 2, 4, 8, 16, 32, 64, 128, 256];
    let shape = |value: &dyn Fn(u32, i64) -> i64| {
        let ticks: Vec<Vec<u64>> = numbers
            .iter()
            .map(|&n| (0..8).map(|block| value(n, block) as u64).collect())
            .collect();
        let rows: Vec<(RowInfo, &[u64])> = numbers
            .iter()
            .zip(&ticks)
            .map(|(&n, ticks)| (many("way", n), ticks.as_slice()))
            .collect();
        on_host(&rows).trends[0].shape
    };
    let little = |n: u32, block: i64| (i64::from(n) * 7 + block * 13) % 11 - 5;
    assert_eq!(
        shape(&|n, block| 10_000 + 200 * i64::from(n.ilog2()) + little(n, block)),
        Shape::Logarithmic
    );
    assert_eq!(
        shape(&|n, block| 10_000 + 20 * i64::from(n) + little(n, block)),
        Shape::Steeper
    );
    // Half of the runs follow one law and half the other.
    assert_eq!(
        shape(&|n, block| {
            if block % 2 == 0 {
                10_000 + 640 * i64::from(n.ilog2())
            } else {
                10_000 + 20 * i64::from(n)
            }
        }),
        Shape::Unclear
    );
}

#[test]
fn the_fast_bus_was_taken_where_the_interval_says_so() {
    let taken = |any: &[u64]| {
        let some = vec![10_000; any.len()];
        let kicks = on_host(&[
            (
                kick("a", KickPart::Cost, "MMIO, ioeventfd of length 0"),
                any,
            ),
            (kick("b", KickPart::Cost, "MMIO, ioeventfd wildcard"), &some),
            (kick("c", KickPart::Cost, "MMIO, user exit"), &some),
        ]);
        assert_eq!(kicks.against[0].share, 1.0);
        kicks.fast_bus.expect("both were measured").taken
    };
    assert_eq!(taken(&[5_000, 5_010, 4_990, 5_000]), Some(true));
    assert_eq!(taken(&[9_000, 9_010, 8_990, 9_000]), Some(false));
    // On average 0.75.
    assert_eq!(taken(&[5_000, 10_000, 5_000, 10_000]), None);
    assert_eq!(taken(&[5_000]), None);
}

#[test]
fn a_consumer_that_was_awake_is_said_and_often_voids_the_row() {
    let verdict = |sleeps| {
        let rows = vec![
            kick("c", KickPart::Cost, "PIO"),
            kick("a", KickPart::Waited, "PIO"),
        ];
        let run = run("a", &[1700; 9])
            .seed(1)
            .count("kick.taken", 200)
            .count("kick.wakeups", 200)
            .count("kick.sleeps", sleeps);
        let rows = kicks(&recording(Machine::Lab, rows, vec![run]));
        rows.kicks[0]
            .waited
            .as_ref()
            .expect("it is there")
            .summary
            .verdict
    };
    assert!(verdict(201) < Verdict::Void);
    assert_eq!(verdict(198), Verdict::Usable);
    assert_eq!(verdict(100), Verdict::Void);
}

#[test]
fn what_was_counted_is_summed_and_where_a_thread_sat_is_not() {
    let runs = [1, 2, 3].map(|seed| {
        run("a", &[1700; 9])
            .seed(seed)
            .count("kick.taken", 40)
            .count("kick.same_cpu", 1)
    });
    let rows = vec![kick("a", KickPart::Cost, "PIO")];
    let kicks = kicks(&recording(Machine::Lab, rows, runs.to_vec()));
    let witness = &kicks.kicks[0].cost.witness;
    assert_eq!(witness.get("kick.taken"), Some(&120));
    assert_eq!(witness.get("kick.same_cpu"), Some(&1));
}

#[test]
fn a_lost_wake_up_has_no_figure_and_its_words() {
    let rows = vec![kick("lost", KickPart::Check, "lost")];
    let runs = vec![Run {
        samples: Vec::new(),
        ..run("lost", &[]).ended(hung("the wake-up of kick 1 was lost"))
    }];
    let kicks = kicks(&recording(Machine::Host, rows, runs));
    let line = &kicks.checks[0];
    assert_eq!((line.summary.verdict, line.value), (Verdict::Void, None));
    assert!(line.summary.notes[0].contains("wake-up of kick 1"));
}

#[test]
fn recordings_without_sense_have_no_figures_and_no_panic() {
    let empty = kicks(&recording(Machine::Host, Vec::new(), Vec::new()));
    assert_eq!(empty.lines().count(), 0);
    let mut zero = many("way", 0);
    zero.name = "zero".to_owned();
    let rows = vec![
        zero,
        many("way", u32::MAX),
        disks("each", 0),
        disks("shared", 0),
    ];
    let kicks = in_lab(rows, &[0, u64::MAX / 4, 0, 0]);
    assert_eq!(kicks.ratios, []);
    assert!(kicks.disks.iter().all(|line| line.value.is_none()));
}
