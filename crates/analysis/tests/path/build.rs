//! A made-up machine: functions at addresses, and what it executes.
//!
//! Every window is one VMM that called into the kernel, which entered a guest, whose clock reads
//! cut the stream. A test says what happens between an exit and the next VMRUN.

use std::collections::HashMap;

use exitpath_analysis::path::{Function, Node, PhaseTable, RowPath, trace_rows};
use exitpath_recording::{
    Block, Bounds, Environment, Instruction, Machine, Manifest, Outcome, Part, Path, Plan,
    Recording, RowInfo, Run, Sample, Segment, Space, Symbol, Trace, Window, trace,
};

/// An instruction as executed: CPU, address, bytes.
pub(crate) type Executed = (u32, u64, Vec<u8>);

pub(crate) const USER: u64 = 0x40_0000;
pub(crate) const KERNEL: u64 = 0xffff_ffff_8100_0000;
const ROOM: u64 = 0x1000;

/// Where the guest's code is: its bracket, its operation, its handler, and what has no name.
pub(crate) const BRACKET: u64 = 0x1_0000;
pub(crate) const OPERATION: u64 = 0x1_0100;
pub(crate) const HANDLER: u64 = 0x1_0200;
pub(crate) const AROUND: u64 = 0x1_0300;

/// What a line of the stream is, on CPU 0.
pub(crate) fn op(address: u64, bytes: &[u8]) -> Executed {
    (0, address, bytes.to_vec())
}

pub(crate) fn nop(address: u64) -> Executed {
    op(address, &[0x90])
}

/// So many NOPs, one behind the other.
pub(crate) fn nops(address: u64, count: u64) -> Vec<Executed> {
    (address..address + count).map(nop).collect()
}

fn relative(address: u64, opcode: &[u8], target: u64) -> Executed {
    let next = address + opcode.len() as u64 + 4;
    let offset = target.wrapping_sub(next) as u32;
    op(address, &[opcode, &offset.to_le_bytes()].concat())
}

pub(crate) fn call(address: u64, target: u64) -> Executed {
    relative(address, &[0xe8], target)
}

pub(crate) fn jump(address: u64, target: u64) -> Executed {
    relative(address, &[0xe9], target)
}

pub(crate) fn branch(address: u64, target: u64) -> Executed {
    relative(address, &[0x0f, 0x84], target)
}

pub(crate) fn ret(address: u64) -> Executed {
    op(address, &[0xc3])
}

/// Length of a direct call or jump.
pub(crate) const CALL: u64 = 5;

pub(crate) const CPUID: &[u8] = &[0x0f, 0xa2];
pub(crate) const RDTSC: &[u8] = &[0x0f, 0x31];
pub(crate) const WRMSR: &[u8] = &[0x0f, 0x30];
pub(crate) const LOAD: &[u8] = &[0x8a, 0x07];
pub(crate) const STI: &[u8] = &[0xfb];
pub(crate) const REP_MOVSB: &[u8] = &[0xf3, 0xa4];
pub(crate) const CALL_RAX: &[u8] = &[0xff, 0xd0];
pub(crate) const JUMP_RAX: &[u8] = &[0xff, 0xe0];
pub(crate) const IRETQ: &[u8] = &[0x48, 0xcf];
pub(crate) const SYSCALL: &[u8] = &[0x0f, 0x05];
pub(crate) const SYSRETQ: &[u8] = &[0x48, 0x0f, 0x07];
pub(crate) const VMRUN: &[u8] = &[0x0f, 0x01, 0xd8];

/// A machine whose functions are known.
pub(crate) struct Made {
    symbols: Vec<Symbol>,
    next: [u64; 2],
    pub(crate) vmm: u64,
    pub(crate) entry: u64,
    pub(crate) ioctl: u64,
    pub(crate) run: u64,
    segments: Vec<(Part, Vec<Executed>)>,
    samples: Vec<Sample>,
    pub(crate) seed: u64,
}

