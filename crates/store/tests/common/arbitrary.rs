//! Arbitrary recordings that do not contradict themselves.

mod trace;
mod values;

use std::collections::BTreeMap;

use exitpath_recording::{
    Batch, Condition, Difference, Environment, Machine, Manifest, Outcome, Plan, Recording,
    RowInfo, Run, Sample, kind,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use trace::{assemble, parts};
use values::{bounds, extreme, fact, text};

/// Any recording that does not contradict itself.
pub(crate) fn recordings() -> impl Strategy<Value = Recording> {
    (
        manifest(),
        btree_map(any::<u32>(), run(), 0..8),
        any::<bool>(),
        option::of(parts()),
    )
        .prop_map(|(manifest, runs, backwards, parts)| {
            let mut runs: Vec<Run> = runs
                .into_iter()
                .map(|(id, (row, run))| {
                    let conditions = &manifest.conditions;
                    let condition = conditions[(row / 7) % conditions.len()].name.clone();
                    let row = manifest.rows[row % manifest.rows.len()].name.clone();
                    Run {
                        id,
                        row,
                        condition,
                        ..run
                    }
                })
                .collect();
            // The order is the recording's, not that of the ids.
            if backwards {
                runs.reverse();
            }
            let trace = parts.map(|parts| assemble(parts, &runs, &manifest.conditions));
            Recording {
                manifest,
                runs,
                trace,
            }
        })
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
                arch: "x86_64".to_owned(),
                machine_kind: kind::SVM.to_owned(),
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

/// All kinds of them.
fn difference() -> impl Strategy<Value = Difference> {
    let named = [text(), text(), text()];
    prop_oneof![
        text().prop_map(Difference::Kernel),
        text().prop_map(Difference::Cmdline),
        named.prop_map(|[module, name, value]| Difference::Parameter {
            module,
            name,
            value
        }),
        (text(), option::of(extreme()))
            .prop_map(|(function, returns)| Difference::Patch { function, returns }),
        (text(), knob_kind(), vec(text(), 0..3)).prop_map(|(knob, kind, changes)| {
            Difference::Off {
                knob,
                kind,
                changes,
            }
        }),
        (text(), vec(text(), 0..3)).prop_map(|(knob, changes)| Difference::On { knob, changes }),
        text().prop_map(Difference::Tracer),
        extreme().prop_map(|ticks| Difference::Delay { ticks }),
        (text(), option::of(text()))
            .prop_map(|(command, version)| Difference::Vmm { command, version }),
        vec(text(), 0..3).prop_map(Difference::Layers),
        (text(), option::of(text())).prop_map(|(name, sha256)| Difference::Guest { name, sha256 }),
    ]
}

fn knob_kind() -> impl Strategy<Value = exitpath_recording::KnobKind> {
    use exitpath_recording::KnobKind::{Cmdline, Code, Parameter, Setting, Vm};
    prop::sample::select(vec![Code, Cmdline, Parameter, Setting, Vm])
}

/// Some, each under a name of its own.
fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let named = text().prop_map(|name| format!("condition {name}"));
    let about = (
        vec(difference(), 0..3),
        btree_map(text(), fact(), 0..3),
        vec(text(), 0..2),
    );
    btree_map(named, about, 1..4).prop_map(|conditions| {
        let condition = |(name, (differs, facts, warnings))| Condition {
            name,
            differs,
            facts,
            warnings,
        };
        conditions.into_iter().map(condition).collect()
    })
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
                    parameters: BTreeMap::new(),
                    rung: None,
                    kick: None,
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
        (conditions(), rows),
        vec(text(), 0..3),
    )
        .prop_map(
            |(command, begun_unix_seconds, machine, environment, plan, described, warnings)| {
                let (conditions, rows) = described;
                Manifest {
                    command,
                    begun_unix_seconds,
                    machine,
                    environment,
                    plan,
                    conditions,
                    rows,
                    warnings,
                }
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
                    condition: Condition::BASE.to_owned(),
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
