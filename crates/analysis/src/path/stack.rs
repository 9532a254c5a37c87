//! A shadow of the call stack: who called what, as far as the stream of instructions tells.

use super::functions::FunctionId;

/// Frames kept. The deepest real stack (a VMM's, a system call's, an interrupt's and a soft
/// interrupt's) has about a hundred; more come only from code that does not return as it called.
const DEEPEST: usize = 512;

/// No instruction, no node.
pub(super) const NONE: u32 = u32::MAX;

/// How a frame came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Nothing is known of its caller.
    Before,
    /// By a call; returns to `back`.
    Call,
    /// By a jump; returns to where the frame below does.
    TailCall,
    /// By a call inside the function itself, as retpolines have them; returns to `back`.
    Inner,
    /// By an interrupt or exception; `back` is the id of the interrupted instruction.
    Interrupt,
    /// By a system call; returns to `back`.
    SystemCall,
    /// By VMRUN.
    Vmrun,
}

impl Kind {
    /// Whether returns do not lead past it.
    pub(super) fn is_boundary(self) -> bool {
        matches!(self, Kind::Interrupt | Kind::SystemCall | Kind::Vmrun)
    }
}

/// A function that has been entered and not left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    pub(super) function: FunctionId,
    pub(super) kind: Kind,
    /// Whether it is skip-emulation.
    pub(super) skipped: bool,
    /// What the observer made of it.
    pub(super) node: u32,
    /// See [`Kind`].
    pub(super) back: u64,
}

impl Frame {
    pub(super) fn returns_to(&self, address: u64) -> bool {
        matches!(self.kind, Kind::Call | Kind::Inner) && self.back == address
    }

    /// Whether two frames are the same but for what the observer made of them.
    fn same_place(&self, other: &Frame) -> bool {
        (self.function, self.kind, self.back) == (other.function, other.kind, other.back)
    }
}

/// Frames of one thread, outermost first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Stack {
    pub(super) frames: Vec<Frame>,
}

impl Stack {
    pub(super) fn top(&self) -> Option<&Frame> {
        self.frames.last()
    }

    pub(super) fn push(&mut self, frame: Frame) {
        if self.frames.len() >= DEEPEST {
            self.frames.drain(..DEEPEST / 2);
        }
        self.frames.push(frame);
    }

    /// Position of the innermost frame that is a boundary.
    pub(super) fn boundary(&self) -> Option<usize> {
        self.frames.iter().rposition(|f| f.kind.is_boundary())
    }

    /// Position of the innermost frame of a kind.
    pub(super) fn innermost(&self, kinds: &[Kind]) -> Option<usize> {
        self.frames.iter().rposition(|f| kinds.contains(&f.kind))
    }

    /// Position of a function among those that share one return: the innermost frame and, as long
    /// as frames were entered by a jump, the ones below.
    pub(super) fn in_chain(&self, function: FunctionId) -> Option<usize> {
        for (position, frame) in self.frames.iter().enumerate().rev() {
            if frame.function == function && frame.kind != Kind::Inner {
                return Some(position);
            }
            if !matches!(frame.kind, Kind::TailCall | Kind::Inner) {
                return None;
            }
        }
        None
    }

    /// Whether these are the same calls.
    pub(super) fn same_place(&self, other: &Stack) -> bool {
        self.frames.len() == other.frames.len()
            && std::iter::zip(&self.frames, &other.frames).all(|(a, b)| a.same_place(b))
    }

    /// Where this stack's calls return to, innermost first, each with the position of its frame;
    /// up to the first boundary.
    pub(super) fn returns(&self) -> impl Iterator<Item = (u64, usize)> {
        let frames = self.frames.iter().enumerate().rev();
        frames
            .take_while(|(_, frame)| !frame.kind.is_boundary())
            .filter(|(_, frame)| frame.kind == Kind::Call)
            .map(|(position, frame)| (frame.back, position))
    }
}
