//! Walks a stream of instructions and keeps the stack of calls.
//!
//! Nothing but addresses and machine code is known, so everything is told from where an
//! instruction can go and where control went:
//!
//! - A call enters a function, a return leaves all down to the one that it returns to. A return
//!   to elsewhere is a jump where it goes to a function's beginning (retpolines push their target and
//!   return to it), else a return to a caller from before the recording.
//! - A jump, or simply running on, into another function is a tail call: a frame that shares the
//!   return of the one below. A jump back into one of the functions that share it leaves the ones
//!   above.
//! - Thunks (retpolines, trampolines of static calls) are left by jumping on; what they jump to takes
//!   their place and return.
//! - What an instruction cannot lead to is an interrupt or an exception. The interrupted
//!   instruction is looked at again when IRET has led back: followed by itself it had faulted.
//! - Behind VMRUN is the guest, until the address behind VMRUN.
//! - `__switch_to_asm` returns on another thread's stack. Which one shows only as that thread
//!   returns to callers: the one among the threads that were left whose stack returns there.

use exitpath_recording::{Exit, Path};

use super::arch::{Decoded, Flow, Interception, interrupted_an_instruction};
use super::code::Code;
use super::functions::{FunctionId, GUEST};
use super::stack::{Frame, Kind, NONE};
use super::state::{Cpu, State, Tally};
use super::threads::announce;
use super::traits;

/// What is told of a walk.
pub(super) trait Observer {
    /// A function is entered; `below` is the frame under it. Gives what the frame shall keep as
    /// its node.
    fn enter(&mut self, cpu: usize, below: Option<&Frame>, frame: &Frame) -> u32;
    /// A function is left.
    fn leave(&mut self, cpu: usize, frame: &Frame);
    /// A function was entered before the walk.
    fn before(&mut self, cpu: usize, below: Option<&Frame>, frame: &Frame) -> u32;
    /// `count` instructions from `id` on run in the innermost function, or in the guest.
    fn run(&mut self, cpu: usize, state: &Cpu, function: FunctionId, id: u32, count: u32);
    /// Two nodes turn out to be one.
    fn same(&mut self, _node: u32, _as_node: u32) {}
    /// The thread of a frame stops running.
    fn stop(&mut self, _cpu: usize, _frame: &Frame) {}
    /// The thread of a frame runs again.
    fn go_on(&mut self, _frame: &Frame) {}
}

/// Where the guest exits to of a CPU that was in it when the recording began.
const SOMEWHERE: u64 = u64::MAX;

/// A walk.
pub(super) struct Walker<'a, O> {
    code: &'a Code<'a>,
    pub(super) state: State,
    pub(super) observer: O,
    pub(super) tally: Tally,
    /// The reasons of the exits that come, where they are known.
    reasons: std::slice::Iter<'a, Exit>,
    /// Position of the CPU that ran last.
    current: usize,
}

