//! A host: runs are the unit, times are noisy, and much can speak against them.

use exitpath_analysis::table::HandledBy::{Kernel, Userspace};
use exitpath_analysis::table::{RowSummary, Verdict::Clean, Verdict::Usable, Verdict::Void};
use exitpath_recording::fact::GUESTS_ON_CPU;
use exitpath_recording::{Machine, Recording, RowInfo, Run, Sample};

use crate::build::{
    With, assert_verdict, exactly, on_host, only, quiet_run, recording, reference, row, run,
};

/// A run with 100 samples of about so many ticks, all a little different.
fn about(ticks: u64) -> Run {
    let net: Vec<u64> = (0..100).map(|i| ticks - 5 + i % 11).collect();
    run("cpuid", &net).slope(ticks)
}

fn ten(make: impl Fn(u64) -> Run) -> Vec<Run> {
    (0..10).map(make).collect()
}

/// Ten runs that differ by some ticks.
fn good() -> Vec<Run> {
    ten(|i| about(3_000 + i % 3))
}

fn good_recording() -> Recording {
    recording(Machine::Host, vec![row("cpuid")], good())
}

#[test]
fn a_quiet_row_is_clean_and_has_an_interval_of_run_means() {
    let summary = on_host(row("cpuid"), good());
    assert_verdict(&summary, Clean, &[]);
    assert_eq!(summary.handled_by, Some(Kernel));
    assert_eq!((summary.samples, summary.runs), (1_000, 10));
    assert!(summary.variants.is_empty());
    let figures = summary.figures.unwrap();
    assert!(figures.floor < figures.median && figures.median < figures.p99);
    // Means of the runs: 100 samples are nine whole turns of 0..11 and one that is 0.
    let means: Vec<f64> = (0..10).map(|i| (i % 3) as f64 + 3_000.0 - 0.05).collect();
    let mean = means.iter().sum::<f64>() / 10.0;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / 9.0;
    // R: qt(0.975, 9)
    let reach = 2.262_157 * (variance / 10.0).sqrt();
    let (lo, hi) = figures.ci95.unwrap();
    assert!((figures.mean - mean).abs() < 1e-9);
    assert!((lo - (mean - reach)).abs() < 1e-4 && (hi - (mean + reach)).abs() < 1e-4);
}

#[test]
fn quantiles_are_in_order_however_noisy_the_bracket_is() {
    // The bracket's median is far above its floor, the operation hardly varies.
    let skewed = |_| Run {
        samples: (0..100)
            .map(|i| Sample {
                empty: if i % 10 == 0 { 20 } else { 600 },
                op: 3_000 + i % 3,
            })
            .collect(),
        ..about(2_350)
    };
    let figures = on_host(row("cpuid"), ten(skewed)).figures.unwrap();
    assert_eq!(
        (figures.floor, figures.median, figures.p99),
        (2_400.0, 2_401.0, 2_402.0)
    );
}

#[test]
fn every_run_has_its_own_bracket_and_the_delay_comes_off() {
    let timer = RowInfo {
        delay_ticks: 100_000,
        interrupts: true,
        ..row("cpuid")
    };
    let with_bracket = |i: u64| {
        let mut run = about(104_000);
        for sample in &mut run.samples {
            sample.empty += 50 * i;
            sample.op += 50 * i;
        }
        run
    };
    let summary = on_host(timer, ten(with_bracket));
    assert_verdict(&summary, Clean, &[]);
    let figures = summary.figures.unwrap();
    assert_eq!(figures.median, 4_000.0);
    assert_eq!(summary.slope, Some(4_000.0));
    let (lo, hi) = figures.ci95.unwrap();
    assert!(hi - lo < 1e-6, "brackets differ, the operation does not");
}

#[test]
fn a_single_run_has_no_interval() {
    let summary = on_host(row("cpuid"), vec![about(3_000)]);
    assert_verdict(&summary, Usable, &["a single run has no interval"]);
    assert_eq!(summary.figures.unwrap().ci95, None);
}

#[test]
fn estimators_that_disagree_are_told() {
    for (slope, verdict) in [
        (3_000, Clean),
        (3_299, Clean),
        (3_310, Usable),
        (2_600, Usable),
    ] {
        let summary = on_host(row("cpuid"), ten(|_| about(3_000).slope(slope)));
        assert_eq!(summary.verdict, verdict, "{slope}");
    }
    let summary = on_host(row("cpuid"), ten(|_| about(3_000).slope(4_000)));
    assert_verdict(
        &summary,
        Usable,
        &["the batch estimator says 4000 TSC ticks, the bracketed median 3000"],
    );
    // Of a short operation, 40 ticks may hide in the pipeline.
    let short = |slope| ten(|_| quiet_run("nop", &[20; 100]).slope(slope));
    assert_verdict(&on_host(reference("nop"), short(60)), Clean, &[]);
    assert_eq!(on_host(reference("nop"), short(61)).verdict, Usable);
}

