//! Cuts a window into rounds and counts each: the first of two walks.
//!
//! The whole window is walked in order, because what a round returns to was called before it. A
//! path walked before from the same state is not walked again: 2,000 rounds are about ten walks.

use std::collections::HashMap;
use std::rc::Rc;

use exitpath_recording::{Exit, Part, Run, Sample, Window};

use super::PathError;
use super::code::Code;
use super::functions::FunctionId;
use super::stack::{Frame, Kind};
use super::state::{Cpu, State, Tally};
use super::walk::{Observer, Walker};

/// One round: the operation's bracket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    /// The path of the operation's bracket.
    pub(super) path: u32,
    /// Position among [`Rounds::states`]: how it was entered.
    pub(super) entry: u32,
    /// What the operation's bracket was.
    pub(super) op: Walked,
    /// What the bracket without the operation was.
    pub(super) empty: Option<Empty>,
    /// What the guest's clock said.
    pub(super) sample: Sample,
    /// First of its exits among [`Rounds::exits`], and the one behind its last.
    exits: (usize, usize),
}

/// The bracket without the operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Empty {
    /// Its path.
    pub(super) path: u32,
    /// Position among [`Rounds::states`]: how it was entered.
    pub(super) entry: u32,
    pub(super) walked: Walked,
}

/// What a path was, entered from a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    /// Position of the state it led to.
    end: u32,
    pub(super) tally: Tally,
    /// Stands for the sequence of functions entered and left.
    pub(super) sequence: u64,
}

/// All rounds of a window.
pub(super) struct Rounds<'w> {
    pub(super) rounds: Vec<Round>,
    states: Vec<Rc<State>>,
    /// The window's exits, where their reasons are known.
    exits: Option<&'w [Exit]>,
}

impl Rounds<'_> {
    /// Why the guest exited in a round, where that is known.
    pub(super) fn exits(&self, round: &Round) -> Option<&[Exit]> {
        let (first, end) = round.exits;
        self.exits
            .map(|exits| exits.get(first..end).unwrap_or_default())
    }

    /// The state a round was entered in.
    pub(super) fn entry(&self, round: &Round) -> State {
        self.state(round.entry)
    }

    /// A state that something was entered in.
    pub(super) fn state(&self, position: u32) -> State {
        let state = self.states.get(position as usize);
        state.map_or_else(State::default, |state| State::clone(state))
    }
}

impl Round {
    /// Instructions of the round: all but those of the bracket.
    pub(super) fn total(&self) -> u64 {
        self.op.tally.begun - self.op.tally.bracket
    }

    /// What of the operation's bracket is not explained, in instructions.
    pub(super) fn residual(&self) -> i64 {
        self.op.residual(self.sample.op)
    }

    /// The same of the bracket without the operation.
    pub(super) fn empty_residual(&self) -> i64 {
        self.empty
            .map_or(0, |empty| empty.walked.residual(self.sample.empty))
    }

    /// What the guest's clock says of the operation.
    pub(super) fn guest_timed(&self) -> u64 {
        let bracket = if self.empty.is_some() {
            self.sample.empty
        } else {
            self.op.tally.bracket
        };
        self.sample.op.saturating_sub(bracket)
    }

    /// Instructions in the bracket without the operation beyond those of a bracket: the baseline.
    pub(super) fn baseline(&self) -> u64 {
        self.empty.map_or(0, |empty| {
            empty
                .walked
                .tally
                .begun
                .saturating_sub(self.op.tally.bracket)
        })
    }

    /// Instructions of the operation that were begun and not completed.
    pub(super) fn intercepted(&self) -> u64 {
        let of_baseline = self.empty.map_or(0, |empty| empty.walked.tally.intercepted);
        self.op.tally.intercepted.saturating_sub(of_baseline)
    }
}

