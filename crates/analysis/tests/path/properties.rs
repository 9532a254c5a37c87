//! Whatever the stream is: no panic, and the sums hold.

use exitpath_analysis::path::{Incomparable, PathError, PhaseTable, diff_paths, trace_rows};
use exitpath_recording::{Block, Part, Path, Sample, Segment, Space, Symbol, Trace, Window};
use proptest::prelude::*;

use crate::build::*;

/// Names that mean something to the model, and one that does not.
const NAMES: [&str; 20] = [
    "plain",
    "plain.cold",
    "__x86_indirect_thunk_rax",
    "srso_return_thunk",
    "__SCT__x",
    "asm_exc_page_fault",
    "asm_sysvec_apic_timer_interrupt",
    "irq_entries_start",
    "__switch_to_asm",
    "__switch_to",
    "__schedule",
    "__svm_skip_emulated_instruction",
    "kvm_emulate_instruction",
    "x86_emulate_instruction",
    "cr_interception",
    "intr_interception",
    "npf_interception",
    "svm_handle_exit",
    "vcpu_enter_guest",
    "entry_SYSCALL_64",
];

/// Instructions that mean something.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let fixed = prop::sample::select(vec![
        &[0x90][..],
        CPUID,
        RDTSC,
        WRMSR,
        LOAD,
        STI,
        REP_MOVSB,
        CALL_RAX,
        JUMP_RAX,
        &[0xc3],
        IRETQ,
        SYSCALL,
        SYSRETQ,
        VMRUN,
        &[0x06],
        &[],
    ]);
    let relative = (prop::sample::select(vec![0xe8_u8, 0xe9]), -64_i32..64);
    prop_oneof![
        4 => fixed.prop_map(<[u8]>::to_vec),
        2 => relative.prop_map(|(opcode, offset)| {
            [&[opcode][..], &(offset * 16).to_le_bytes()].concat()
        }),
        1 => prop::collection::vec(any::<u8>(), 1..15),
    ]
}

/// Few addresses, so that control comes back to them.
fn address() -> impl Strategy<Value = u64> {
    let base = prop::sample::select(vec![BRACKET, OPERATION, USER, KERNEL, u64::MAX - 0x1000]);
    let kernel = (0..NAMES.len() as u64, 0_u64..8).prop_map(|(f, at)| KERNEL + f * 0x100 + at * 16);
    prop_oneof![
        1 => (base, 0_u64..32).prop_map(|(base, at)| base + at),
        3 => kernel,
    ]
}

prop_compose! {
    fn executed()(
        cpu in prop::sample::select(vec![0_u32, 0, 0, 1, 7]),
        address in address(),
        bytes in bytes(),
        on in 0_u8..4,
    ) -> (Executed, u8) {
        ((cpu, address, bytes), on)
    }
}

/// A stream: some of it runs on from where the last instruction ended, or goes where it says.
fn stream() -> impl Strategy<Value = Vec<Executed>> {
    prop::collection::vec(executed(), 1..60).prop_map(|drawn| {
        let mut stream: Vec<Executed> = Vec::new();
        for ((cpu, address, bytes), on) in drawn {
            let last = stream.iter().rev().find(|last| last.0 == cpu);
            let address = match (last, on) {
                (Some(last), 0 | 1) => last.1.wrapping_add(last.2.len() as u64),
                (Some(last), 2) if last.2.len() == 5 => {
                    let offset = i32::from_le_bytes([last.2[1], last.2[2], last.2[3], last.2[4]]);
                    last.1
                        .wrapping_add(5)
                        .wrapping_add(i64::from(offset) as u64)
                }
                _ => address,
            };
            stream.push((cpu, address, bytes));
        }
        stream
    })
}