#[test]
fn estimators_agree_only_where_the_interval_of_their_difference_says_so() {
    // Their medians are the same, and each run's are a third apart.
    let slopes = |i| about(3_000).slope(if i % 2 == 0 { 2_000 } else { 4_000 });
    let summary = on_host(row("cpuid"), ten(slopes));
    assert_eq!(summary.slope, Some(3_000.0));
    assert_verdict(
        &summary,
        Usable,
        &[
            "the batch estimator says 3000 TSC ticks, the bracketed median 3000: whether they agree is undecided, 243 more --runs",
        ],
    );
    // What the runs differ by is no matter where both estimators say it.
    let drifting = |i| about(3_000 + 5 * i).slope(3_000 + 5 * i);
    assert_verdict(&on_host(row("cpuid"), ten(drifting)), Clean, &[]);
}

#[test]
fn a_wide_interval_asks_for_runs() {
    let summary = on_host(
        row("cpuid"),
        ten(|i| about(2_000 + 200 * i).slope(2_000 + 200 * i)),
    );
    assert_verdict(&summary, Usable, &["the mean is known to ±15 % only"]);
    // Near zero a percentage says nothing.
    let around_zero = |i| {
        let net = if i % 2 == 0 { 0 } else { 400 };
        let mut run = quiet_run("nop", &[net; 100]);
        run.samples
            .iter_mut()
            .for_each(|sample| sample.empty += 200);
        run
    };
    let summary = on_host(reference("nop"), ten(around_zero));
    assert_verdict(
        &summary,
        Usable,
        &["the mean is known to ±151 TSC ticks only"],
    );
}

#[test]
fn one_run_that_carries_most_of_the_variance_is_told() {
    const NOTE: &str = "one run carries most of the variance between runs";
    let with_one = |odd| {
        on_host(
            row("cpuid"),
            ten(|i| about(if i == 4 { odd } else { 3_000 + i })),
        )
    };
    assert_verdict(&with_one(3_300), Usable, &[NOTE]);
    assert_verdict(&with_one(2_700), Usable, &[NOTE]);
    // What does not matter is not told: 40 ticks.
    assert_verdict(&with_one(3_035), Clean, &[]);
    // Of five ordinary runs one often carries more than half.
    let five = |net: [u64; 5]| on_host(row("cpuid"), net.map(about).to_vec());
    assert_verdict(&five([3_000, 3_010, 3_020, 3_030, 3_080]), Clean, &[]);
    assert_verdict(&five([3_000, 3_001, 3_002, 3_003, 3_300]), Usable, &[NOTE]);
    // Two far out on both sides are no single one.
    let two = |i| {
        about(match i {
            0 => 2_700,
            1 => 3_300,
            _ => 3_000,
        })
    };
    assert_verdict(&on_host(row("cpuid"), ten(two)), Clean, &[]);
}

/// Brackets that read, with nothing in them, as so many ticks in ten runs.
fn empty(net: [i64; 10]) -> RowSummary {
    let of = |net: i64| Run {
        samples: vec![
            Sample {
                empty: 1_000,
                op: (1_000 + net) as u64
            };
            100
        ],
        ..quiet_run("empty", &[0; 100])
    };
    on_host(reference("empty"), net.map(of).to_vec())
}

#[test]
fn an_empty_bracket_must_be_within_its_interval_of_nothing() {
    assert_verdict(&empty([0; 10]), Clean, &[]);
    assert_verdict(&empty([-3, 2, 1, -1, 0, 4, -2, 1, -1, 0]), Clean, &[]);
    let biased = empty([5, 6, 5, 6, 5, 6, 5, 6, 5, 6]);
    assert_verdict(
        &biased,
        Usable,
        &["an empty bracket reads as 5.5 TSC ticks (5.1 to 5.9)"],
    );
    let biased = empty([-5, -6, -5, -6, -5, -6, -5, -6, -5, -6]);
    assert_verdict(
        &biased,
        Usable,
        &["an empty bracket reads as -5.5 TSC ticks"],
    );
    let broken = empty([95, 96, 95, 96, 95, 96, 95, 96, 95, 96]);
    assert_verdict(&broken, Void, &["an empty bracket reads as 95.5 TSC ticks"]);
    // Less than a tick is nothing, however well it is known.
    let mut tiny = [0; 10];
    tiny[..9].fill(1);
    assert_verdict(&empty(tiny), Clean, &[]);
}

#[test]
fn only_the_empty_row_has_to_be_nothing() {
    let runs = ten(|_| quiet_run("nop", &[30; 100]));
    assert_verdict(&on_host(reference("nop"), runs), Clean, &[]);
}

fn with_fact(on_cpu: Option<bool>, row: RowInfo, runs: Vec<Run>) -> RowSummary {
    let mut recording = recording(Machine::Host, vec![row], runs);
    let facts = &mut recording.manifest.environment.facts;
    facts.clear();
    facts.extend(on_cpu.map(|on_cpu| (GUESTS_ON_CPU.to_owned(), on_cpu.into())));
    only(&recording)
}