impl Walked {
    fn residual(&self, ticks: u64) -> i64 {
        let explained = self.tally.begun - self.tally.intercepted.min(self.tally.begun);
        (i128::from(explained) - i128::from(ticks)).clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

impl<'w> Rounds<'w> {
    /// Walks a window.
    pub(super) fn new(
        code: &Code<'_>,
        window: &'w Window,
        run: &Run,
    ) -> Result<Rounds<'w>, PathError> {
        let ops = window.segments.iter().filter(|s| s.part == Part::Op);
        let brackets = ops.count();
        if brackets != run.samples.len() {
            return Err(PathError::Samples {
                run: run.id,
                brackets,
                samples: run.samples.len(),
            });
        }
        let mut memory = Memory::new();
        let mut rounds = Vec::with_capacity(brackets);
        let mut state = 0;
        let mut empty = None;
        let mut samples = run.samples.iter();
        let reasons = window.exits.as_deref();
        let mut behind = 0;
        for (position, segment) in (0..).zip(&window.segments) {
            let entry = state;
            let rest = reasons
                .unwrap_or_default()
                .get(behind..)
                .unwrap_or_default();
            let of_it = rest.partition_point(|exit| exit.segment <= position);
            let exits = (behind, behind + of_it);
            behind += of_it;
            let mut walked = memory.walk(code, segment.path, entry, &rest[..of_it]);
            state = walked.end;
            // The same instructions for another reason are another path.
            for exit in &rest[..of_it] {
                walked.sequence = mix(walked.sequence ^ exit.code);
            }
            if segment.part == Part::Op && reasons.is_some() && walked.tally.exits != of_it as u64 {
                return Err(PathError::Exits {
                    run: run.id,
                    exits: walked.tally.exits,
                    reasons: of_it,
                });
            }
            match segment.part {
                Part::Between => {}
                Part::Empty => {
                    empty = Some(Empty {
                        path: segment.path,
                        entry,
                        walked,
                    });
                }
                Part::Op => rounds.extend(samples.next().map(|&sample| Round {
                    path: segment.path,
                    entry,
                    op: walked,
                    empty: empty.take(),
                    sample,
                    exits,
                })),
            }
        }
        Ok(Rounds {
            rounds,
            states: memory.states,
            exits: reasons,
        })
    }
}

/// What was walked before.
struct Memory {
    states: Vec<Rc<State>>,
    known: HashMap<Rc<State>, u32>,
    /// By path, state, and reasons of exits.
    walks: HashMap<(u32, u32, u64), Walked>,
}

impl Memory {
    fn new() -> Memory {
        let begin = Rc::new(State::default());
        Memory {
            states: vec![begin.clone()],
            known: HashMap::from([(begin, 0)]),
            walks: HashMap::new(),
        }
    }

    fn walk(&mut self, code: &Code<'_>, path: u32, entry: u32, exits: &[Exit]) -> Walked {
        let reasons = exits
            .iter()
            .fold(0, |sum, exit| mix(mix(sum ^ exit.code) ^ exit.info1));
        let key = (path, entry, reasons);
        if let Some(&walked) = self.walks.get(&key) {
            return walked;
        }
        let state = State::clone(&self.states[entry as usize]);
        let mut walker = Walker::new(code, state, Sequence::default()).knowing(exits);
        if let Some(path) = code.path(path) {
            walker.walk(path);
        }
        let walked = Walked {
            tally: walker.tally,
            sequence: walker.observer.sum(),
            end: self.intern(walker.state),
        };
        self.walks.insert(key, walked);
        walked
    }

    fn intern(&mut self, state: State) -> u32 {
        if let Some(&known) = self.known.get(&state) {
            return known;
        }
        let position = self.states.len() as u32;
        let state = Rc::new(state);
        self.states.push(state.clone());
        self.known.insert(state, position);
        position
    }
}

/// A number for the sequence of functions entered and left, on each CPU by itself: in which order
/// an emulator lets CPUs run does not make another path. Nor does where an interrupt comes, or
/// what it finds to do: only that it came counts.
#[derive(Debug, Default)]
struct Sequence {
    cpus: Vec<OfCpu>,
}

#[derive(Debug, Clone, Copy, Default)]
struct OfCpu {
    /// Of functions entered and left outside of interrupts.
    functions: u64,
    /// Of the interrupts, in whichever order.
    interrupts: u64,
    /// Frames from the outermost interrupt's on; 0 outside of interrupts.
    interrupted: u32,
}

impl Sequence {
    fn of(&mut self, cpu: usize) -> &mut OfCpu {
        if self.cpus.len() <= cpu {
            self.cpus.resize(cpu + 1, OfCpu::default());
        }
        &mut self.cpus[cpu]
    }

    fn sum(&self) -> u64 {
        let cpus = self.cpus.iter();
        cpus.fold(0, |sum, cpu| mix(mix(sum ^ cpu.functions) ^ cpu.interrupts))
    }
}

impl Observer for Sequence {
    fn enter(&mut self, cpu: usize, _: Option<&Frame>, frame: &Frame) -> u32 {
        let event = u64::from(frame.function) + 1;
        let of = self.of(cpu);
        if of.interrupted > 0 {
            of.interrupted += 1;
        } else if frame.kind == Kind::Interrupt {
            of.interrupted = 1;
            of.interrupts = of.interrupts.wrapping_add(mix(event));
        } else {
            of.functions = mix(of.functions ^ event);
        }
        0
    }

    fn leave(&mut self, cpu: usize, _: &Frame) {
        let of = self.of(cpu);
        if of.interrupted > 0 {
            of.interrupted -= 1;
        } else {
            of.functions = mix(of.functions);
        }
    }

    fn before(&mut self, _: usize, _: Option<&Frame>, _: &Frame) -> u32 {
        0
    }

    fn run(&mut self, _: usize, _: &Cpu, _: FunctionId, _: u32, _: u32) {}

    fn stop(&mut self, cpu: usize, _: &Frame) {
        // Another thread is not in this one's interrupt.
        self.of(cpu).interrupted = 0;
    }
}

/// SplitMix64's step (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014): a bijection, so sequences differ unless 64 bits collide.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
