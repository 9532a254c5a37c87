//! Paths made up here. Only tree and steps are written down; the figures are worked out from them,
//! so that every view of a path must agree with every other.

use exitpath_analysis::path::{
    Artefact, ClassCount, Count, Entered, Executed, Function, Node, Phase, RowPath, Step, Variant,
};
use exitpath_recording::{
    Block, Bounds, Environment, Instruction, Location, Machine, Manifest, Path, Plan, RowInfo,
    Space, Symbol, Trace,
};

/// What a node is, without its figures: parent, name, module, entered, phase, CPU.
type Is = (
    usize,
    &'static str,
    &'static str,
    Entered,
    &'static str,
    u32,
);
/// A step: node, instructions, whether it is skip-emulation.
type Went = (usize, u64, bool);

fn space(module: &str) -> Space {
    match module {
        "guest" => Space::Guest,
        "exitpath" | "libc.so.6" => Space::User,
        _ => Space::Kernel,
    }
}

fn add(count: &mut Count, step: &Step) {
    count.all += step.instructions;
    count.lean += if step.skipped { 0 } else { step.instructions };
}

fn path(row: &str, nodes: &[Is], steps: &[Went]) -> RowPath {
    let steps: Vec<Step> = steps
        .iter()
        .map(|&(node, instructions, skipped)| Step {
            node,
            instructions,
            skipped,
        })
        .collect();
    let mut tree: Vec<Node> = nodes
        .iter()
        .map(|&(parent, name, module, entered, phase, cpu)| Node {
            parent,
            name: name.to_owned(),
            module: module.to_owned(),
            space: space(module),
            cpu,
            entered,
            calls: u64::from(entered != Entered::Before),
            own: Count::default(),
            total: Count::default(),
            phase: phase.to_owned(),
        })
        .collect();
    for step in &steps {
        add(&mut tree[step.node].own, step);
        let mut at = step.node;
        loop {
            add(&mut tree[at].total, step);
            if at == 0 {
                break;
            }
            at = tree[at].parent;
        }
    }
    let total = tree[0].total;

    let mut phases: Vec<Phase> = Vec::new();
    let mut functions: Vec<Function> = Vec::new();
    for node in &tree[1..] {
        if !phases.iter().any(|phase| phase.name == node.phase) {
            phases.push(Phase {
                name: node.phase.clone(),
                instructions: Count::default(),
            });
        }
        let phase = phases.iter_mut().find(|phase| phase.name == node.phase);
        let phase = &mut phase.expect("just made").instructions;
        phase.all += node.own.all;
        phase.lean += node.own.lean;
        let known = functions
            .iter_mut()
            .find(|f| (&f.name, &f.module) == (&node.name, &node.module));
        let calls = Count {
            all: node.calls,
            lean: if node.total.lean > 0 { node.calls } else { 0 },
        };
        match known {
            Some(function) => {
                for (sum, more) in [
                    (&mut function.own, node.own),
                    (&mut function.total, node.total),
                    (&mut function.calls, calls),
                ] {
                    sum.all += more.all;
                    sum.lean += more.lean;
                }
            }
            None => functions.push(Function {
                name: node.name.clone(),
                module: node.module.clone(),
                space: node.space,
                phase: node.phase.clone(),
                own: node.own,
                total: node.total,
                calls,
            }),
        }
    }
    functions.sort_by_key(|function| std::cmp::Reverse(function.own.all));
    RowPath {
        row: row.to_owned(),
        run: 0,
        seed: Some(1),
        cpus: 1,
        rounds: 2_000,
        total,
        baseline: Count::default(),
        baseline_exits: 0,
        delay: 0,
        guest_timed: total.all - 1,
        intercepted: 1,
        residual: 0,
        rounds_with_residual: 0,
        rounds_with_empty_residual: 0,
        exits: 1,
        exit_reasons: None,
        phases,
        functions,
        classes: Vec::new(),
        variants: vec![Variant {
            rounds: 2_000,
            total: total.all,
            range: (total.all, total.all),
            differs_by: String::new(),
            exit_reasons: None,
        }],
        artefacts: Vec::new(),
        tree,
        steps,
        instructions: Vec::new(),
    }
}

