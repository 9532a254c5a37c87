//! Two small recordings, one of them with a trace.

use std::collections::BTreeMap;

use exitpath_recording::{
    Batch, Block, Bounds, Condition, Environment, Exit, Instruction, Location, Machine, Manifest,
    Outcome, Part, Path, Plan, Recording, RowInfo, Run, Sample, Segment, Space, Symbol, Trace,
    Window, kind,
};
use serde_json::json;

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
        parameters: BTreeMap::new(),
        rung: None,
        kick: None,
    };
    let run = |id, row: &str, outcome, samples: u64| Run {
        id,
        row: row.into(),
        condition: Condition::BASE.to_owned(),
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
            conditions: vec![Condition::base()],
            command: "measure".into(),
            begun_unix_seconds: 1_767_225_600,
            machine: Machine::Lab,
            environment: Environment {
                arch: "x86_64".to_owned(),
                machine_kind: kind::SVM.to_owned(),
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
    let path = |blocks: &[Block]| Path {
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
