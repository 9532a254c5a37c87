//! The lab: exact values, no interval, interrupts told apart.

use exitpath_analysis::table::{Variant, Verdict::Clean, Verdict::Usable, Verdict::Void};
use exitpath_recording::{Machine, RowInfo, Run, Sample};

use crate::build::{
    EMPTY, With, assert_verdict, in_lab, only, quiet_run, recording, reference, row, run,
};

/// A value that many samples have, and others once each.
fn mostly(usual: u64, times: usize, others: &[u64]) -> Vec<u64> {
    let mut net = vec![usual; times];
    net.extend(others);
    net
}

fn variant(instructions: i64, samples: u64, seeds: &[u64], interrupted: bool) -> Variant {
    Variant {
        instructions,
        samples,
        seeds: seeds.to_vec(),
        interrupted,
    }
}

#[test]
fn an_emulator_that_takes_invd_for_wbinvd_has_no_figures_of_it() {
    let of = |name: &str, qemu: &str| {
        let measured = run(name, &[3_012; 50]).seed(1).slope(3_012);
        let mut recording = recording(Machine::Lab, vec![row(name)], vec![measured]);
        recording.manifest.environment.qemu = Some(qemu.to_owned());
        only(&recording)
    };
    let words = ["QEMU before 8.1 exits for INVD with WBINVD's code"];
    for old in ["7.2", "7.2.22 (Debian 1:7.2+dfsg-7)", "8.0.5"] {
        assert_verdict(&of("invd", old), Void, &words);
        assert_ne!(of("wbinvd", old).verdict, Void);
    }
    for new in ["8.1.0", "10.0.2 (Debian)", "11.0.0", "a build of today"] {
        assert_ne!(of("invd", new).verdict, Void, "{new}");
    }
}

#[test]
fn one_value_is_every_figure_and_there_is_no_interval() {
    let runs = (1..=3).map(|seed| run("cpuid", &[3_159; 50]).seed(seed).slope(3_159));
    let summary = in_lab(row("cpuid"), runs.collect());
    assert_verdict(&summary, Clean, &[]);
    let figures = summary.figures.unwrap();
    assert_eq!(
        [figures.floor, figures.median, figures.p99, figures.mean],
        [3_159.0; 4]
    );
    assert_eq!(figures.ci95, None);
    assert_eq!(summary.slope, Some(3_159.0));
    assert_eq!(
        (summary.samples, summary.runs, summary.interrupted),
        (150, 3, 0)
    );
    assert_eq!(summary.variants, [variant(3_159, 150, &[1, 2, 3], false)]);
}

#[test]
fn every_value_is_listed_with_its_seeds_and_none_lies_between_two() {
    let runs = vec![
        run("x", &mostly(3_850, 90, &[3_860; 10])).seed(1),
        run("x", &mostly(3_850, 99, &[3_840])).seed(2),
        run("x", &mostly(3_850, 98, &[3_860; 2])).seed(7),
    ];
    let summary = in_lab(row("x"), runs);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(
        summary.variants,
        [
            variant(3_850, 287, &[1, 2, 7], false),
            variant(3_860, 12, &[1, 7], false),
            variant(3_840, 1, &[2], false),
        ]
    );
    let figures = summary.figures.unwrap();
    assert_eq!(
        (figures.floor, figures.median, figures.p99),
        (3_850.0, 3_850.0, 3_860.0)
    );
    // Nothing is averaged over seeds: this is the mean under seed 1.
    assert_eq!(figures.mean, 3_851.0);
}

#[test]
fn a_value_that_two_others_surround_is_not_made_of_them() {
    // Definition 7 would put the floor at 2,901.
    let summary = in_lab(
        row("x"),
        vec![run("x", &mostly(3_000, 100, &[2_900])).seed(1)],
    );
    let figures = summary.figures.unwrap();
    assert_eq!((figures.floor, figures.p99), (3_000.0, 3_000.0));
    let summary = in_lab(
        row("x"),
        vec![run("x", &mostly(3_000, 99, &[2_900])).seed(1)],
    );
    assert_eq!(summary.figures.unwrap().floor, 2_900.0);
}

