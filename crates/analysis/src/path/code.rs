//! Everything about a trace's instructions that does not depend on how they were reached.

use std::collections::HashSet;

use exitpath_recording::{Path, Trace};

use super::arch::{Decoded, Flow};
use super::functions::{FunctionId, FunctionInfo, Functions, Place};
use super::traits;
use super::{PathError, PhaseTable};

/// CPUs a lab may have.
const CPUS: usize = 256;

/// The instructions of a trace.
pub(super) struct Code<'a> {
    pub(super) trace: &'a Trace,
    decoded: Vec<Decoded>,
    places: Vec<Place>,
    /// How many instructions with consecutive ids, from each one on, run one after the other
    /// without anything happening: no call, no return, no other function.
    straight: Vec<u32>,
    functions: Functions,
    /// Addresses behind VMRUNs.
    resumes: HashSet<u64>,
}

impl<'a> Code<'a> {
    /// Decodes what a trace has.
    pub(super) fn new(trace: &'a Trace, phases: &PhaseTable) -> Result<Code<'a>, PathError> {
        check(trace)?;
        let decoded: Vec<Decoded> = trace.instructions.iter().map(Decoded::new).collect();
        let used = used(trace);
        let (functions, places) = Functions::new(trace, &decoded, &used, phases);
        let vmruns = std::iter::zip(&decoded, &used);
        let vmruns = vmruns.filter(|(d, used)| **used && d.flow == Flow::Vmrun);
        Ok(Code {
            trace,
            straight: straight(&decoded, &places),
            resumes: vmruns.map(|(vmrun, _)| vmrun.next).collect(),
            decoded,
            places,
            functions,
        })
    }

    /// Number of instructions.
    pub(super) fn len(&self) -> usize {
        self.decoded.len()
    }

    pub(super) fn path(&self, id: u32) -> Option<&'a Path> {
        self.trace.paths.get(id as usize)
    }

    pub(super) fn get(&self, id: u32) -> Option<&Decoded> {
        self.decoded.get(id as usize)
    }

    /// An instruction of a path, so that its id is known to be good.
    pub(super) fn decoded(&self, id: u32) -> &Decoded {
        &self.decoded[id as usize]
    }

    pub(super) fn place(&self, id: u32) -> Place {
        self.places[id as usize]
    }

    pub(super) fn straight(&self, id: u32) -> u32 {
        self.straight[id as usize]
    }

    pub(super) fn function(&self, id: FunctionId) -> &FunctionInfo {
        &self.functions.infos[id as usize]
    }

    pub(super) fn functions(&self) -> &[FunctionInfo] {
        &self.functions.infos
    }

    /// Whether interrupts or exceptions enter the kernel here.
    pub(super) fn enters_idt(&self, id: u32) -> bool {
        let place = self.place(id);
        let function = self.function(place.host);
        function.is(traits::IDT) && (place.starts || function.is(traits::STUBS))
    }

    /// Whether an instruction lies where guests have a program, and nothing else of the lab does.
    pub(super) fn is_guests_alone(&self, id: u32) -> bool {
        let place = self.place(id);
        let unnamed = |function| self.function(function).is(traits::UNNAMED);
        !self.decoded(id).in_kernel() && !unnamed(place.guest) && unnamed(place.host)
    }

    /// Whether an address is one at which the host goes on after an exit.
    pub(super) fn follows_vmrun(&self, address: u64) -> bool {
        self.resumes.contains(&address)
    }
}

/// Of each instruction, whether a window has it: others are of other conditions, and what they say of addresses
/// holds there only.
fn used(trace: &Trace) -> Vec<bool> {
    let segments = trace.windows.iter().flat_map(|window| &window.segments);
    let paths: HashSet<u32> = segments.map(|segment| segment.path).collect();
    let mut used = vec![false; trace.instructions.len()];
    for path in paths {
        for block in &trace.paths[path as usize].blocks {
            let first = block.first as usize;
            used[first..first + block.count as usize].fill(true);
        }
    }
    used
}

fn straight(decoded: &[Decoded], places: &[Place]) -> Vec<u32> {
    let mut lengths = vec![1; decoded.len()];
    for id in (1..decoded.len()).rev() {
        let (from, to) = (&decoded[id - 1], &decoded[id]);
        let same = |f: fn(&Place) -> FunctionId| f(&places[id - 1]) == f(&places[id]);
        let plain = from.flow != Flow::Vmrun && from.steps_to(to.address);
        if plain && same(|place| place.host) && same(|place| place.guest) {
            lengths[id - 1] = lengths[id] + 1;
        }
    }
    lengths
}

/// A trace from a file holds together; one made up may not.
fn check(trace: &Trace) -> Result<(), PathError> {
    let instructions = trace.instructions.len() as u64;
    let mut cpus = HashSet::new();
    let mut last = None;
    for (path, blocks) in trace.paths.iter().enumerate() {
        for block in &blocks.blocks {
            if u64::from(block.first) + u64::from(block.count) > instructions {
                return Err(PathError::Instruction { path });
            }
            // Millions of blocks, and hardly ever another CPU.
            if last.replace(block.cpu) != Some(block.cpu) {
                cpus.insert(block.cpu);
            }
        }
    }
    if cpus.len() > CPUS {
        return Err(PathError::Cpus { cpus: cpus.len() });
    }
    let segments = trace.windows.iter().flat_map(|window| &window.segments);
    for segment in segments {
        if segment.path as usize >= trace.paths.len() {
            return Err(PathError::Path { path: segment.path });
        }
    }
    Ok(())
}
