//! Recordings to test with: a small one made by hand, and arbitrary ones.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use exitpath_recording::{
    Batch, Bounds, Environment, Machine, Manifest, Outcome, Plan, Recording, RowInfo, Run, Sample,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The files of a recording, the manifest last.
pub(crate) const FILES: [&str; 5] = [
    "runs.parquet",
    "counters.parquet",
    "samples.parquet",
    "batches.parquet",
    "manifest.json",
];

/// The names in a folder, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Three runs of two rows: one done, one skipped, one hung halfway.
pub(crate) fn small() -> Recording {
    let row = |name: &str, reference| RowInfo {
        name: name.into(),
        operation: format!("one {name}"),
        reference,
        halts: false,
        interrupts: false,
        vcpus: 1,
        delay_ticks: 0,
        exits: Bounds { min: 1.0, max: 1.1 },
        userspace_exits: Bounds { min: 0.0, max: 0.0 },
    };
    let run = |id, row: &str, outcome, samples: u64| Run {
        id,
        row: row.into(),
        block: id / 2,
        seed: (id > 0).then_some(u64::MAX - u64::from(id)),
        cpus: 1,
        outcome,
        notes: vec!["two vCPUs shared a CPU".into(); id as usize],
        ops: 1000 * samples,
        userspace_exits: 3,
        counters: BTreeMap::from([("exits".into(), 1000), ("host.steal_ticks".into(), -1)]),
        samples: (0..samples)
            .map(|i| Sample {
                empty: 30 + i % 3,
                op: 1 << (i % 64),
            })
            .collect(),
        batches: (0..samples / 4)
            .map(|i| Batch {
                n: 100,
                empty_n: 1,
                empty_2n: i,
                op_n: u64::MAX,
                op_2n: 7,
            })
            .collect(),
    };
    Recording {
        manifest: Manifest {
            command: "measure".into(),
            begun_unix_seconds: 1_767_225_600,
            machine: Machine::Lab,
            environment: Environment {
                kernel: "6.1.0-56-amd64".into(),
                cmdline: "console=ttyS0".into(),
                cpu: "EPYC-Milan".into(),
                cpus: 1,
                qemu: Some("7.2.22".into()),
                seeds: vec![1, u64::MAX],
                tsc_khz: None,
                exitpath: "0.1.0".into(),
                facts: BTreeMap::from([(
                    "mitigations".into(),
                    json!({ "retbleed": "untrained return thunk", "n": [0.1, -3, null] }),
                )]),
            },
            plan: Plan {
                runs: 3,
                samples: 40,
                batches: 10,
                batch_length: 100,
                order_seed: 7,
            },
            rows: vec![row("cpuid", false), row("empty", true)],
            warnings: vec!["one run hung".into()],
        },
        trace: None,
        runs: vec![
            run(0, "cpuid", Outcome::Done, 40),
            run(
                1,
                "empty",
                Outcome::Skipped {
                    reason: "no x2APIC".into(),
                },
                0,
            ),
            run(
                2,
                "empty",
                Outcome::Hung {
                    reason: "at 0x1000".into(),
                },
                5,
            ),
        ],
    }
}

/// Numbers with their extremes often enough to be met.
fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..300_u64,
        Just(u64::MAX),
        Just(u64::MAX / 2),
        Just(u64::MAX / 2 + 1),
    ]
}

/// Any text: empty, of any script, with controls, quotes and line breaks.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        vec(any::<char>(), 0..12).prop_map(String::from_iter)
    ]
}

fn fact() -> impl Strategy<Value = Value> {
    let float = any::<f64>().prop_filter("JSON has no such number", |it| it.is_finite());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        extreme().prop_map(Value::from),
        float.prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((text(), inner), 0..3).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let bound = any::<f64>().prop_filter("JSON has no such number", |it| it.is_finite());
    [bound.clone(), bound].prop_map(|[min, max]| Bounds { min, max })
}

