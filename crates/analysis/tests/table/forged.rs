//! A recording may come from anybody: whatever it says, there is a summary and no panic.

use std::collections::BTreeMap;

use exitpath_analysis::table::{Verdict, summarise};
use exitpath_recording::fact::GUESTS_ON_CPU;
use exitpath_recording::{Batch, Bounds, Machine, Outcome, Recording, RowInfo, Run, Sample};
use proptest::prelude::*;

use crate::build::{bare_run, recording, row};

/// Numbers where things overflow, and ordinary ones.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..5_000,
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(1 << 63),
        Just((1 << 63) - 1),
        Just(1 << 53),
        any::<u64>(),
    ]
}

fn count() -> impl Strategy<Value = i64> {
    prop_oneof![0_i64..100, Just(i64::MAX), Just(i64::MIN), any::<i64>()]
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let sample = (number(), number()).prop_map(|(empty, op)| Sample { empty, op });
    prop::collection::vec(sample, 0..8)
}

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let batch = (number(), number(), number(), number(), number()).prop_map(
        |(n, empty_n, empty_2n, op_n, op_2n)| Batch {
            n,
            empty_n,
            empty_2n,
            op_n,
            op_2n,
        },
    );
    prop::collection::vec(batch, 0..4)
}

fn counters() -> impl Strategy<Value = BTreeMap<String, i64>> {
    let name = prop::sample::select(vec![
        "exits",
        "irq_exits",
        "halt_wait_ns",
        "host.cpu_interrupts",
        "host.steal_ticks",
        "host.cpu_steal_ticks",
        "host.smi",
        "vmm.involuntary_switches",
        "guest.tsc_khz",
    ]);
    prop::collection::btree_map(name.prop_map(str::to_owned), count(), 0..9)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let reason = || "why".to_owned();
    prop_oneof![
        8 => Just(Outcome::Done),
        1 => Just(Outcome::Skipped { reason: reason() }),
        1 => Just(Outcome::Hung { reason: reason() }),
        1 => Just(Outcome::Fault { reason: reason() }),
    ]
}

fn run() -> impl Strategy<Value = Run> {
    (
        outcome(),
        prop::option::of(0_u64..4),
        0_u32..3,
        number(),
        number(),
        counters(),
        samples(),
        batches(),
    )
        .prop_map(
            |(outcome, seed, cpus, ops, userspace_exits, counters, samples, batches)| Run {
                outcome,
                seed,
                cpus,
                ops,
                userspace_exits,
                counters,
                samples,
                batches,
                ..bare_run("x")
            },
        )
}

fn row_info() -> impl Strategy<Value = RowInfo> {
    let bounds = || (-1e300..1e300, -1e300..1e300).prop_map(|(min, max)| Bounds { min, max });
    (
        prop::sample::select(vec!["x", "empty"]),
        any::<[bool; 3]>(),
        0_u32..4,
        number(),
        bounds(),
        bounds(),
    )
        .prop_map(
            |(name, [reference, halts, interrupts], vcpus, delay_ticks, exits, userspace_exits)| {
                RowInfo {
                    reference,
                    halts,
                    interrupts,
                    vcpus,
                    delay_ticks,
                    exits,
                    userspace_exits,
                    ..row(name)
                }
            },
        )
}

fn any_recording() -> impl Strategy<Value = Recording> {
    (
        prop::sample::select(vec![Machine::Host, Machine::Lab]),
        row_info(),
        prop::collection::vec(run(), 0..7),
        prop::option::of(number()),
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(machine, row, mut runs, tsc_khz, on_cpu)| {
            for run in &mut runs {
                run.row.clone_from(&row.name);
            }
            let mut recording = recording(machine, vec![row], runs);
            let environment = &mut recording.manifest.environment;
            environment.tsc_khz = tsc_khz;
            environment.facts.clear();
            let on_cpu = on_cpu.map(|on_cpu| (GUESTS_ON_CPU.to_owned(), on_cpu.into()));
            environment.facts.extend(on_cpu);
            recording
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn whatever_it_says_there_is_a_summary(recording in any_recording()) {
        let rows = summarise(&recording);
        prop_assert_eq!(rows.len(), 1);
        let row = &rows[0];
        let host = recording.manifest.machine == Machine::Host;
        // What is not clean says why.
        prop_assert_eq!(row.verdict == Verdict::Clean, row.notes.is_empty());
        // A skipped row has nothing but its notes.
        if row.verdict == Verdict::Skipped {
            prop_assert!(row.figures.is_none() && row.slope.is_none());
            prop_assert!(row.exits_per_op.is_none() && row.handled_by.is_none());
            prop_assert!(row.variants.is_empty() && row.samples == 0);
        }
        if let Some(figures) = row.figures {
            prop_assert!(figures.floor <= figures.median && figures.median <= figures.p99);
            prop_assert!(figures.mean.is_finite());
            if let Some((lo, hi)) = figures.ci95 {
                prop_assert!(host && row.runs > 1);
                prop_assert!(lo <= figures.mean && figures.mean <= hi);
            }
        }
        // Every sample of the lab is among the variants, once.
        let listed: u64 = row.variants.iter().map(|variant| variant.samples).sum();
        prop_assert_eq!(listed, if host { 0 } else { row.samples });
        let interrupted = row.variants.iter().filter(|variant| variant.interrupted);
        prop_assert_eq!(interrupted.map(|v| v.samples).sum::<u64>(), row.interrupted);
    }
}

#[test]
fn a_recording_of_nothing_has_no_rows() {
    for machine in [Machine::Host, Machine::Lab] {
        assert!(summarise(&recording(machine, vec![], vec![])).is_empty());
    }
}

#[test]
fn runs_of_a_row_that_is_not_described_are_left_alone() {
    let recording = recording(Machine::Lab, vec![row("x")], vec![bare_run("y")]);
    let rows = summarise(&recording);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].verdict, Verdict::Skipped);
}