#[test]
fn interpreted_guests_time_the_interpreter() {
    // The other estimator, the counts and the interval say nothing then, and are not quoted.
    let odd = || ten(|i| about(3_000 + 900 * i).count("exits", 4).slope(9_000));
    let summary = with_fact(Some(false), row("cpuid"), odd());
    assert_verdict(
        &summary,
        Void,
        &["guests are interpreted here: this times the interpreter"],
    );
    assert_eq!(summary.handled_by, None);
    assert_eq!(summary.exits_per_op, Some(0.04));
    assert!(summary.figures.is_some());

    let to_vmm = RowInfo {
        userspace_exits: exactly(1.0),
        ..row("cpuid")
    };
    let user = |slope| {
        ten(|_| Run {
            userspace_exits: 100,
            ..about(3_000).slope(slope)
        })
    };
    const REAL: &str = "guests are interpreted here: only the part above KVM_RUN is real";
    let summary = with_fact(Some(false), to_vmm.clone(), user(3_000));
    assert_verdict(&summary, Usable, &[REAL]);
    assert_eq!(summary.handled_by, Some(Userspace));
    // That part has to stand up to the other checks.
    let summary = with_fact(Some(false), to_vmm, user(9_000));
    assert_verdict(&summary, Usable, &[REAL, "the batch estimator says"]);
}

#[test]
fn where_nobody_checked_whether_guests_run_on_the_cpu_it_is_said() {
    assert_verdict(&with_fact(Some(true), row("cpuid"), good()), Clean, &[]);
    let summary = with_fact(None, row("cpuid"), good());
    assert_verdict(
        &summary,
        Usable,
        &["whether guests run on this machine's CPU is not known"],
    );
}

#[test]
fn without_the_tscs_frequency_there_are_ticks_only() {
    for khz in [None, Some(0)] {
        let mut recording = good_recording();
        recording.manifest.environment.tsc_khz = khz;
        let summary = only(&recording);
        assert_verdict(&summary, Usable, &["the TSC's frequency is unknown"]);
        assert!(summary.figures.is_some());
    }
}

#[test]
fn a_clock_that_counts_tells_no_time() {
    let counted = || ten(|_| run("cpuid", &[3_158; 100]));
    let summary = on_host(row("cpuid"), counted());
    assert_verdict(
        &summary,
        Usable,
        &["every exit took the same number of ticks"],
    );
    // A short operation that makes no exit may well be that regular.
    let nop = ten(|_| quiet_run("nop", &[1; 100]));
    assert_verdict(&on_host(reference("nop"), nop), Clean, &[]);
    let few = (0..5).map(|_| run("cpuid", &[3_158; 3])).collect();
    assert_verdict(&on_host(row("cpuid"), few), Clean, &[]);
}

#[test]
fn a_guest_with_another_tsc_frequency_voids_its_row() {
    for (khz, verdict) in [
        (2_500_000, Clean),
        (2_500_900, Clean),
        (2_503_000, Void),
        (1, Void),
    ] {
        let mut recording = good_recording();
        recording.runs[3] = recording.runs[3].clone().count("guest.tsc_khz", khz);
        assert_eq!(only(&recording).verdict, verdict, "{khz} kHz");
    }
}

#[test]
fn what_disturbed_the_host_is_told() {
    let noisy = |counter, value| {
        let runs = ten(|i| about(3_000 + i % 3).count(counter, value));
        on_host(row("cpuid"), runs)
    };
    for (counter, note) in [
        (
            "host.steal_ticks",
            "the hypervisor below took CPU time away",
        ),
        (
            "host.cpu_steal_ticks",
            "the hypervisor below took CPU time away",
        ),
        ("host.smi", "the firmware interrupted"),
        ("host.thermal_throttle", "the CPU slowed down for heat"),
        (
            "vmm.involuntary_switches",
            "the vCPU's thread often lost its CPU",
        ),
    ] {
        assert_verdict(&noisy(counter, 2), Usable, &[note]);
        assert_verdict(&noisy(counter, 0), Clean, &[]);
        // Steal can run backwards.
        assert_verdict(&noisy(counter, -2), Clean, &[]);
    }
    assert_verdict(&noisy("vmm.involuntary_switches", 1), Clean, &[]);
}

#[test]
fn what_was_stolen_from_other_cpus_does_not_matter_to_one_vcpu() {
    let runs = || {
        ten(|i| {
            about(3_000 + i % 3)
                .count("host.steal_ticks", 9)
                .count("host.cpu_steal_ticks", 0)
        })
    };
    assert_verdict(&on_host(row("cpuid"), runs()), Clean, &[]);
    let pair = RowInfo {
        vcpus: 2,
        halts: true,
        ..row("cpuid")
    };
    assert_verdict(&on_host(pair, runs()), Usable, &["the hypervisor below"]);
}