fn environment() -> impl Strategy<Value = Environment> {
    (
        [text(), text(), text(), text()],
        any::<u32>(),
        option::of(text()),
        vec(extreme(), 0..4),
        option::of(extreme()),
        btree_map(text(), fact(), 0..4),
    )
        .prop_map(
            |([kernel, cmdline, cpu, exitpath], cpus, qemu, seeds, tsc_khz, facts)| Environment {
                kernel,
                cmdline,
                cpu,
                cpus,
                qemu,
                seeds,
                tsc_khz,
                exitpath,
                facts,
            },
        )
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let row = (
        text(),
        any::<[bool; 3]>(),
        any::<u32>(),
        extreme(),
        [bounds(), bounds()],
    );
    // Names are a map's keys, because no row may be described twice.
    let rows = btree_map(text(), row, 1..4).prop_map(|rows| {
        rows.into_iter()
            .map(|(name, row)| {
                let (operation, [reference, halts, interrupts], vcpus, delay_ticks, [exits, user]) =
                    row;
                let userspace_exits = user;
                RowInfo {
                    name,
                    operation,
                    reference,
                    halts,
                    interrupts,
                    vcpus,
                    delay_ticks,
                    exits,
                    userspace_exits,
                }
            })
            .collect()
    });
    let plan =
        (any::<[u32; 4]>(), extreme()).prop_map(|([runs, samples, batches, n], seed)| Plan {
            runs,
            samples,
            batches,
            batch_length: n,
            order_seed: seed,
        });
    let machine = prop_oneof![Just(Machine::Host), Just(Machine::Lab)];
    (
        text(),
        extreme(),
        machine,
        environment(),
        plan,
        rows,
        vec(text(), 0..3),
    )
        .prop_map(
            |(command, begun_unix_seconds, machine, environment, plan, rows, warnings)| Manifest {
                command,
                begun_unix_seconds,
                machine,
                environment,
                plan,
                rows,
                warnings,
            },
        )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Done),
        1 => text().prop_map(|reason| Outcome::Skipped { reason }),
        1 => text().prop_map(|reason| Outcome::Fault { reason }),
        1 => text().prop_map(|reason| Outcome::Hung { reason }),
    ]
}

/// A run, but for its row, of which this is only a number.
fn run() -> impl Strategy<Value = (usize, Run)> {
    let sample = [extreme(), extreme()].prop_map(|[empty, op]| Sample { empty, op });
    let batch = [extreme(), extreme(), extreme(), extreme(), extreme()].prop_map(
        |[n, empty_n, empty_2n, op_n, op_2n]| Batch {
            n,
            empty_n,
            empty_2n,
            op_n,
            op_2n,
        },
    );
    (
        (
            any::<usize>(),
            any::<[u32; 2]>(),
            option::of(extreme()),
            outcome(),
        ),
        (vec(text(), 0..4), [extreme(), extreme()]),
        btree_map(text(), any::<i64>(), 0..5),
        vec(sample, 0..200),
        vec(batch, 0..20),
    )
        .prop_map(
            |(about, (notes, [ops, userspace_exits]), counters, samples, batches)| {
                let (row, [block, cpus], seed, outcome) = about;
                let run = Run {
                    id: 0,
                    row: String::new(),
                    block,
                    seed,
                    cpus,
                    outcome,
                    notes,
                    ops,
                    userspace_exits,
                    counters,
                    samples,
                    batches,
                };
                (row, run)
            },
        )
}

/// Any recording that does not contradict itself.
pub(crate) fn recordings() -> impl Strategy<Value = Recording> {
    (
        manifest(),
        btree_map(any::<u32>(), run(), 0..8),
        any::<bool>(),
    )
        .prop_map(|(manifest, runs, backwards)| {
            let mut runs: Vec<Run> = runs
                .into_iter()
                .map(|(id, (row, run))| {
                    let row = manifest.rows[row % manifest.rows.len()].name.clone();
                    Run { id, row, ..run }
                })
                .collect();
            // The order is the recording's, not that of the ids.
            if backwards {
                runs.reverse();
            }
            Recording {
                manifest,
                runs,
                trace: None,
            }
        })
}