impl Made {
    /// A VMM whose guest has just read its clock for the first time.
    pub(crate) fn new() -> Made {
        let mut made = Made {
            symbols: Vec::new(),
            next: [USER, KERNEL],
            vmm: 0,
            entry: 0,
            ioctl: 0,
            run: 0,
            segments: Vec::new(),
            samples: Vec::new(),
            seed: 1,
        };
        made.vmm = made.user("vmm");
        made.entry = made.kernel("entry_SYSCALL_64");
        made.ioctl = made.kernel("kvm_vcpu_ioctl");
        made.run = made.kernel("svm_vcpu_run");
        for (address, size, name) in [
            (BRACKET, 0x100, trace::BRACKET),
            (OPERATION, 0x100, trace::OPERATION),
            (HANDLER, 0x100, trace::HANDLER),
        ] {
            made.symbol(Space::Guest, address, size, name, trace::GUEST);
        }
        let begin = made.enter();
        made.segments.push((Part::Between, begin));
        made
    }

    /// From the VMM into the guest, to the end of its first clock read.
    fn enter(&self) -> Vec<Executed> {
        vec![
            nop(self.vmm),
            op(self.vmm + 1, SYSCALL),
            nop(self.entry),
            call(self.entry + 1, self.ioctl),
            nop(self.ioctl),
            call(self.ioctl + 1, self.run),
            nop(self.run),
            op(self.run + 1, VMRUN),
            op(BRACKET, RDTSC),
        ]
    }

    fn symbol(&mut self, space: Space, address: u64, size: u64, name: &str, module: &str) {
        self.symbols.push(Symbol {
            space,
            address,
            size,
            name: name.to_owned(),
            module: module.to_owned(),
            condition: None,
        });
    }

    /// A function of the kernel, and its address.
    pub(crate) fn kernel(&mut self, name: &str) -> u64 {
        let address = self.unnamed();
        self.symbol(Space::Kernel, address, ROOM, name, "vmlinux");
        address
    }

    /// A function of the VMM.
    pub(crate) fn user(&mut self, name: &str) -> u64 {
        let address = self.next[0];
        self.next[0] += ROOM;
        self.symbol(Space::User, address, ROOM, name, "exitpath");
        address
    }

    /// Room in the kernel without a name.
    pub(crate) fn unnamed(&mut self) -> u64 {
        let address = self.next[1];
        self.next[1] += ROOM;
        address
    }

    /// A function inside the room of another.
    pub(crate) fn inside(&mut self, address: u64, size: u64, name: &str) -> u64 {
        let outer = self.symbols.iter_mut().find(|symbol| {
            symbol.space == Space::Kernel
                && symbol.address < address
                && address < symbol.address + symbol.size
        });
        if let Some(outer) = outer {
            outer.size = address - outer.address;
        }
        self.symbol(Space::Kernel, address, size, name, "vmlinux");
        address
    }

    /// The instruction behind VMRUN, where the host goes on.
    pub(crate) fn resume(&self) -> u64 {
        self.run + 4
    }

    /// An exit for CPUID: from the operation through `handled` back to the guest.
    ///
    /// `handled` begins at [`Made::resume`] and ends with a jump to VMRUN (`run + 1`).
    pub(crate) fn cpuid(&self, handled: Vec<Executed>) -> Vec<Executed> {
        let guest = op(OPERATION, CPUID);
        let vmrun = op(self.run + 1, VMRUN);
        [vec![guest], handled, vec![vmrun]].concat()
    }

    /// The same, in which `svm_vcpu_run` calls one function that does `body`.
    pub(crate) fn calling(&self, function: u64, body: Vec<Executed>) -> Vec<Executed> {
        let resume = self.resume();
        let back = vec![jump(resume + CALL, self.run + 1)];
        self.cpuid([vec![call(resume, function)], body, back].concat())
    }

    /// Adds a round whose operation is this; `uncompleted` of its instructions the guest's clock
    /// does not have.
    pub(crate) fn round(&mut self, operation: Vec<Executed>, uncompleted: u64) {
        self.round_with(Vec::new(), operation, 0, uncompleted);
    }

