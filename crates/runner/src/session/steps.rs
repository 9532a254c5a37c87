//! Samples in steps: of one VM, again and again, with the kernel's code changed from outside meanwhile.
//!
//! Before each step and behind it [`marker::step`] is executed, where a lab's machine stops: what is changed in its kernel is
//! changed while one step's samples are taken, and at no other time. A VM that a step breaks is replaced for the next one.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exitpath_exits::layout::{command, word};
use exitpath_exits::{Image, Row};
use exitpath_recording::{Outcome, Run};
use exitpath_vmm::{Error, Kvm, Vm, kick};

use super::counts;
use super::watch::{ThreadEnd, Worker, watch};
use super::{Failure, Harvest, Protocol, config, cpu_of, finish, signs};
use crate::amounts::{samples_of, warm_up_of};
use crate::arch::marker;
use crate::settings::Settings;

/// Words of an answer.
const ANSWERS: usize = 7;
/// Their names.
const REGISTERS: [&str; ANSWERS] = ["RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP"];

/// The steps that are over, and whether one has begun that is not.
#[derive(Default)]
struct Steps {
    over: Mutex<Vec<Run>>,
    within: AtomicBool,
}

impl Steps {
    fn over(&self) -> MutexGuard<'_, Vec<Run>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes samples of a row in so many steps; each is a copy of `empty`, filled. `begun` is told each step's number.
pub(crate) fn run(
    kvm: &Kvm,
    row: &'static Row,
    settings: &Settings,
    empty: &Run,
    steps: u32,
    begun: impl Fn(u32) + Clone + Send + 'static,
) -> Result<Vec<Run>, Error> {
    kick::install();
    let done = Arc::new(Steps::default());
    loop {
        let from = done.over().len() as u32;
        if from == steps {
            return Ok(std::mem::take(&mut *done.over()));
        }
        let mut run = empty.clone();
        one_vm(
            kvm,
            row,
            settings,
            &mut run,
            from..steps,
            &done,
            begun.clone(),
        )?;
        if run.outcome == Outcome::Done {
            continue;
        }
        if !done.within.swap(false, Ordering::Relaxed) {
            return Err(Error::Unexpected {
                reason: format!(
                    "{} went wrong between two steps: {:?}",
                    row.name, run.outcome
                ),
            });
        }
        // The step is over, though not as it should be.
        marker::step();
        done.over().push(run);
    }
}

/// Goes through steps in a VM until one goes wrong, which `run` says then.
fn one_vm(
    kvm: &Kvm,
    row: &'static Row,
    settings: &Settings,
    run: &mut Run,
    steps: Range<u32>,
    done: &Arc<Steps>,
    begun: impl Fn(u32) + Send + 'static,
) -> Result<(), Error> {
    let program = row.program(kvm.is_amd());
    let stop = Arc::new(AtomicBool::new(false));
    let (vm, vcpus) = Vm::new(kvm, &Image::new(&program), config(row, settings), &stop)?;
    let memory = vm.memory().clone();
    let vcpu = vcpus.into_iter().next().expect("a VM has a vCPU");
    let protocol = Protocol::new(row, settings.clone(), vm, vcpu);
    let (cpu, empty, told) = (cpu_of(settings, 0), run.clone(), done.clone());
    let worker = Worker::spawn(move || {
        if let Some(cpu) = cpu {
            let _ = kick::pin(cpu);
        }
        protocol.steps(steps, &empty, &told, begun)
    });
    let ended = watch(&worker, || signs(&memory), settings.watchdog, &stop);
    stop.store(true, Ordering::Relaxed);
    match ended {
        ThreadEnd::Home(Ok(())) => Ok(()),
        // KVM refuses what it did before: that is what the step came to, where one was begun.
        ThreadEnd::Home(Err(Failure::Error(error))) if done.within.load(Ordering::Relaxed) => {
            run.outcome = Outcome::Fault {
                reason: error.to_string(),
            };
            Ok(())
        }
        other => {
            let other: ThreadEnd<Result<Harvest, Failure>> = match other {
                ThreadEnd::Home(ended) => ThreadEnd::Home(ended.map(|()| Harvest::default())),
                ThreadEnd::Lost => ThreadEnd::Lost,
                ThreadEnd::Panicked => ThreadEnd::Panicked,
            };
            finish(other, &memory, &program, settings.watchdog, run)
        }
    }
}

impl Protocol {
    /// Takes the samples of these steps, and adds each that is over.
    fn steps(
        mut self,
        steps: Range<u32>,
        empty: &Run,
        done: &Steps,
        begun: impl Fn(u32),
    ) -> Result<(), Failure> {
        let samples = samples_of(self.row, &self.settings);
        self.vm
            .memory()
            .set_word(word::YIELD, u64::from(self.settings.yielding));
        self.vcpu.take_rung(self.row, &self.model, &[])?;
        self.until_ready()?;
        self.settle(counts::result_pages(samples, 0))?;
        let warm_up = warm_up_of(self.row, &self.settings);
        if warm_up > 0 {
            self.go(command::PAIRS, warm_up, 0)?;
        }
        let own = self.own(samples)?;
        // What is not the same twice is no answer.
        let (right, again) = (self.answer()?, self.answer()?);
        for step in steps {
            begun(step);
            let mut run = empty.clone();
            let start = self.read()?;
            done.within.store(true, Ordering::Relaxed);
            marker::step();
            self.go(command::PAIRS, samples, 0)?;
            let (mut counters, userspace_exits) = self.read()?.since(&start);
            let answer = self.answer()?;
            marker::step();
            done.within.store(false, Ordering::Relaxed);
            run.ops = u64::from(samples);
            match own.take_off(&mut counters, userspace_exits) {
                Ok(exits) => run.userspace_exits = exits,
                Err(reason) => run.outcome = Outcome::Fault { reason },
            }
            run.counters = counters;
            run.samples = counts::samples(&self.vm.memory().results(2 * samples as usize));
            if let Some(reason) = wrong(&right, &again, &answer) {
                run.outcome = Outcome::Fault { reason };
            }
            done.over().push(run);
        }
        Ok(())
    }

    /// What the guest has in its registers behind the operation.
    fn answer(&mut self) -> Result<[u64; ANSWERS], Failure> {
        // A guest that does not run leaves none.
        for at in 0..ANSWERS as u64 {
            self.vm.memory().set_word(word::ANSWER + 8 * at, 0);
        }
        self.go(command::ANSWER, 1, 0)?;
        let memory = self.vm.memory();
        Ok(std::array::from_fn(|at| {
            memory.word(word::ANSWER + 8 * at as u64)
        }))
    }
}

/// How an answer differs from the right one, of what was the same twice.
fn wrong(
    right: &[u64; ANSWERS],
    again: &[u64; ANSWERS],
    answer: &[u64; ANSWERS],
) -> Option<String> {
    let at = (0..ANSWERS).find(|&at| right[at] == again[at] && right[at] != answer[at])?;
    Some(format!(
        "the operation left {:#x} in {}, and {:#x} is right",
        answer[at], REGISTERS[at], right[at]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_wrong_where_it_was_the_same_twice() {
        let right = [1, 2, 3, 4, 5, 6, 7];
        let again = [1, 2, 3, 9, 5, 6, 7];
        assert_eq!(wrong(&right, &again, &right), None);
        assert_eq!(wrong(&right, &again, &[1, 2, 3, 77, 5, 6, 7]), None);
        let said = wrong(&right, &again, &[1, 0, 3, 4, 5, 6, 7]).expect("wrong");
        assert!(
            said.contains("0x0 in RBX") && said.contains("0x2 is right"),
            "{said}"
        );
    }
}