const CPUID_NODES: &[Is] = &[
    (0, "", "", Entered::Before, "", 0),
    (0, "vcpu_enter_guest", "kvm", Entered::Before, "run loop", 0),
    (
        1,
        "svm_vcpu_run",
        "kvm_amd",
        Entered::Before,
        "world switch",
        0,
    ),
    (
        2,
        "__svm_vcpu_run",
        "kvm_amd",
        Entered::Before,
        "world switch",
        0,
    ),
    (3, "guest", "guest", Entered::Vmrun, "guest", 0),
    (
        1,
        "svm_handle_exit",
        "kvm_amd",
        Entered::Call,
        "exit dispatch",
        0,
    ),
    (
        5,
        "kvm_emulate_cpuid",
        "kvm",
        Entered::TailCall,
        "handler",
        0,
    ),
    (6, "kvm_cpuid", "kvm", Entered::Call, "handler", 0),
    (
        6,
        "kvm_skip_emulated_instruction",
        "kvm",
        Entered::TailCall,
        "skip-emulation",
        0,
    ),
    (
        8,
        "x86_decode_insn",
        "kvm",
        Entered::Call,
        "skip-emulation",
        0,
    ),
    (
        8,
        "kvm_pmu_trigger_event",
        "kvm",
        Entered::Call,
        "PMU emulation",
        0,
    ),
    (
        10,
        "__x86_indirect_thunk_rax",
        "vmlinux",
        Entered::TailCall,
        "PMU emulation",
        0,
    ),
    (
        1,
        "svm_vcpu_run",
        "kvm_amd",
        Entered::Call,
        "world switch",
        0,
    ),
    (
        12,
        "__svm_vcpu_run",
        "kvm_amd",
        Entered::Call,
        "world switch",
        0,
    ),
    (13, "guest", "guest", Entered::Vmrun, "guest", 0),
];

const CPUID_STEPS: &[Went] = &[
    (4, 1, false),
    (3, 43, false),
    (2, 96, false),
    (1, 310, false),
    (5, 61, false),
    (6, 30, false),
    (7, 402, false),
    (6, 4, false),
    (8, 12, false),
    (8, 29, true),
    (9, 191, true),
    (8, 7, true),
    (10, 120, false),
    (11, 3, false),
    (10, 14, false),
    (8, 2, false),
    (1, 1_204, false),
    (12, 88, false),
    (13, 51, false),
    (14, 1, false),
];

/// A row that the kernel answers, with variants, classes and artefacts.
pub(crate) fn cpuid() -> RowPath {
    let mut path = path("cpuid", CPUID_NODES, CPUID_STEPS);
    let total = path.total.all;
    let variant = |rounds, total, range, differs_by: &str| Variant {
        rounds,
        total,
        range,
        differs_by: differs_by.to_owned(),
        exit_reasons: None,
    };
    path.variants = vec![
        variant(1_987, total, (total, total), ""),
        variant(12, 9_321, (9_321, 9_340), "+ timer interrupt"),
        variant(
            1,
            61_204,
            (61_204, 61_204),
            "same calls, other order or loops: +58,535",
        ),
    ];
    let some = |parts: &[(&str, u64)]| -> Vec<(String, u64)> {
        parts
            .iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect()
    };
    path.classes = vec![
        ClassCount {
            class: "msr-access",
            count: Count { all: 4, lean: 4 },
            phases: some(&[("world switch", 4)]),
            functions: some(&[("svm_vcpu_run", 3), ("__svm_vcpu_run", 1)]),
        },
        ClassCount {
            class: "indirect-branch",
            count: Count {
                all: 1_026,
                lean: 1_020,
            },
            phases: some(&[("run loop", 1_020), ("skip-emulation", 6)]),
            functions: some(&[
                ("vcpu_enter_guest", 900),
                ("kvm_cpuid", 100),
                ("svm_handle_exit", 20),
                ("x86_decode_insn", 5),
                ("kvm_skip_emulated_instruction", 1),
            ]),
        },
    ];
    path.artefacts = vec![
        Artefact {
            what: "skip-emulation, the lab's CPU lacks NRIPS".to_owned(),
            lacks: "nrip-save",
            instructions: total - path.total.lean,
        },
        Artefact {
            what: "reads of an emulated PM timer".to_owned(),
            lacks: "a PM timer",
            instructions: 12,
        },
    ];
    path
}

