//! What is carried from one instruction to the next, and what is counted meanwhile.

use super::arch::Interception;
use super::stack::{NONE, Stack};

/// What is carried from one instruction to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) cpus: Vec<Cpu>,
    /// Threads that were left, the latest last.
    pub(super) suspended: Vec<Stack>,
}

/// One CPU of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Cpu {
    pub(super) number: u32,
    pub(super) stack: Stack,
    /// Id of the host's last instruction.
    pub(super) last: u32,
    /// The address behind VMRUN, while in the guest.
    pub(super) resume: Option<u64>,
    /// Id of the guest's last instruction since VMRUN.
    pub(super) guest_last: u32,
    /// What the exit's handler has to say of the guest's last instruction.
    pub(super) doubt: Option<Interception>,
    /// Whether an exit's handler has not been called yet.
    pub(super) exited: bool,
    /// Whether what would call the exit's handler has been called.
    pub(super) dispatched: bool,
    /// How the present thread has returned since it was switched to, if it is not known.
    pub(super) trail: Option<Trail>,
}

/// A thread that is not recognised yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Trail {
    /// Where it returned to.
    pub(super) returns: Vec<u64>,
    /// The nodes that were its outermost ones.
    pub(super) nodes: Vec<u32>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Instructions begun.
    pub(super) begun: u64,
    /// Of those, the guest's bracket's.
    pub(super) bracket: u64,
    /// Of those, not completed.
    pub(super) intercepted: u64,
    /// Exits of guests.
    pub(super) exits: u64,
}

impl Cpu {
    pub(super) fn new(number: u32) -> Cpu {
        Cpu {
            number,
            stack: Stack::default(),
            last: NONE,
            resume: None,
            guest_last: NONE,
            doubt: None,
            exited: false,
            dispatched: false,
            trail: None,
        }
    }

    /// Whether it has not executed anything yet.
    pub(super) fn is_new(&self) -> bool {
        self.last == NONE && self.guest_last == NONE && self.resume.is_none()
    }
}
