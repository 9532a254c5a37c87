//! What is known of a traced row, as plain data.
//!
//! Unit of every count: instructions per round, unless it says otherwise. Of each count there is a
//! second one, `lean`: what is left without skip-emulation, the work that KVM does only because the
//! lab's CPU lacks NRIPS.

use exitpath_recording::{Exit, Space};

/// A count, and the same without skip-emulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// As executed.
    pub all: u64,
    /// Without skip-emulation; never larger.
    pub lean: u64,
}

/// The path of one traced run (one row at one seed).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowPath {
    /// The row.
    pub row: String,
    /// The run in the recording.
    pub run: u32,
    /// The lab's seed.
    pub seed: Option<u64>,
    /// CPUs of the lab.
    pub cpus: u32,
    /// Rounds recorded.
    pub rounds: usize,
    /// Of the most frequent path of the most frequent variant, as is all below but for `variants`:
    /// what the operation's bracket took, less the bracket itself. The sum over `phases` and over
    /// the `own` of `functions`. The row's value is [`RowPath::value`].
    pub total: Count,
    /// Of these, what surrounds the operation and is measured by itself, in the bracket without the
    /// operation: the row's baseline.
    pub baseline: Count,
    /// VMRUNs in that.
    pub baseline_exits: u64,
    /// Of `total`, the row's own delay, which the guest spends waiting: a constant of the row.
    pub delay: u64,
    /// The bracket as the guest's clock timed it, less the one without the operation and the delay.
    pub guest_timed: u64,
    /// Instructions that were begun and not completed, so that the guest's clock does not have
    /// them: those that the hypervisor intercepts, and any that faults. The baseline's are not among
    /// them.
    pub intercepted: u64,
    /// The plugin's count between the guest's clock reads, less `intercepted`, less what the clock
    /// said: the part of the round that is not explained.
    pub residual: i64,
    /// Rounds, of all, whose own residual is not 0.
    pub rounds_with_residual: usize,
    /// Rounds, of all, in whose bracket without the operation something is not explained.
    pub rounds_with_empty_residual: usize,
    /// VMRUNs in the round.
    pub exits: u64,
    /// Why the guest exited, in the order of the round: as many as [`Self::exits`]. `None` where
    /// the recording does not know.
    pub exit_reasons: Option<Vec<Exit>>,
    /// Where the instructions are by purpose, in the order of the table of phases; those without
    /// any are left out.
    pub phases: Vec<Phase>,
    /// By function, most `own` first.
    pub functions: Vec<Function>,
    /// By class of instruction, in the order of [`super::classes`].
    pub classes: Vec<ClassCount>,
    /// Groups of rounds that took the same functions in the same order, exited for the same reasons,
    /// and had the same interrupts wherever they came, most frequent first.
    pub variants: Vec<Variant>,
    /// What exists only on an emulated CPU.
    pub artefacts: Vec<Artefact>,
    /// The round as a tree of calls. Its first node is the root, which is no function.
    pub tree: Vec<Node>,
    /// The round in the order executed: what runs from one change of function to the next.
    pub steps: Vec<Step>,
    /// Each instruction of the round, ordered by space and address.
    pub instructions: Vec<Executed>,
}

impl RowPath {
    /// Times the kernel halted the lab's CPU in the round, because it had nothing to run. Until the
    /// interrupt that ends that, the guest's clock goes on and no instruction runs.
    pub fn halts(&self) -> u64 {
        let executed = self.instructions.iter();
        let halts = executed.filter(|it| it.space == Space::Kernel && it.text == HALT);
        halts.map(|it| it.times.all).sum()
    }

    /// By how much the guest's clock went on while the lab's CPU was halted: what its instructions
    /// do not explain of a round in which it was. 0 in other rounds.
    pub fn idle(&self) -> u64 {
        match self.halts() {
            0 => 0,
            _ => self.residual.min(0).unsigned_abs(),
        }
    }

    /// The row's value: `total` without what the row subtracts, as `exitpath measure` has it but for
    /// `intercepted`.
    pub fn value(&self) -> Count {
        let of =
            |total: u64, baseline: u64| total.saturating_sub(baseline.saturating_add(self.delay));
        Count {
            all: of(self.total.all, self.baseline.all),
            lean: of(self.total.lean, self.baseline.lean),
        }
    }