fn symbols() -> Vec<Symbol> {
    let symbol = |space, address, size, name: &str, module: &str| Symbol {
        space,
        address,
        size,
        name: name.to_owned(),
        module: module.to_owned(),
        condition: None,
    };
    let mut symbols = vec![
        symbol(Space::Guest, BRACKET, 0x100, "bracket", "guest"),
        symbol(Space::Guest, OPERATION, 8, "operation", "guest"),
        symbol(Space::User, USER, 16, "main", "exitpath"),
    ];
    for (position, name) in (0..).zip(NAMES) {
        let address = KERNEL + position * 0x100;
        symbols.push(symbol(Space::Kernel, address, 0x100, name, "vmlinux"));
    }
    symbols
}

/// A recording of streams, of each of which a round is made of every other one.
fn recorded(streams: &[Vec<Executed>], order: &[usize]) -> exitpath_recording::Recording {
    let mut trace = Trace {
        symbols: symbols(),
        ..Trace::default()
    };
    let mut encoder = Encoder::default();
    let ids: Vec<u32> = streams
        .iter()
        .map(|stream| encoder.path(&mut trace, stream))
        .collect();
    let mut segments = Vec::new();
    let mut samples = Vec::new();
    let parts = [Part::Between, Part::Empty, Part::Between, Part::Op];
    for (&stream, part) in order.iter().zip(parts.into_iter().cycle()) {
        let path = ids[stream % ids.len()];
        segments.push(Segment { part, path });
        if part == Part::Op {
            samples.push(Sample { empty: 5, op: 40 });
        }
    }
    trace.windows.push(Window {
        run: 7,
        segments,
        exits: None,
    });
    recording(trace, samples, 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_stream_hangs_together(
        streams in prop::collection::vec(stream(), 1..6),
        order in prop::collection::vec(0_usize..6, 1..60),
    ) {
        let recording = recorded(&streams, &order);
        let table = PhaseTable::default();
        let rows = trace_rows(&recording, &table).unwrap();
        for row in &rows {
            hangs_together(row);
        }
        match diff_paths(&recording, &recording, &table) {
            Ok(diff) => prop_assert!(
                diff.rows.iter().all(|row| row.delta == 0 && !row.paths_differ())
            ),
            Err(Incomparable::Surrounded(_)) => {
                prop_assert!(rows.iter().all(|row| row.baseline_exits > 0));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn any_table_parses_or_says_why(text in "[a-z*?:@# \n]{0,60}") {
        if let Ok(table) = PhaseTable::parse(&text) {
            let recording = recorded(&[vec![nop(KERNEL)]], &[0, 0, 0, 0]);
            hangs_together(&trace_rows(&recording, &table).unwrap()[0]);
        }
    }
}

#[test]
fn what_does_not_hold_together_is_named() {
    let table = PhaseTable::default();
    let good = recorded(&[vec![nop(KERNEL)]], &[0, 0, 0, 0]);
    let broken = |change: &dyn Fn(&mut Trace)| {
        let mut broken = good.clone();
        change(broken.trace.as_mut().unwrap());
        trace_rows(&broken, &table).unwrap_err()
    };
    let instruction = broken(&|trace| trace.paths[0].blocks[0].count = 2);
    assert_eq!(instruction, PathError::Instruction { path: 0 });
    let path = broken(&|trace| trace.windows[0].segments[0].path = 9);
    assert_eq!(path, PathError::Path { path: 9 });
    let run = broken(&|trace| trace.windows[0].run = 9);
    assert_eq!(run, PathError::Run { run: 9 });
    let block = |cpu| Block {
        cpu,
        first: 0,
        count: 1,
    };
    let cpus = broken(&|trace| {
        trace.paths[0] = Path {
            blocks: (0..300).map(block).collect(),
        }
    });
    assert_eq!(cpus, PathError::Cpus { cpus: 300 });
    let mut samples = good.clone();
    samples.runs[0].samples.clear();
    let error = trace_rows(&samples, &table).unwrap_err();
    assert_eq!(
        error.to_string(),
        "run 7 has 0 samples and its trace 1 brackets; the trace is not whole, record it again"
    );
    assert_eq!(
        trace_rows(
            &exitpath_recording::Recording {
                trace: None,
                ..good
            },
            &table
        ),
        Err(PathError::NoTrace)
    );
}