#[test]
fn the_bracket_and_the_delay_come_off() {
    let timer = RowInfo {
        interrupts: true,
        delay_ticks: 100_000,
        ..row("tscdeadline")
    };
    let runs = vec![run("tscdeadline", &[104_119; 9]).seed(1).slope(104_118)];
    let summary = in_lab(timer, runs);
    assert_eq!(summary.figures.unwrap().median, 4_119.0);
    assert_eq!(summary.slope, Some(4_118.0));

    // Some brackets were interrupted, which says nothing about the operation.
    let mut with_hits = run("x", &[500; 9]).seed(1);
    with_hits.samples[3].empty += 9_000;
    with_hits.samples[4].empty += 9_100;
    let summary = in_lab(row("x"), vec![with_hits]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.variants, [variant(500, 9, &[1], false)]);
}

#[test]
fn each_run_has_a_bracket_of_its_own() {
    let with_bracket = |seed, empty: u64| Run {
        samples: vec![
            Sample {
                empty,
                op: empty + 700
            };
            5
        ],
        ..run("x", &[700; 5]).seed(seed)
    };
    let summary = in_lab(row("x"), vec![with_bracket(1, 6), with_bracket(2, 9)]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.variants, [variant(700, 10, &[1, 2], false)]);
}

#[test]
fn a_bracket_without_a_usual_value_is_told() {
    let mut unsteady = run("x", &[500; 4]).seed(1);
    unsteady.samples[0].empty = EMPTY + 1;
    unsteady.samples[1].empty = EMPTY + 1;
    let summary = in_lab(row("x"), vec![unsteady]);
    assert_verdict(
        &summary,
        Usable,
        &["the bracket without the operation did not"],
    );
}

#[test]
fn an_empty_bracket_reads_as_nothing() {
    let nothing = quiet_run("empty", &[0; 20]).seed(1);
    assert_verdict(&in_lab(reference("empty"), vec![nothing]), Clean, &[]);
    let one = quiet_run("empty", &[1; 20]).seed(1);
    let summary = in_lab(reference("empty"), vec![one]);
    assert_verdict(
        &summary,
        Void,
        &["an empty bracket reads as 1 instructions"],
    );
}

#[test]
fn samples_that_the_timer_hit_are_reported_and_left_out() {
    let hit = |seed, value| {
        run("x", &mostly(3_388, 99, &[value]))
            .seed(seed)
            .count("host.cpu_interrupts", 1)
    };
    let summary = in_lab(row("x"), vec![hit(1, 16_705), hit(2, 15_604)]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!((summary.samples, summary.interrupted), (200, 2));
    assert_eq!(
        summary.variants,
        [
            variant(3_388, 198, &[1, 2], false),
            variant(15_604, 1, &[2], true),
            variant(16_705, 1, &[1], true),
        ]
    );
    let figures = summary.figures.unwrap();
    assert_eq!((figures.p99, figures.mean), (3_388.0, 3_388.0));
}

#[test]
fn a_slow_path_is_not_taken_for_interrupts() {
    // Three samples far away, two interrupts.
    let slow = run("x", &mostly(3_000, 97, &[8_000; 3]))
        .seed(1)
        .count("host.cpu_interrupts", 2);
    let summary = in_lab(row("x"), vec![slow.clone()]);
    assert_verdict(
        &summary,
        Usable,
        &["3 samples took 8000 to 8000 instructions, and their runs had 2 interrupts"],
    );
    assert_eq!(summary.interrupted, 0);
    assert_eq!(summary.variants[1], variant(8_000, 3, &[1], false));
    assert_eq!(summary.figures.unwrap().p99, 8_000.0);

    // Another run's interrupts explain nothing.
    let busy = run("x", &[3_000; 100])
        .seed(2)
        .count("host.cpu_interrupts", 50);
    assert_eq!(in_lab(row("x"), vec![slow, busy]).verdict, Usable);
}

#[test]
fn nearer_than_an_interrupt_is_a_path() {
    let near = run("x", &mostly(3_000, 99, &[5_499]))
        .seed(1)
        .count("host.cpu_interrupts", 9);
    let summary = in_lab(row("x"), vec![near]);
    assert_eq!(summary.interrupted, 0);
    let far = run("x", &mostly(3_000, 99, &[5_500]))
        .seed(1)
        .count("host.cpu_interrupts", 9);
    let summary = in_lab(row("x"), vec![far]);
    assert_eq!(summary.interrupted, 1);
}

#[test]
fn rows_about_interrupts_keep_them() {
    let timer = RowInfo {
        interrupts: true,
        ..row("x")
    };
    let runs = vec![
        run("x", &mostly(3_000, 99, &[20_000]))
            .seed(1)
            .count("host.cpu_interrupts", 100),
    ];
    let summary = in_lab(timer, runs);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.interrupted, 0);
    assert_eq!(summary.variants[1], variant(20_000, 1, &[1], false));
}