    /// Whether there is anything of skip-emulation in it.
    pub fn has_skip_emulation(&self) -> bool {
        let has = |count: Count| count.all != count.lean;
        has(self.total) || has(self.baseline)
    }

    /// Whether the row subtracts anything.
    pub fn subtracts(&self) -> bool {
        self.delay > 0 || self.baseline.all > 0
    }
}

/// HLT.
const HALT: &str = "hlt";

/// Instructions of one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// How many.
    pub instructions: Count,
}

/// A function on the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its symbol; `0x…` where there is none.
    pub name: String,
    /// `vmlinux`, a module, a program or library, `guest`, or empty where not known.
    pub module: String,
    /// Where it runs.
    pub space: Space,
    /// The phase that most of its own instructions count for.
    pub phase: String,
    /// Its own instructions.
    pub own: Count,
    /// With everything it calls, and interrupts that arrive meanwhile; once where it recurses.
    pub total: Count,
    /// Times it was entered in the round. 0 where it was entered before: a function that was
    /// waiting for the guest.
    pub calls: Count,
}

/// How many instructions of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassCount {
    /// Its name, such as `msr-access`.
    pub class: &'static str,
    /// How many.
    pub count: Count,
    /// How many by phase; phases without any are left out.
    pub phases: Vec<(String, u64)>,
    /// How many by function, most first.
    pub functions: Vec<(String, u64)>,
}

/// Rounds that took the same functions in the same order, exited for the same reasons as far as
/// those are known, and had the same interrupts, wherever they came and whatever they found to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// How many.
    pub rounds: usize,
    /// Instructions of its most frequent path, without what the row subtracts.
    pub total: u64,
    /// Smallest and largest, where loops or interrupts differ.
    pub range: (u64, u64),
    /// What it has and the most frequent variant has not, in words; empty for the most frequent.
    pub differs_by: String,
    /// As [`RowPath::exit_reasons`], of its most frequent path.
    pub exit_reasons: Option<Vec<Exit>>,
}

/// Work that exists only because the CPU is an emulated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    /// What it is.
    pub what: String,
    /// Which feature the CPU lacks, by QEMU's name.
    pub lacks: &'static str,
    /// How many instructions.
    pub instructions: u64,
}

/// A node of the tree of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Position of the parent; the root is its own.
    pub parent: usize,
    /// Name of the function; `guest`, an interrupt or exception as the kernel names its entry.
    pub name: String,
    /// Its module.
    pub module: String,
    /// Where it runs.
    pub space: Space,
    /// The lab's CPU.
    pub cpu: u32,
    /// How control came here.
    pub entered: Entered,
    /// Times entered.
    pub calls: u64,
    /// Instructions of this node alone.
    pub own: Count,
    /// With all below it.
    pub total: Count,
    /// Phase of its own instructions.
    pub phase: String,
}

/// How control came to a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entered {
    /// It was on the stack when the round began.
    Before,
    /// By a call.
    Call,
    /// By a jump at the end of another function. (A call through a thunk is a call.)
    TailCall,
    /// By an interrupt or an exception.
    Interrupt,
    /// By a system call.
    SystemCall,
    /// By VMRUN.
    Vmrun,
}

/// A stretch of the round in one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Position in the tree.
    pub node: usize,
    /// Instructions.
    pub instructions: u64,
    /// Whether they are skip-emulation.
    pub skipped: bool,
}

/// An instruction of the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its id in the recording.
    pub id: u32,
    /// Where it ran.
    pub space: Space,
    /// Its address.
    pub address: u64,
    /// How often in the round.
    pub times: Count,
    /// Position of its function among [`RowPath::functions`].
    pub function: usize,
    /// Bytes from the beginning of its function, or of the part of it that it is in.
    pub offset: u64,
    /// Whether that is a part which the compiler has moved out of the function (`foo.cold`).
    pub cold: bool,
    /// Its text in AT&T syntax, as the kernel's disassemblies have it.
    pub text: String,
    /// What it does, without what linking, loading or another compilation changes of it: prefixes,
    /// mnemonic, kinds of operands. `lock xadd r, m`.
    pub form: String,
}
