//! Threads that leave a CPU, and come back.
//!
//! `__switch_to_asm` returns on another thread's stack. Which one shows only as that thread
//! returns to callers: of the threads that were left, the one whose stack returns there.

use super::stack::{Kind, NONE, Stack};
use super::state::Trail;
use super::walk::{Observer, Walker};

/// Threads remembered that were left by `__switch_to_asm`.
const SUSPENDED: usize = 16;
/// Returns of a thread looked at before it is recognised: all threads return to `schedule` first.
const RECOGNISED_FROM: usize = 2;
/// Returns looked at to tell two threads apart.
const RECOGNISED_BY: usize = 8;

impl<O: Observer> Walker<'_, O> {
    /// Another thread goes on, on this CPU.
    pub(super) fn switch(&mut self, cpu: usize, left: usize, id: u32) {
        self.truncate(cpu, left);
        let state = &mut self.state.cpus[cpu];
        let stack = std::mem::take(&mut state.stack);
        stack.frames.iter().for_each(|f| self.observer.stop(cpu, f));
        let suspended = &mut self.state.suspended;
        suspended.retain(|other| !other.same_place(&stack));
        if suspended.len() >= SUSPENDED {
            suspended.remove(0);
        }
        if !stack.frames.is_empty() {
            suspended.push(stack);
        }
        state.trail = Some(Trail::default());
        self.begin_anew(cpu, id);
    }

    /// Looks for the thread that goes on: the one whose stack returns where this one did, and now
    /// to `address`, or out of an interrupt or system call. If there is but one, its stack takes
    /// the place of what was seen of it since.
    pub(super) fn recognise(&mut self, cpu: usize, address: Option<u64>) -> bool {
        let state = &mut self.state.cpus[cpu];
        let Some(mut trail) = state.trail.take() else {
            return false;
        };
        trail.returns.extend(address);
        let depth = trail.returns.len();
        let fits = |stack: &Stack| {
            let returns = stack.returns().map(|(back, _)| back);
            let leaves = address.is_some() || stack.returns().count() == depth;
            leaves && returns.take(depth).eq(trail.returns.iter().copied())
        };
        let suspended = self.state.suspended.iter().enumerate().rev();
        let mut fitting = suspended.filter(|(_, stack)| fits(stack));
        let found = fitting.next().map(|(position, _)| position);
        let several = fitting.next().is_some();
        let Some(position) = found else {
            return false;
        };
        let certain = depth >= RECOGNISED_FROM && (!several || depth >= RECOGNISED_BY);
        if address.is_some() && !certain {
            state.trail = Some(trail);
            return false;
        }
        let stack = self.state.suspended.remove(position);
        self.take_up(cpu, stack, &trail);
        true
    }

    /// A thread's stack takes the place of what was seen of it since it was switched to.
    fn take_up(&mut self, cpu: usize, mut stack: Stack, trail: &Trail) {
        self.truncate(cpu, 0);
        announce(&mut self.observer, cpu, &mut stack);
        stack.frames.iter().for_each(|f| self.observer.go_on(f));
        // What was outermost between two returns is the frame that the next one left.
        let mut left = stack.frames.len();
        let returned: Vec<usize> = stack.returns().map(|(_, position)| position).collect();
        for (depth, &node) in trail.nodes.iter().enumerate() {
            let Some(&position) = returned.get(depth) else {
                break;
            };
            self.observer.same(node, stack.frames[position].node);
            if depth < trail.returns.len() {
                left = position;
            }
        }
        self.state.cpus[cpu].stack = stack;
        if trail.returns.is_empty() {
            left = self.state.cpus[cpu].stack.boundary().map_or(0, |b| b + 1);
        }
        self.truncate(cpu, left);
    }
}

/// Tells an observer of frames that were pushed before it came.
pub(super) fn announce(observer: &mut impl Observer, cpu: usize, stack: &mut Stack) {
    for position in 0..stack.frames.len() {
        let below = position.checked_sub(1).map(|below| stack.frames[below]);
        let frame = stack.frames[position];
        let inherited = below.map_or(NONE, |below| below.node);
        stack.frames[position].node = match frame.kind {
            Kind::Inner => inherited,
            _ if frame.node != NONE => frame.node,
            _ => observer.before(cpu, below.as_ref(), &frame),
        };
    }
}