#[test]
fn of_two_values_in_turn_the_smaller_stands_for_the_row() {
    let turns: Vec<u64> = [1_764, 1_700].repeat(50);
    let summary = in_lab(row("x"), vec![run("x", &turns).seed(1).slope(1_732)]);
    assert_verdict(
        &summary,
        Usable,
        &["1700 and 1764 are equally frequent: the smaller one stands"],
    );
    assert_eq!(summary.figures.unwrap().median, 1_700.0);
    assert_eq!(
        summary.variants,
        [
            variant(1_700, 50, &[1], false),
            variant(1_764, 50, &[1], false)
        ]
    );
}

#[test]
fn where_values_scatter_the_median_stands_for_the_row() {
    let scattered: Vec<u64> = (0..99).map(|i| 3_000 + 7 * i).collect();
    let summary = in_lab(row("x"), vec![run("x", &scattered).seed(1)]);
    assert_verdict(
        &summary,
        Usable,
        &["no value is in the majority: the median of 99 different ones, 3000 to 3686"],
    );
    assert_eq!(summary.figures.unwrap().median, 3_343.0);
}

#[test]
fn the_batch_estimator_must_be_made_of_values_that_occurred() {
    let once = |slope| vec![run("x", &[3_000; 10]).seed(1).slope(slope)];
    assert_verdict(&in_lab(row("x"), once(3_000)), Clean, &[]);
    let summary = in_lab(row("x"), once(3_001));
    assert_verdict(&summary, Usable, &["the batch estimator says 3001.0"]);
    assert_eq!(summary.slope, Some(3_001.0));

    // A longer path in the shorter batch makes the slope smaller than any value.
    let mut run = run("x", &mostly(2_945, 190, &[2_975; 2]))
        .seed(1)
        .slope(2_945);
    for batch in &mut run.batches {
        batch.op_n += 30;
    }
    let summary = in_lab(row("x"), vec![run.clone()]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.slope, Some(2_943.125));
    for batch in &mut run.batches {
        batch.op_n += 40 * 16;
    }
    assert_eq!(in_lab(row("x"), vec![run]).verdict, Usable);
}

#[test]
fn a_batch_that_was_interrupted_does_not_decide() {
    let mut run = run("x", &[3_000; 10]).seed(1).slope(3_000);
    run.batches[0].op_2n += 12_000;
    let summary = in_lab(row("x"), vec![run]);
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.slope, Some(3_000.0));
}