    /// The same with a baseline in the bracket without the operation.
    pub(crate) fn round_with(
        &mut self,
        baseline: Vec<Executed>,
        operation: Vec<Executed>,
        uncompleted_empty: u64,
        uncompleted: u64,
    ) {
        let begin = vec![nop(BRACKET + 2)];
        let end = vec![op(BRACKET + 3, RDTSC)];
        let between = vec![nop(AROUND), op(BRACKET, RDTSC)];
        let empty = [begin.clone(), baseline, end.clone()].concat();
        let operation = [begin, operation, end].concat();
        self.samples.push(Sample {
            empty: empty.len() as u64 - uncompleted_empty,
            op: operation.len() as u64 - uncompleted,
        });
        self.segments.push((Part::Empty, empty));
        self.segments.push((Part::Between, between.clone()));
        self.segments.push((Part::Op, operation));
        self.segments.push((Part::Between, between));
    }

    /// Changes what the guest's clock said of a round.
    pub(crate) fn clock(&mut self, round: usize, change: impl Fn(&mut Sample)) {
        change(&mut self.samples[round]);
    }

    pub(crate) fn recording(&self) -> Recording {
        let mut trace = Trace {
            symbols: self.symbols.clone(),
            ..Trace::default()
        };
        trace
            .symbols
            .sort_by_key(|symbol| (symbol.space, symbol.address));
        let mut encoder = Encoder::default();
        let segments = self.segments.iter();
        let segments = segments
            .map(|(part, executed)| Segment {
                part: *part,
                path: encoder.path(&mut trace, executed),
            })
            .collect();
        trace.windows.push(Window {
            run: 7,
            segments,
            exits: None,
        });
        recording(trace, self.samples.clone(), self.seed)
    }

    /// The path of the only window.
    pub(crate) fn row(&self) -> RowPath {
        self.row_by(&PhaseTable::default())
    }

    pub(crate) fn row_by(&self, phases: &PhaseTable) -> RowPath {
        let mut rows = trace_rows(&self.recording(), phases).unwrap();
        assert_eq!(rows.len(), 1);
        let row = rows.remove(0);
        hangs_together(&row);
        row
    }
}

/// Ids for instructions and paths.
#[derive(Default)]
pub(crate) struct Encoder {
    instructions: HashMap<(u64, Vec<u8>), u32>,
    paths: HashMap<Path, u32>,
}

impl Encoder {
    pub(crate) fn path(&mut self, trace: &mut Trace, executed: &[Executed]) -> u32 {
        let mut path = Path::default();
        for (cpu, address, bytes) in executed {
            let next = self.instructions.len() as u32;
            let key = (*address, bytes.clone());
            let id = *self.instructions.entry(key).or_insert(next);
            if id == next {
                trace.instructions.push(Instruction {
                    address: *address,
                    bytes: bytes.clone(),
                });
            }
            match path.blocks.last_mut() {
                Some(last) if last.first + last.count == id && last.cpu == *cpu => last.count += 1,
                _ => path.blocks.push(Block {
                    cpu: *cpu,
                    first: id,
                    count: 1,
                }),
            }
        }
        let next = self.paths.len() as u32;
        let id = *self.paths.entry(path.clone()).or_insert(next);
        if id == next {
            trace.paths.push(path);
        }
        id
    }
}

/// A recording of one run of row `row`.
pub(crate) fn recording(trace: Trace, samples: Vec<Sample>, seed: u64) -> Recording {
    let bounds = Bounds { min: 1.0, max: 1.0 };
    let row = RowInfo {
        name: "row".to_owned(),
        operation: "an operation".to_owned(),
        reference: false,
        halts: false,
        interrupts: false,
        vcpus: 1,
        delay_ticks: 0,
        exits: bounds,
        userspace_exits: bounds,
        parameters: std::collections::BTreeMap::new(),
        rung: None,
        kick: None,
    };
    let run = Run {
        id: 7,
        row: "row".to_owned(),
        condition: exitpath_recording::Condition::BASE.to_owned(),
        block: 0,
        seed: Some(seed),
        cpus: 1,
        outcome: Outcome::Done,
        notes: Vec::new(),
        ops: samples.len() as u64,
        userspace_exits: 0,
        counters: [].into(),
        samples,
        batches: Vec::new(),
    };
    let environment = Environment {
        arch: "x86_64".to_owned(),
        machine_kind: exitpath_recording::kind::SVM.to_owned(),
        kernel: "6.1.0".to_owned(),
        cmdline: "quiet".to_owned(),
        cpu: "EPYC-Milan".to_owned(),
        cpus: 1,
        qemu: Some("7.2.22".to_owned()),
        seeds: vec![seed],
        tsc_khz: None,
        exitpath: "0.1.0".to_owned(),
        facts: [].into(),
    };
    Recording {
        manifest: Manifest {
            conditions: vec![exitpath_recording::Condition::base()],
            command: "trace".to_owned(),
            begun_unix_seconds: 0,
            machine: Machine::Lab,
            environment,
            plan: Plan {
                runs: 1,
                samples: 1,
                batches: 0,
                batch_length: 0,
                order_seed: 1,
            },
            rows: vec![row],
            warnings: Vec::new(),
        },
        runs: vec![run],
        trace: Some(trace),
    }
}

