//! Recordings to test with: a small one made by hand, and arbitrary ones.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use exitpath_recording::{
    Batch, Block, Bounds, Condition, Difference, Environment, Exit, Instruction, Location, Machine,
    Manifest, Outcome, Part, Plan, Recording, RowInfo, Run, Sample, Segment, Space, Symbol, Trace,
    Window,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The files of a recording without a trace, the manifest last.
pub(crate) const FILES: [&str; 5] = [
    "runs.parquet",
    "counters.parquet",
    "samples.parquet",
    "batches.parquet",
    "manifest.json",
];

/// The files of a recording with a trace, the manifest last.
pub(crate) const TRACED_FILES: [&str; 11] = [
    "runs.parquet",
    "counters.parquet",
    "samples.parquet",
    "batches.parquet",
    "instructions.parquet",
    "paths.parquet",
    "windows.parquet",
    "symbols.parquet",
    "locations.parquet",
    "exits.parquet",
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
        parameters: std::collections::BTreeMap::new(),
        rung: None,
        kick: None,
    };
    let run = |id, row: &str, outcome, samples: u64| Run {
        id,
        row: row.into(),
        condition: exitpath_recording::Condition::BASE.to_owned(),
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
            conditions: vec![exitpath_recording::Condition::base()],
            command: "measure".into(),
            begun_unix_seconds: 1_767_225_600,
            machine: Machine::Lab,
            environment: Environment {
                arch: "x86_64".to_owned(),
                machine_kind: exitpath_recording::kind::SVM.to_owned(),
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

/// The [`small`] recording with the trace of two of its runs.
pub(crate) fn traced() -> Recording {
    let block = |cpu, first, count| Block { cpu, first, count };
    let path = |blocks: &[Block]| exitpath_recording::Path {
        blocks: blocks.to_vec(),
    };
    let exit = |segment, code, info1, info2| Exit {
        segment,
        code,
        info1,
        info2,
    };
    let window = |run, segments: &[(Part, u32)], exits: &[Exit]| Window {
        run,
        exits: Some(exits.to_vec()),
        segments: segments
            .iter()
            .map(|&(part, path)| Segment { part, path })
            .collect(),
    };
    let symbol = |space, address, size, name: &str, module: &str| Symbol {
        space,
        address,
        size,
        name: name.into(),
        module: module.into(),
        condition: None,
    };
    let location = |instruction, depth, function: &str, line| Location {
        instruction,
        depth,
        function: function.into(),
        file: "arch/x86/kvm/svm/svm.c".into(),
        line,
    };
    let instruction = |address, bytes: &[u8]| Instruction {
        address,
        bytes: bytes.to_vec(),
    };
    Recording {
        trace: Some(Trace {
            instructions: vec![
                instruction(0x1000, &[0x0f, 0x31]),
                instruction(0x1002, &[0x0f, 0xa2]),
                instruction(0xffff_ffff_8100_0000, &[0x90]),
                instruction(0xffff_ffff_8100_0001, &[0x66; 15]),
            ],
            paths: vec![
                path(&[block(0, 0, 1)]),
                path(&[block(0, 0, 2), block(1, 2, 2), block(0, 3, 1)]),
                path(&[block(0, 1, 3)]),
            ],
            windows: vec![
                window(
                    2,
                    &[
                        (Part::Between, 2),
                        (Part::Empty, 0),
                        (Part::Between, 2),
                        (Part::Op, 1),
                        (Part::Between, 0),
                    ],
                    &[
                        exit(0, 0x7b, 0x0e0_0010, 0x1000),
                        exit(3, 0x72, 0, 0),
                        exit(3, u64::MAX, u64::MAX, 0),
                    ],
                ),
                window(0, &[(Part::Between, 1)], &[]),
            ],
            symbols: vec![
                symbol(Space::Guest, 0x1000, 2, "bracket", "guest"),
                symbol(Space::Guest, 0x1002, 2, "operation", "guest"),
                symbol(Space::User, 0x1000, 0x20, "main", "exitpath"),
                symbol(
                    Space::Kernel,
                    0xffff_ffff_8100_0000,
                    16,
                    "_stext",
                    "vmlinux",
                ),
                symbol(Space::Kernel, u64::MAX - 4095, 4096, "last", "kvm"),
            ],
            locations: vec![
                location(2, 0, "svm_vcpu_run", 4177),
                location(2, 1, "guest_state_enter_irqoff", 0),
                location(3, 0, "svm_vcpu_run", 4178),
            ],
        }),
        ..small()
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
                arch: "x86_64".to_owned(),
                machine_kind: exitpath_recording::kind::SVM.to_owned(),
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
        text().prop_map(Difference::Tracer),
        extreme().prop_map(|ticks| Difference::Delay { ticks }),
        (text(), option::of(text()))
            .prop_map(|(command, version)| Difference::Vmm { command, version }),
        vec(text(), 0..3).prop_map(Difference::Layers),
        (text(), option::of(text())).prop_map(|(name, sha256)| Difference::Guest { name, sha256 }),
    ]
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
                    parameters: std::collections::BTreeMap::new(),
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
                    condition: exitpath_recording::Condition::BASE.to_owned(),
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

/// A range of positions in something that may have fewer: both are to be taken modulo what is left.
type Range = [usize; 2];

/// Exits of a window: which segment, and what the CPU says.
type Exits = Vec<(usize, [u64; 3])>;

/// What a trace is made of, before references are made to refer to something.
#[derive(Debug, Clone)]
struct Parts {
    instructions: Vec<Instruction>,
    /// Of each path its blocks: CPU, and which instructions.
    paths: Vec<Vec<(u32, Range)>>,
    /// Of each run its segments: part, and which path. None for a run that is not traced.
    windows: Vec<Option<Vec<(Part, usize)>>>,
    /// Of each run its exits: segment, and what the CPU says; or of none.
    exits: Option<Vec<Exits>>,
    backwards: bool,
    /// Space and first address; name, module and the most bytes.
    symbols: BTreeMap<(Option<String>, Space, u64), (String, String, u64)>,
    /// Which instruction and at which depth; function, file and line.
    locations: BTreeMap<(usize, u32), (String, String, u32)>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let instruction = (extreme(), vec(any::<u8>(), 1..=15))
        .prop_map(|(address, bytes)| Instruction { address, bytes });
    let block = (any::<u32>(), any::<Range>());
    let part = prop_oneof![Just(Part::Between), Just(Part::Empty), Just(Part::Op)];
    let space = prop_oneof![Just(Space::Guest), Just(Space::User), Just(Space::Kernel)];
    let window = option::of(vec((part, any::<usize>()), 1..20));
    let exit = (any::<usize>(), [extreme(), extreme(), extreme()]);
    let exits = option::of(vec(vec(exit, 0..5), 8));
    (
        vec(instruction, 0..20),
        vec(vec(block, 1..20), 0..8),
        (vec(window, 8), any::<bool>(), exits),
        btree_map(
            (option::of(text()), space, extreme()),
            (text(), text(), extreme()),
            0..8,
        ),
        btree_map(
            (0..20_usize, any::<u32>()),
            (text(), text(), any::<u32>()),
            0..8,
        ),
    )
        .prop_map(
            |(instructions, paths, (windows, backwards, exits), symbols, locations)| Parts {
                instructions,
                paths,
                windows,
                exits,
                backwards,
                symbols,
                locations,
            },
        )
}

/// As many of these exits as make sense in so many segments, in order.
fn exits(exits: Exits, segments: usize) -> Vec<Exit> {
    let exit = |(segment, [code, info1, info2]): (usize, [u64; 3])| Exit {
        segment: (segment % segments) as u32,
        code,
        info1,
        info2,
    };
    let mut exits: Vec<Exit> = exits.into_iter().map(exit).collect();
    exits.sort_by_key(|exit| exit.segment);
    exits
}

/// The trace of these runs that can be made of the parts.
fn assemble(parts: Parts, runs: &[Run]) -> Trace {
    let instructions = parts.instructions.len();
    let block = |(cpu, [first, count]): (u32, Range)| {
        let first = first % instructions;
        let count = 1 + count % (instructions - first);
        Block {
            cpu,
            first: first as u32,
            count: count as u32,
        }
    };
    let paths = parts.paths.into_iter().filter(|_| instructions > 0);
    let paths = paths.map(|blocks| exitpath_recording::Path {
        blocks: blocks.into_iter().map(block).collect(),
    });
    let paths: Vec<_> = paths.collect();
    let segment = |(part, path): (Part, usize)| Segment {
        part,
        path: (path % paths.len()) as u32,
    };
    let windows = runs.iter().zip(parts.windows);
    let mut windows: Vec<Window> = windows
        .filter_map(|(run, segments)| Some((run.id, segments?)))
        .filter(|_| !paths.is_empty())
        .map(|(run, segments)| Window {
            run,
            segments: segments.into_iter().map(segment).collect(),
            exits: None,
        })
        .collect();
    if let Some(of_runs) = parts.exits {
        for (window, of_run) in windows.iter_mut().zip(of_runs) {
            window.exits = Some(exits(of_run, window.segments.len()));
        }
    }
    // The order is the trace's, not that of the runs.
    if parts.backwards {
        windows.reverse();
    }
    let next = parts.symbols.keys().cloned().skip(1).map(Some);
    let next: Vec<_> = next.chain([None]).collect();
    let symbols = parts.symbols.into_iter().zip(next);
    let symbols = symbols.map(
        |(((condition, space, address), (name, module, size)), next)| {
            let room = match next {
                Some((of, same, next)) if (&of, same) == (&condition, space) => next - address,
                // As far as the last address; the one symbol at 0 cannot have that size.
                _ => (u64::MAX - address).saturating_add(1),
            };
            Symbol {
                space,
                address,
                size: size.min(room),
                name,
                module,
                condition,
            }
        },
    );
    let symbols = symbols.collect();
    let locations = parts.locations.into_iter();
    let locations = locations
        .filter(|((instruction, _), _)| *instruction < instructions)
        .map(|((instruction, depth), (function, file, line))| Location {
            instruction: instruction as u32,
            depth,
            function,
            file,
            line,
        });
    Trace {
        locations: locations.collect(),
        instructions: parts.instructions,
        paths,
        windows,
        symbols,
    }
}

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
            let trace = parts.map(|parts| assemble(parts, &runs));
            Recording {
                manifest,
                runs,
                trace,
            }
        })
}
