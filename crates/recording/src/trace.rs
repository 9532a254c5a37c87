//! The exact path of bracketed samples: every instruction, in the order executed.
//!
//! A run's window is the stream of instructions of the lab's machine (guest, kernel and user
//! space, all CPUs) while the run's samples were taken. It is cut into [`Segment`]s at the guest's
//! clock reads, and equal segments share one [`Path`]; nothing is left out, so that all segments
//! of a window in order are the whole stream.

use serde::{Deserialize, Serialize};

/// Instructions recorded by the lab's plugin, and what is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Each distinct instruction; its position is its id.
    pub instructions: Vec<Instruction>,
    /// Each distinct sequence of instructions; its position is its id.
    pub paths: Vec<Path>,
    /// One for each traced run.
    pub windows: Vec<Window>,
    /// Names of address ranges, those of all conditions first, and of each ordered by space and address,
    /// without overlap. Not every instruction needs to lie in one.
    pub symbols: Vec<Symbol>,
    /// Source lines and inlined functions, ordered by instruction and depth; often empty.
    pub locations: Vec<Location>,
}

impl Trace {
    /// Whether the reasons of its exits are known: of all windows, as one without is as good as none.
    pub fn knows_exits(&self) -> bool {
        !self.windows.is_empty() && self.windows.iter().all(|window| window.exits.is_some())
    }
}

/// An instruction at its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instruction {
    /// Virtual address, in whichever space it was executed.
    pub address: u64,
    /// Machine code, 1 to 15 bytes.
    pub bytes: Vec<u8>,
}

/// A sequence of instructions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Path {
    /// In the order executed.
    pub blocks: Vec<Block>,
}

/// Instructions with consecutive ids, executed one after the other on one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Block {
    /// The lab's CPU, from 0.
    pub cpu: u32,
    /// Id of the first instruction.
    pub first: u32,
    /// Number of instructions, at least 1.
    pub count: u32,
}

/// The traced part of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Id of the run. Its samples are those of the brackets below, in the same order.
    pub run: u32,
    /// In the order executed: between, empty, between, op, between, empty, … , op, between.
    pub segments: Vec<Segment>,
    /// The guest's exits in the order made; `None` where their reasons are not known, which is so
    /// for all windows of a trace or for none.
    pub exits: Option<Vec<Exit>>,
}

/// A guest's exit, as the CPU tells its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exit {
    /// Position of the segment in which the guest exited.
    pub segment: u32,
    /// The exit code: EXITCODE of SVM's VMCB.
    pub code: u64,
    /// What the CPU says beside it: EXITINFO1.
    pub info1: u64,
    /// And EXITINFO2.
    pub info2: u64,
}

/// What ran from one of the guest's clock reads to its next one: behind the first RDTSC, up to
/// and with the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Which part of a sample it is.
    pub part: Part,
    /// Id of the path taken.
    pub path: u32,
}

/// Part of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Between brackets.
    Between,
    /// Inside the bracket without the operation.
    Empty,
    /// Inside the bracket with the operation.
    Op,
}

/// Where an instruction runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    /// Inside the guest.
    Guest,
    /// The host's user space.
    User,
    /// The host's kernel.
    Kernel,
}

/// A named range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    /// Where it is.
    pub space: Space,
    /// Its first address.
    pub address: u64,
    /// Its length in bytes; where only the start is known, up to the next symbol.
    pub size: u64,
    /// The name.
    pub name: String,
    /// `vmlinux`, a module (`kvm`), a program or library, or `guest`.
    pub module: String,
    /// The condition under which the range has this name; `None`: under all.
    pub condition: Option<String>,
}

/// A source line of an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Id of the instruction.
    pub instruction: u32,
    /// 0 for the function the instruction is in, 1 for one inlined into that, and so on.
    pub depth: u32,
    /// The function's name.
    pub function: String,
    /// The file, empty where it is not known.
    pub file: String,
    /// The line, 0 where it is not known.
    pub line: u32,
}

/// Name of the guest's symbol that covers what surrounds the operation in a bracket: the clock
/// reads and the setup, which both brackets have.
pub const BRACKET: &str = "bracket";
/// Name of the guest's symbol that covers the operation in the bracket.
pub const OPERATION: &str = "operation";
/// Name of the guest's symbol that covers the handler of the test vector and secondary vCPUs.
pub const HANDLER: &str = "interrupt handler";
/// Name of the module of all of the guest's symbols.
pub const GUEST: &str = "guest";
