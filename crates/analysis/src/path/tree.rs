//! The second walk, of one round only: everything that is told of a row.

use std::collections::HashMap;

use exitpath_recording::{Space, trace};

use super::PhaseTable;
use super::arch::classes::CLASSES;
use super::code::Code;
use super::functions::FunctionId;
use super::model::{Count, Entered, Step};
use super::stack::{Frame, Kind, NONE};
use super::state::Cpu;
use super::traits;
use super::walk::Observer;

/// The root of the tree.
pub(super) const ROOT: u32 = 0;

/// Instructions: all, and those of skip-emulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) all: u64,
    skipped: u64,
}

impl Split {
    pub(super) fn add(&mut self, count: u64, skipped: bool) {
        self.all += count;
        self.skipped += if skipped { count } else { 0 };
    }

    pub(super) fn plus(&mut self, other: Split) {
        self.all += other.all;
        self.skipped += other.skipped;
    }

    pub(super) fn count(self) -> Count {
        Count {
            all: self.all,
            lean: self.all - self.skipped,
        }
    }
}

/// A node as it grows.
#[derive(Debug, Clone)]
pub(super) struct Growing {
    pub(super) parent: u32,
    pub(super) function: FunctionId,
    pub(super) entered: Entered,
    pub(super) cpu: usize,
    pub(super) calls: Split,
    pub(super) own: Split,
    /// Own instructions by phase.
    pub(super) phases: Vec<(usize, u64)>,
    /// The phase it would have by its place in the tree.
    pub(super) phase: usize,
}

/// What is counted of a function.
#[derive(Debug, Clone, Default)]
pub(super) struct OfFunction {
    pub(super) own: Split,
    pub(super) phases: Vec<(usize, u64)>,
    /// Times the guest entered it; of the host's functions the tree knows.
    pub(super) guest_calls: u64,
}

/// Grows the tree of one round.
pub(super) struct Tree<'a> {
    code: &'a Code<'a>,
    table: &'a PhaseTable,
    pub(super) nodes: Vec<Growing>,
    places: HashMap<(u32, FunctionId, Entered, usize), u32>,
    /// Nodes that are one with another.
    pub(super) same: Vec<(u32, u32)>,
    pub(super) functions: Vec<OfFunction>,
    pub(super) phases: Vec<Split>,
    pub(super) steps: Vec<Step>,
    /// Of each instruction the host executed.
    pub(super) host_times: Vec<Split>,
    /// Of each instruction the guest executed.
    pub(super) guest_times: Vec<Split>,
    /// Of each class, by phase and function.
    pub(super) classes: Vec<HashMap<(usize, FunctionId), Split>>,
    /// Of each CPU the last function of its guest.
    guest: Vec<Option<FunctionId>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(code: &'a Code<'a>, table: &'a PhaseTable) -> Tree<'a> {
        let root = Growing {
            parent: ROOT,
            function: NONE,
            entered: Entered::Before,
            cpu: 0,
            calls: Split::default(),
            own: Split::default(),
            phases: Vec::new(),
            phase: table.unknown(),
        };
        Tree {
            code,
            table,
            nodes: vec![root],
            places: HashMap::new(),
            same: Vec::new(),
            functions: vec![OfFunction::default(); code.functions().len()],
            phases: vec![Split::default(); table.len()],
            steps: Vec::new(),
            host_times: vec![Split::default(); code.len()],
            guest_times: vec![Split::default(); code.len()],
            classes: vec![HashMap::new(); CLASSES.len()],
            guest: Vec::new(),
        }
    }

    fn node(
        &mut self,
        cpu: usize,
        below: Option<&Frame>,
        function: FunctionId,
        entered: Entered,
    ) -> u32 {
        let parent = below
            .map(|frame| frame.node)
            .filter(|&node| node != NONE)
            .unwrap_or(ROOT);
        let place = (parent, function, entered, cpu);
        match self.places.get(&place) {
            Some(&node) => node,
            None => {
                let node = self.add(place);
                self.places.insert(place, node);
                node
            }
        }
    }

    fn add(&mut self, place: (u32, FunctionId, Entered, usize)) -> u32 {
        let (parent, function, entered, cpu) = place;
        let phase = self.phase_below(parent, function, entered);
        self.nodes.push(Growing {
            parent,
            function,
            entered,
            cpu,
            calls: Split::default(),
            own: Split::default(),
            phases: Vec::new(),
            phase,
        });
        self.nodes.len() as u32 - 1
    }

    /// The phase of a function by its place in the tree.
    fn phase_below(&self, parent: u32, function: FunctionId, entered: Entered) -> usize {
        let info = self.code.function(function);
        let parent = &self.nodes[parent as usize];
        match info.phase[0] {
            Some(phase) => phase,
            None if entered == Entered::Interrupt => self.table.interrupt(),
            None if parent.function == NONE => self.table.unknown(),
            None if self.code.function(parent.function).space != info.space => self.table.unknown(),
            None => parent.phase,
        }
    }

    /// The phase of what runs now: that of the innermost function that the table knows.
    fn phase(&self, cpu: &Cpu, function: FunctionId) -> usize {
        let exited = usize::from(cpu.exited);
        let info = self.code.function(function);
        if info.space == Space::Guest {
            return info.phase[0].unwrap_or(self.table.unknown());
        }
        for frame in cpu.stack.frames.iter().rev() {
            let caller = self.code.function(frame.function);
            if caller.space != info.space {
                break;
            }
            if let Some(phase) = caller.phase[exited] {
                return phase;
            }
            if frame.kind == Kind::Interrupt {
                return self.table.interrupt();
            }
        }
        self.table.unknown()
    }

    fn step(&mut self, node: u32, instructions: u64, skipped: bool) {
        let node = node as usize;
        match self.steps.last_mut() {
            Some(last) if last.node == node && last.skipped == skipped => {
                last.instructions += instructions;
            }
            _ => self.steps.push(Step {
                node,
                instructions,
                skipped,
            }),
        }
    }

    /// The guest runs in a function, which it may have entered just now.
    fn in_guest(&mut self, cpu: usize, function: FunctionId) {
        if self.guest.len() <= cpu {
            self.guest.resize(cpu + 1, None);
        }
        let before = self.guest[cpu].replace(function);
        let info = self.code.function(function);
        if info.is(traits::BRACKET) || before == Some(function) {
            return;
        }
        // From the handler it goes back to what was interrupted, which does not enter it anew.
        let from_bracket = before.is_none_or(|f| self.code.function(f).is(traits::BRACKET));
        if from_bracket || info.name == trace::HANDLER {
            self.functions[function as usize].guest_calls += 1;
        }
    }
}