/// A row that user space answers, with an interrupt, a system call, and a second CPU.
pub(crate) fn inl_from_qemu() -> RowPath {
    use Entered::{Before, Call, Interrupt, SystemCall, TailCall, Vmrun};
    let nodes: &[Is] = &[
        (0, "", "", Before, "", 0),
        (
            0,
            "exitpath_vmm::run::Vcpu::run_once",
            "exitpath",
            Before,
            "user space",
            0,
        ),
        (1, "ioctl", "libc.so.6", Before, "user space", 0),
        (2, "entry_SYSCALL_64", "vmlinux", Before, "system call", 0),
        (3, "kvm_vcpu_ioctl", "kvm", Before, "ioctl", 0),
        (4, "guest", "guest", Vmrun, "guest", 0),
        (1, "ioctl", "libc.so.6", Call, "user space", 0),
        (
            6,
            "entry_SYSCALL_64",
            "vmlinux",
            SystemCall,
            "system call",
            0,
        ),
        (7, "kvm_vcpu_ioctl", "kvm", TailCall, "ioctl", 0),
        (
            8,
            "asm_sysvec_apic_timer_interrupt",
            "vmlinux",
            Interrupt,
            "interrupt",
            0,
        ),
        (8, "guest", "guest", Vmrun, "guest", 0),
        (0, "default idle", "vmlinux", Before, "idle", 1),
        (
            11,
            "asm_sysvec_call_function_single",
            "vmlinux",
            Interrupt,
            "interrupt",
            1,
        ),
    ];
    let steps: &[Went] = &[
        (5, 1, false),
        (4, 800, false),
        (3, 50, false),
        (2, 7, false),
        (1, 40, false),
        (11, 5, false),
        (12, 333, false),
        (11, 4, false),
        (1, 2, false),
        (6, 9, false),
        (7, 60, false),
        (8, 400, false),
        (8, 31, true),
        (9, 120, false),
        (8, 210, false),
        (10, 2, false),
    ];
    let mut path = path("inl_from_qemu", nodes, steps);
    path.cpus = 2;
    path.residual = -3;
    path.guest_timed += 3;
    path.rounds_with_residual = 2_000;
    path
}