/// What holds of every row.
pub(crate) fn hangs_together(row: &RowPath) {
    let sum = |counts: &mut dyn Iterator<Item = (u64, u64)>| {
        counts.fold((0, 0), |(all, lean), (a, l)| (all + a, lean + l))
    };
    let total = (row.total.all, row.total.lean);
    assert!(row.total.lean <= row.total.all);
    let phases = &mut row
        .phases
        .iter()
        .map(|p| (p.instructions.all, p.instructions.lean));
    assert_eq!(sum(phases), total, "phases");
    let functions = &mut row.functions.iter().map(|f| (f.own.all, f.own.lean));
    assert_eq!(sum(functions), total, "functions");
    let nodes = &mut row.tree.iter().map(|n| (n.own.all, n.own.lean));
    assert_eq!(sum(nodes), total, "tree");
    let instructions = &mut row.instructions.iter().map(|i| (i.times.all, i.times.lean));
    assert_eq!(sum(instructions), total, "instructions");
    let steps = row.steps.iter();
    let steps = &mut steps.map(|s| (s.instructions, if s.skipped { 0 } else { s.instructions }));
    assert_eq!(sum(steps), total, "steps");
    if let Some(root) = row.tree.first() {
        assert_eq!((root.total.all, root.total.lean), total, "root");
    }
    for (position, node) in row.tree.iter().enumerate() {
        assert!(node.parent < position || position == 0);
        assert!(node.own.lean <= node.own.all && node.total.lean <= node.total.all);
    }
    for function in &row.functions {
        assert!(function.total.lean <= function.total.all);
        assert!(function.own.all <= function.total.all);
        assert!(function.total.all <= row.total.all, "{}", function.name);
        assert!(function.calls.lean <= function.calls.all);
    }
    for executed in &row.instructions {
        assert!(executed.function < row.functions.len());
    }
    let rounds: usize = row.variants.iter().map(|variant| variant.rounds).sum();
    assert_eq!(rounds, row.rounds);
}

/// The function of a name.
pub(crate) fn function<'a>(row: &'a RowPath, name: &str) -> &'a Function {
    let found = row.functions.iter().find(|function| function.name == name);
    found.unwrap_or_else(|| panic!("{name} is not among {:?}", row.functions))
}

/// Own instructions, inclusive ones, and calls.
pub(crate) fn counts(row: &RowPath, name: &str) -> (u64, u64, u64) {
    let function = function(row, name);
    (function.own.all, function.total.all, function.calls.all)
}

/// The names from the root's child down to the only node of a name, `a/b/c`.
pub(crate) fn place(row: &RowPath, name: &str) -> String {
    let nodes: Vec<usize> = (1..row.tree.len())
        .filter(|&node| row.tree[node].name == name)
        .collect();
    assert_eq!(nodes.len(), 1, "{name} in {:?}", names(row));
    let mut place = Vec::new();
    let mut node = nodes[0];
    while node != 0 {
        place.push(row.tree[node].name.as_str());
        node = row.tree[node].parent;
    }
    place.reverse();
    place.join("/")
}

/// The only node of a name.
pub(crate) fn node<'a>(row: &'a RowPath, name: &str) -> &'a Node {
    let mut nodes = row.tree.iter().filter(|node| node.name == name);
    let node = nodes.next();
    assert!(nodes.next().is_none(), "{name} in {:?}", names(row));
    node.unwrap_or_else(|| panic!("{name} is not among {:?}", names(row)))
}

fn names(row: &RowPath) -> Vec<&str> {
    row.tree.iter().map(|node| node.name.as_str()).collect()
}