impl Observer for Tree<'_> {
    fn enter(&mut self, cpu: usize, below: Option<&Frame>, frame: &Frame) -> u32 {
        let entered = match frame.kind {
            // Perhaps another thread's than the last one that was entered so: not the same node
            // until that is known.
            Kind::Before if below.is_none() => {
                return self.add((ROOT, frame.function, Entered::Before, cpu));
            }
            Kind::Before => return self.before(cpu, below, frame),
            Kind::Call | Kind::Inner => Entered::Call,
            Kind::TailCall => Entered::TailCall,
            Kind::Interrupt => Entered::Interrupt,
            Kind::SystemCall => Entered::SystemCall,
            Kind::Vmrun => Entered::Vmrun,
        };
        let node = self.node(cpu, below, frame.function, entered);
        self.nodes[node as usize].calls.add(1, frame.skipped);
        node
    }

    fn leave(&mut self, _: usize, _: &Frame) {}

    fn before(&mut self, cpu: usize, below: Option<&Frame>, frame: &Frame) -> u32 {
        self.node(cpu, below, frame.function, Entered::Before)
    }

    fn run(&mut self, cpu: usize, state: &Cpu, function: FunctionId, id: u32, count: u32) {
        let in_guest = state.resume.is_some();
        if in_guest {
            self.in_guest(cpu, function);
            if self.code.function(function).is(traits::BRACKET) {
                return;
            }
        }
        let top = state.stack.top();
        let node = top.map_or(NONE, |frame| frame.node);
        let node = if node == NONE { ROOT } else { node };
        let skipped = top.is_some_and(|frame| frame.skipped);
        let phase = self.phase(state, function);
        let instructions = u64::from(count);

        let growing = &mut self.nodes[node as usize];
        growing.own.add(instructions, skipped);
        add_to(&mut growing.phases, phase, instructions);
        self.phases[phase].add(instructions, skipped);
        let of_function = &mut self.functions[function as usize];
        of_function.own.add(instructions, skipped);
        add_to(&mut of_function.phases, phase, instructions);
        self.step(node, instructions, skipped);

        let times = if in_guest {
            &mut self.guest_times
        } else {
            &mut self.host_times
        };
        for id in id..id + count {
            times[id as usize].add(1, skipped);
            let mut classes = self.code.decoded(id).classes;
            while classes != 0 {
                let class = classes.trailing_zeros() as usize;
                classes &= classes - 1;
                let of_class = self.classes[class].entry((phase, function)).or_default();
                of_class.add(1, skipped);
            }
        }
    }

    fn same(&mut self, node: u32, as_node: u32) {
        if node != NONE && as_node != NONE {
            self.same.push((node, as_node));
        }
    }
}

fn add_to(phases: &mut Vec<(usize, u64)>, phase: usize, instructions: u64) {
    match phases.iter_mut().find(|(known, _)| *known == phase) {
        Some((_, sum)) => *sum += instructions,
        None => phases.push((phase, instructions)),
    }
}

/// The phase most of the instructions count for; of several the first.
pub(super) fn most(phases: impl IntoIterator<Item = (usize, u64)>) -> Option<usize> {
    let most = phases
        .into_iter()
        .max_by_key(|&(phase, count)| (count, std::cmp::Reverse(phase)));
    most.map(|(phase, _)| phase)
}