#[test]
fn batches_that_were_interrupted_one_and_all_do_not_decide_where_each_kind_has_one_that_was_not() {
    // A pause in the shorter batch makes the difference smaller, one in the longer larger.
    let with = |repetitions: &[(u64, u64)]| {
        let mut run = run("x", &[3_000; 10]).seed(1).slope(3_000);
        let batch = run.batches[0];
        let hit = |&(short, long): &(u64, u64)| {
            let (op_n, op_2n) = (batch.op_n + short, batch.op_2n + long);
            exitpath_recording::Batch {
                op_n,
                op_2n,
                ..batch
            }
        };
        run.batches = repetitions.iter().map(hit).collect();
        in_lab(row("x"), vec![run])
    };
    for repetitions in [
        &[(0, 0)][..],
        &[(9_000, 0), (0, 0)],
        &[(0, 0), (0, 9_000)],
        &[(9_000, 0), (0, 7_000)],
        &[(9_000, 9_100), (8_000, 0), (0, 7_000), (400, 0)],
    ] {
        let summary = with(repetitions);
        assert_eq!(summary.slope, Some(3_000.0), "{repetitions:?}");
        assert_verdict(&summary, Clean, &[]);
    }
    // What all of them have is no chance.
    let summary = with(&[(800, 1_600); 4]);
    assert_verdict(&summary, Usable, &["the batch estimator says 3050.0"]);
}

#[test]
fn the_same_seed_gives_the_same_values() {
    let twice = |net: &[u64]| {
        let first = run("x", &mostly(3_000, 9, &[3_001])).seed(1);
        vec![first, run("x", net).seed(1)]
    };
    let summary = in_lab(row("x"), twice(&mostly(3_000, 9, &[3_001])));
    assert_verdict(&summary, Clean, &[]);
    let summary = in_lab(row("x"), twice(&mostly(3_000, 9, &[3_002])));
    assert_verdict(
        &summary,
        Usable,
        &["seed 1 did not give the same values twice"],
    );
}

#[test]
fn a_run_without_a_seed_makes_no_seed_up() {
    let summary = in_lab(
        row("x"),
        vec![run("x", &[3_000; 5]).seed(4), run("x", &[3_000; 5])],
    );
    assert_verdict(&summary, Usable, &["a run does not say its seed"]);
    assert_eq!(summary.variants, [variant(3_000, 10, &[4], false)]);
}

#[test]
fn a_vcpu_that_slept_has_idle_time_in_its_row() {
    let halting = |vcpus| RowInfo {
        halts: true,
        vcpus,
        ..row("x")
    };
    let slept = || run("x", &[3_000; 5]).seed(1).count("halt_wait_ns", 1);
    assert_verdict(
        &in_lab(halting(1), vec![slept()]),
        Usable,
        &["the vCPU slept"],
    );
    // An interrupt was pending: it did not.
    let awake = run("x", &[3_000; 5]).seed(1);
    assert_verdict(&in_lab(halting(1), vec![awake]), Clean, &[]);
    // The other vCPU was awake.
    assert_verdict(&in_lab(halting(2), vec![slept()]), Clean, &[]);
}

#[test]
fn spinning_vcpus_on_one_cpu_time_its_scheduler() {
    let pair = |halts| RowInfo {
        vcpus: 2,
        interrupts: true,
        halts,
        ..row("ipi")
    };
    let on = |cpus| Run {
        cpus,
        ..run("ipi", &[8_000_000; 5]).seed(1)
    };
    assert_verdict(
        &in_lab(pair(false), vec![on(1)]),
        Void,
        &["vCPUs that spin took turns"],
    );
    assert_verdict(&in_lab(pair(false), vec![on(2)]), Clean, &[]);
    assert_verdict(&in_lab(pair(true), vec![on(1)]), Clean, &[]);
    assert_eq!(in_lab(pair(false), vec![on(2)]).cpus, 2);
}

#[test]
fn the_lab_ignores_what_only_hosts_have() {
    let runs = vec![run("x", &[3_000; 5]).seed(1).count("host.steal_ticks", 99)];
    let mut recording = recording(exitpath_recording::Machine::Lab, vec![row("x")], runs);
    recording.manifest.environment.facts.clear();
    assert_verdict(&only(&recording), Clean, &[]);
}