impl<'a, O: Observer> Walker<'a, O> {
    /// Goes on from a state.
    pub(super) fn new(code: &'a Code<'a>, state: State, observer: O) -> Walker<'a, O> {
        Walker {
            code,
            state,
            observer,
            tally: Tally::default(),
            reasons: [].iter(),
            current: 0,
        }
    }

    /// The same, knowing why guests exit on the path that is walked.
    pub(super) fn knowing(mut self, reasons: &'a [Exit]) -> Walker<'a, O> {
        self.reasons = reasons.iter();
        self
    }

    /// Tells the observer of all functions that were entered before.
    pub(super) fn announce(&mut self) {
        let current = self.state.cpus.iter_mut().map(|state| &mut state.stack);
        for stack in current.chain(&mut self.state.suspended) {
            for frame in &mut stack.frames {
                frame.node = NONE;
            }
        }
        for (cpu, state) in self.state.cpus.iter_mut().enumerate() {
            announce(&mut self.observer, cpu, &mut state.stack);
        }
    }

    /// Walks a path.
    pub(super) fn walk(&mut self, path: &Path) {
        for block in &path.blocks {
            let cpu = self.cpu(block.cpu);
            let end = block.first + block.count;
            let mut id = block.first;
            while id < end {
                self.arrive(cpu, id);
                let count = self.code.straight(id).min(end - id);
                self.run(cpu, id, count);
                id += count;
            }
        }
    }

    fn cpu(&mut self, number: u32) -> usize {
        let cpus = &mut self.state.cpus;
        if cpus.get(self.current).is_none_or(|c| c.number != number) {
            let known = cpus.iter().position(|c| c.number == number);
            self.current = known.unwrap_or_else(|| {
                cpus.push(Cpu::new(number));
                cpus.len() - 1
            });
        }
        self.current
    }

    /// Instructions run one after the other, the first of which has been arrived at.
    fn run(&mut self, cpu: usize, id: u32, count: u32) {
        let state = &mut self.state.cpus[cpu];
        self.tally.begun += u64::from(count);
        let last = id + count - 1;
        if state.resume.is_some() {
            let function = self.code.place(id).guest;
            if self.code.function(function).is(traits::BRACKET) {
                self.tally.bracket += u64::from(count);
            }
            state.guest_last = last;
            self.observer.run(cpu, state, function, id, count);
            return;
        }
        state.last = last;
        let function = self.code.place(id).host;
        self.observer.run(cpu, state, function, id, count);
        let decoded = self.code.decoded(last);
        if decoded.flow == Flow::Vmrun {
            self.enter_guest(cpu, decoded.next);
        }
    }

    fn enter_guest(&mut self, cpu: usize, resume: u64) {
        let state = &mut self.state.cpus[cpu];
        if state.doubt.take() == Some(Interception::UnlessInterrupt) && !state.dispatched {
            self.tally.intercepted += 1;
        }
        state.exited = false;
        state.resume = Some(resume);
        state.guest_last = NONE;
        self.push(cpu, GUEST, Kind::Vmrun, resume);
    }

    /// The guest's frame goes; what runs next is the host's.
    fn leave_guest(&mut self, cpu: usize) {
        let state = &mut self.state.cpus[cpu];
        state.resume = None;
        if let Some(guest) = state.stack.innermost(&[Kind::Vmrun]) {
            self.truncate(cpu, guest);
        }
    }

    /// The guest has exited.
    fn exit(&mut self, cpu: usize) {
        self.leave_guest(cpu);
        let state = &mut self.state.cpus[cpu];
        self.tally.exits += 1;
        state.exited = true;
        state.dispatched = false;
        state.doubt = None;
        let reason = self.reasons.next();
        if state.guest_last == NONE {
            return;
        }
        let interception = self.code.decoded(state.guest_last).interception;
        match reason.and_then(interrupted_an_instruction) {
            Some(true) => self.tally.intercepted += 1,
            Some(false) => {}
            None if interception == Interception::Always => self.tally.intercepted += 1,
            None => state.doubt = Some(interception),
        }
    }

    /// Control has come to an instruction.
    fn arrive(&mut self, cpu: usize, id: u32) {
        let code = self.code;
        let to = code.decoded(id);
        let state = &mut self.state.cpus[cpu];
        if state.is_new() && code.is_guests_alone(id) {
            state.resume = Some(SOMEWHERE);
        }
        if let Some(resume) = state.resume {
            let faulted = state.guest_last == NONE && code.enters_idt(id);
            if to.address == resume || (resume == SOMEWHERE && to.in_kernel()) {
                self.exit(cpu);
            } else if faulted {
                // VMRUN itself.
                self.leave_guest(cpu);
            } else {
                return;
            }
        }
        match self.state.cpus[cpu].last {
            NONE => self.settle(cpu, id),
            last => self.step(cpu, last, id),
        }
    }

    /// Control went from one instruction of the host to another.
    fn step(&mut self, cpu: usize, last: u32, id: u32) {
        let code = self.code;
        let (from, to) = (code.decoded(last), code.decoded(id));
        if from.steps_to(to.address) {
            return self.settle(cpu, id);
        }
        if from.flow == Flow::Call && to.address == from.target {
            return self.call(cpu, from, id);
        }
        if code.enters_idt(id) {
            return self.interrupt(cpu, last, id);
        }
        match from.flow {
            Flow::IndirectCall => self.call(cpu, from, id),
            Flow::IndirectJump => self.settle(cpu, id),
            Flow::Return => self.return_to(cpu, id),
            Flow::SystemCall if to.in_kernel() => {
                self.push(cpu, code.place(id).host, Kind::SystemCall, from.next);
            }
            Flow::SystemReturn if !to.in_kernel() => self.return_to_user(cpu, id),
            Flow::InterruptReturn => self.return_from_interrupt(cpu, last, id),
            _ => self.surprise(cpu, last, id),
        }
    }

    /// Control runs on or jumps, often inside the function it is in.
    fn settle(&mut self, cpu: usize, id: u32) {
        self.jump(cpu, id, false);
    }

    /// Control jumps; `on` says that what it jumps from is a thunk, whatever its name.
    fn jump(&mut self, cpu: usize, id: u32, on: bool) {
        let code = self.code;
        let place = code.place(id);
        let stack = &self.state.cpus[cpu].stack;
        let Some(top) = stack.top() else {
            return self.push(cpu, place.host, Kind::Before, 0);
        };
        if top.function == place.host {
            return;
        }
        // Entered anew rather than gone back to.
        let anew = place.starts && code.function(place.host).is(traits::THUNK);
        if let Some(position) = stack.in_chain(place.host).filter(|_| !anew) {
            return self.truncate(cpu, position + 1);
        }
        let thunk = *top;
        let entered = matches!(thunk.kind, Kind::Call | Kind::TailCall);
        if entered && (on || code.function(thunk.function).is(traits::THUNK)) {
            self.truncate(cpu, self.state.cpus[cpu].stack.frames.len() - 1);
            return self.push(cpu, place.host, thunk.kind, thunk.back);
        }
        self.push(cpu, place.host, Kind::TailCall, 0);
    }

    fn call(&mut self, cpu: usize, from: &Decoded, id: u32) {
        let place = self.code.place(id);
        let top = self.state.cpus[cpu].stack.top();
        match top {
            Some(top) if top.function == place.host && !place.starts => {
                let inner = Frame {
                    kind: Kind::Inner,
                    back: from.next,
                    ..*top
                };
                self.state.cpus[cpu].stack.push(inner);
            }
            _ => self.push(cpu, place.host, Kind::Call, from.next),
        }
    }

    fn return_to(&mut self, cpu: usize, id: u32) {
        let code = self.code;
        let address = code.decoded(id).address;
        let stack = &self.state.cpus[cpu].stack;
        let mut found = None;
        let mut switches = None;
        for (position, frame) in stack.frames.iter().enumerate().rev() {
            if frame.kind.is_boundary() {
                break;
            }
            if frame.kind == Kind::Call && code.function(frame.function).is(traits::SWITCH) {
                switches = Some(position);
            }
            if frame.returns_to(address) {
                found = Some(position);
                break;
            }
        }
        if found.is_none() {
            // What returns may be a thunk that was jumped to in place of a return.
            let returning = |f: &Frame| {
                !f.kind.is_boundary() && code.function(f.function).is(traits::RETURN_THUNK)
            };
            let thunks = stack.frames.iter().rev().take_while(|f| returning(f));
            let above = stack.frames.len() - thunks.count();
            let inner = above
                .checked_sub(1)
                .map(|top| stack.frames[top])
                .filter(|top| top.kind == Kind::Inner);
            let starts = code.place(id).starts;
            if inner.is_some_and(|f| starts || code.function(f.function).is(traits::THUNK)) {
                self.truncate(cpu, above - 1);
                return self.jump(cpu, id, true);
            }
            if starts && switches.is_none() {
                // Pushed and returned to.
                self.truncate(cpu, above);
                return self.settle(cpu, id);
            }
        }
        match (found, switches) {
            (_, Some(left)) => self.switch(cpu, left, id),
            (Some(position), None) => {
                self.truncate(cpu, position);
                self.settle(cpu, id);
            }
            (None, None) => self.return_to_unknown(cpu, id),
        }
    }

    fn interrupt(&mut self, cpu: usize, last: u32, id: u32) {
        let function = self.code.place(id).host;
        self.push(cpu, function, Kind::Interrupt, u64::from(last));
    }

    fn return_to_user(&mut self, cpu: usize, id: u32) {
        match self.state.cpus[cpu].stack.innermost(&[Kind::SystemCall]) {
            Some(position) => {
                self.truncate(cpu, position);
                self.settle(cpu, id);
            }
            None if self.recognise(cpu, None) => self.return_to_user(cpu, id),
            None => self.begin_anew(cpu, id),
        }
    }

    fn return_from_interrupt(&mut self, cpu: usize, last: u32, id: u32) {
        let code = self.code;
        let to = code.decoded(id);
        if to.in_kernel() && to.address == code.decoded(last).next {
            // Only to serialise: iret_to_self().
            return self.settle(cpu, id);
        }
        let stack = &self.state.cpus[cpu].stack;
        let Some(position) = stack.innermost(&[Kind::Interrupt, Kind::SystemCall]) else {
            return if self.recognise(cpu, None) {
                self.return_from_interrupt(cpu, last, id);
            } else {
                self.begin_anew(cpu, id);
            };
        };
        let frame = stack.frames[position];
        self.truncate(cpu, position);
        if frame.kind == Kind::SystemCall {
            return self.settle(cpu, id);
        }
        let interrupted = frame.back as u32;
        let exception = code.function(frame.function).is(traits::EXCEPTION);
        self.go_on(cpu, interrupted, exception, id);
    }

    /// Control is back from an interrupt or exception: at what was interrupted or behind it.
    fn go_on(&mut self, cpu: usize, interrupted: u32, exception: bool, id: u32) {
        let code = self.code;
        let to = code.decoded(id);
        let Some(from) = code.get(interrupted) else {
            return self.settle(cpu, id);
        };
        if to.address == from.address && (exception || !from.loops()) {
            // It had not completed and is begun anew.
            self.tally.intercepted += 1;
            return self.settle(cpu, id);
        }
        let goes_there = from.steps_to(to.address)
            || (from.flow == Flow::Call && to.address == from.target)
            || code.enters_idt(id)
            || !matches!(
                from.flow,
                Flow::Next | Flow::Branch | Flow::Jump | Flow::Call
            );
        if goes_there {
            return self.step(cpu, interrupted, id);
        }
        // The kernel has made it go elsewhere: a fixup.
        self.tally.intercepted += u64::from(exception);
        self.settle(cpu, id);
    }

    /// Control came where the last instruction does not lead.
    fn surprise(&mut self, cpu: usize, last: u32, id: u32) {
        let code = self.code;
        let place = code.place(id);
        let to = code.decoded(id);
        if code.follows_vmrun(to.address) {
            // Was in the guest when the recording began.
            self.state.cpus[cpu].exited = true;
            return self.begin_anew(cpu, id);
        }
        let unnamed = code.function(place.host).is(traits::UNNAMED);
        if to.in_kernel() && (place.starts || unnamed) {
            return self.interrupt(cpu, last, id);
        }
        let stack = &self.state.cpus[cpu].stack;
        let until = stack.boundary().map_or(0, |boundary| boundary + 1);
        let known = stack.frames[until..]
            .iter()
            .rposition(|frame| frame.function == place.host && frame.kind != Kind::Inner);
        match known {
            Some(position) => self.truncate(cpu, until + position + 1),
            None => self.return_to_unknown(cpu, id),
        }
    }

    /// A function goes on whose call was not seen.
    fn return_to_unknown(&mut self, cpu: usize, id: u32) {
        let code = self.code;
        let place = code.place(id);
        if let Some(boundary) = self.state.cpus[cpu].stack.boundary() {
            let frame = self.state.cpus[cpu].stack.frames[boundary];
            let inside = code.function(place.host).space == code.function(frame.function).space;
            self.truncate(cpu, boundary + usize::from(inside));
            if !inside || frame.function == place.host {
                return self.settle(cpu, id);
            }
            return self.push(cpu, place.host, Kind::Before, 0);
        }
        if self.recognise(cpu, Some(code.decoded(id).address)) {
            return self.settle(cpu, id);
        }
        self.begin_anew(cpu, id);
    }

    /// Nothing is known of how control came here.
    pub(super) fn begin_anew(&mut self, cpu: usize, id: u32) {
        self.truncate(cpu, 0);
        self.push(cpu, self.code.place(id).host, Kind::Before, 0);
        let state = &mut self.state.cpus[cpu];
        if let (Some(trail), Some(top)) = (&mut state.trail, state.stack.frames.last()) {
            trail.nodes.push(top.node);
        }
    }

    fn push(&mut self, cpu: usize, function: FunctionId, kind: Kind, back: u64) {
        let info = self.code.function(function);
        if info.is(traits::ON_ENTRY) {
            self.entered(cpu, info.traits);
        }
        if self.state.cpus[cpu].doubt == Some(Interception::UnlessInterrupt) {
            self.handled(cpu, info.traits, kind);
        }
        let below = self.state.cpus[cpu].stack.top();
        let skips = |below: &Frame| {
            let skip =
                info.is(traits::EMULATES) && self.code.function(below.function).is(traits::SKIPS);
            (below.skipped || skip) && kind != Kind::Interrupt
        };
        let mut frame = Frame {
            function,
            kind,
            skipped: below.is_some_and(skips),
            node: NONE,
            back,
        };
        frame.node = self.observer.enter(cpu, below, &frame);
        self.state.cpus[cpu].stack.push(frame);
    }

    /// A function is entered that says something about the exit.
    fn entered(&mut self, cpu: usize, entered: u32) {
        let state = &mut self.state.cpus[cpu];
        if entered & traits::HANDLER != 0 {
            state.exited = false;
        }
        if entered & traits::DISPATCHES != 0 {
            state.dispatched = true;
        }
        let memory = entered & traits::MEMORY_EXIT != 0;
        let exception = entered & traits::EXCEPTION_EXIT != 0;
        match state.doubt {
            None => {}
            Some(Interception::UnlessInterrupt) if entered & traits::INTERRUPT_EXIT == 0 => {}
            Some(Interception::UnlessInterrupt) => state.doubt = None,
            Some(doubt) if exception || (memory && doubt == Interception::IfMemoryFault) => {
                state.doubt = None;
                self.tally.intercepted += 1;
            }
            Some(_) => {}
        }
    }

    /// A function is entered while it is not known whether the exit was for an interrupt: if it is
    /// called by what calls handlers, the exit has one.
    fn handled(&mut self, cpu: usize, entered: u32, kind: Kind) {
        const NO_HANDLER: u32 =
            traits::DISPATCHES | traits::THUNK | traits::RETURN_THUNK | traits::INTERRUPT_EXIT;
        let state = &mut self.state.cpus[cpu];
        let code = self.code;
        let caller = state.stack.top().map(|frame| code.function(frame.function));
        let dispatched = caller.is_some_and(|caller| caller.is(traits::DISPATCHES));
        if dispatched && kind != Kind::Interrupt && entered & NO_HANDLER == 0 {
            state.doubt = None;
            self.tally.intercepted += 1;
        }
    }

    /// Leaves all frames from a position on.
    pub(super) fn truncate(&mut self, cpu: usize, length: usize) {
        let frames = &mut self.state.cpus[cpu].stack.frames;
        while frames.len() > length {
            if let Some(frame) = frames.pop().filter(|frame| frame.kind != Kind::Inner) {
                self.observer.leave(cpu, &frame);
            }
        }
    }
}