/// A trace in which `kvm_pmu_trigger_event` of [`cpuid`] has instructions and lines, in two parts
/// as compilers make them, and a function of the same name in another module.
pub(crate) fn with_instructions(path: &mut RowPath) -> Trace {
    const HOT: u64 = 0xffff_ffff_c0a0_1230;
    const COLD: u64 = 0xffff_ffff_c0a8_0000;
    let name = "kvm_pmu_trigger_event";
    let hot = path.functions.iter().position(|f| f.name == name);
    let hot = hot.expect("a function of the path");
    path.functions.push(Function {
        module: "kvm_intel".to_owned(),
        ..path.functions[hot].clone()
    });
    let other = path.functions.len() - 1;
    // Address, length, times, text, function.
    let executed: &[(u64, usize, u64, &str, usize)] = &[
        (HOT, 5, 1, "nopl 0x0(%rax,%rax,1)", hot),
        (HOT + 5, 2, 1, "push %rbp", hot),
        (HOT + 7, 4, 33, "cmp %rdx,(%rax)", hot),
        (HOT + 11, 2, 33, "jne 0xffffffffc0a0125a", hot),
        (HOT + 42, 5, 1_033, "call 0xffffffff81e01e40", hot),
        (HOT + 47, 5, 1, "jmp 0xffffffffc0a80000", hot),
        (COLD, 3, 1, "xor %eax,%eax", hot),
        (COLD + 3, 1, 1, "ret", hot),
        (0xffff_ffff_c0b0_0000, 1, 1, "ret", other),
    ];
    let mut trace = Trace::default();
    for (id, &(address, length, times, text, function)) in executed.iter().enumerate() {
        trace.instructions.push(Instruction {
            address,
            bytes: vec![0x90; length],
        });
        path.instructions.push(Executed {
            id: id as u32,
            space: Space::Kernel,
            address,
            times: Count {
                all: times,
                lean: if times > 1_000 { 1_000 } else { times },
            },
            function,
            offset: address & 0xfff,
            cold: address >= COLD,
            text: text.to_owned(),
            form: text.split(' ').next().unwrap_or_default().to_owned(),
        });
    }
    trace.paths.push(Path {
        blocks: vec![Block {
            cpu: 0,
            first: 0,
            count: executed.len() as u32,
        }],
    });
    let symbol = |address, size, name: &str, module: &str| Symbol {
        space: Space::Kernel,
        address,
        size,
        name: name.to_owned(),
        module: module.to_owned(),
        condition: None,
    };
    trace.symbols = vec![
        Symbol {
            space: Space::Guest,
            ..symbol(HOT, 16, "operation", "guest")
        },
        symbol(
            0xffff_ffff_81e0_1e40,
            32,
            "__x86_indirect_thunk_rax",
            "vmlinux",
        ),
        symbol(HOT, 60, name, "kvm"),
        symbol(COLD, 4, "kvm_pmu_trigger_event.cold", "kvm"),
    ];
    let location = |instruction, depth, function: &str, file: &str, line| Location {
        instruction,
        depth,
        function: function.to_owned(),
        file: file.to_owned(),
        line,
    };
    let pmu = "arch/x86/kvm/pmu.c";
    trace.locations = vec![
        location(1, 0, name, pmu, 521),
        location(2, 0, name, pmu, 530),
        location(2, 1, "find_next_bit", "include/linux/find.h", 40),
        location(3, 0, name, pmu, 530),
        location(3, 1, "find_next_bit", "include/linux/find.h", 40),
        location(4, 0, name, pmu, 530),
        location(5, 0, name, pmu, 0),
        location(6, 0, name, "", 0),
        location(6, 1, "warn_slowpath", "", 0),
    ];
    trace
}

/// What it was traced on.
pub(crate) fn manifest() -> Manifest {
    let row = |name: &str, operation: &str| RowInfo {
        name: name.to_owned(),
        operation: operation.to_owned(),
        reference: false,
        halts: false,
        interrupts: false,
        vcpus: 1,
        delay_ticks: 0,
        exits: Bounds { min: 1.0, max: 1.0 },
        userspace_exits: Bounds { min: 0.0, max: 0.0 },
        parameters: std::collections::BTreeMap::new(),
        rung: None,
        kick: None,
    };
    Manifest {
        conditions: vec![exitpath_recording::Condition::base()],
        command: "trace".to_owned(),
        begun_unix_seconds: 1_750_000_000,
        machine: Machine::Lab,
        environment: Environment {
            arch: "x86_64".to_owned(),
            machine_kind: exitpath_recording::kind::SVM.to_owned(),
            kernel: "6.1.0-56-amd64".to_owned(),
            cmdline: "console=ttyS0 nokaslr panic=-1 quiet -- <&>".to_owned(),
            cpu: "EPYC-Milan".to_owned(),
            cpus: 2,
            qemu: Some("7.2.22".to_owned()),
            seeds: vec![1, 2, 3],
            tsc_khz: None,
            exitpath: "exitpath 0.1.0".to_owned(),
            facts: [("kvm.modules".to_owned(), "kvm_amd".into())].into(),
        },
        plan: Plan {
            runs: 3,
            samples: 2_000,
            batches: 8,
            batch_length: 16,
            order_seed: 1,
        },
        rows: vec![
            row("cpuid", "CPUID leaf 0"),
            row(
                "inl_from_qemu",
                "4-byte read of a port that user space answers",
            ),
        ],
        warnings: Vec::new(),
    }
}
