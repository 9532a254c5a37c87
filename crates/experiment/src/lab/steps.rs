//! Conditions that differ in the kernel's code alone, measured one behind the other in one boot of each row.
//!
//! The machine stops before each step and behind it, and its code is changed from outside and back. Where a step ends the lab, the
//! others are measured in another one.

use exitpath_exits::{Row, Scratch};
use exitpath_lab::gdb::{Patch, Patches};
use exitpath_recording::{Outcome, Run};

use super::boots::{self, Booted, OwnBoot};
use super::session::{Boot, Session, Setup, Work};
use crate::control::number;
use crate::error::{Error, Kind, Result};
use crate::pool::{at_a_time, run_all};

/// Seconds of the lab's clock after which a lab whose guest or kernel makes no progress in a step is given up.
const SILENCE: u64 = 2;

/// Whether rows can be measured in steps.
///
/// # Errors
/// Why the first of them that cannot cannot.
pub fn check_steps(rows: &[&Row]) -> Result<()> {
    let obstacle = rows.iter().find_map(|row| Some((row, obstacle(row)?)));
    match obstacle {
        None => Ok(()),
        Some((row, why)) => Err(Error::Said {
            kind: Kind::Usage,
            says: format!("{} cannot be measured in steps: {why}", row.name),
        }),
    }
}

/// Why a row cannot be measured in steps; `None` where it can.
fn obstacle(row: &Row) -> Option<&'static str> {
    if row.vcpus > 1 || row.cpus > 1 {
        return Some("it has more than one vCPU or CPU");
    }
    if row.kick.is_some() || row.consumer.is_some() || row.rung.is_some() {
        return Some("it is a kick or a rung");
    }
    if row.scratch != Scratch::Unused {
        return Some("each of its operations takes a page of its own");
    }
    None
}

impl<'a> Session<'a> {
    /// Measures all rows under conditions whose kernels' code differs, and all else, what is switched too, is as under the first. A condition in which the lab
    /// dies has runs all the same: their outcome is a fault, with what it died of.
    ///
    /// # Errors
    /// Where not one of the conditions could be measured, and as [`check_steps`].
    pub fn run_in_steps(&mut self, setups: Vec<Setup<'a>>) -> Result<()> {
        check_steps(&self.plan.rows)?;
        let Some(switches) = setups.first().map(|setup| setup.switches.clone()) else {
            return Ok(());
        };
        let settings = self.plan.sampling.settings(vec![0], true);
        let of_row = |row| {
            let own = OwnBoot {
                cpus: 1,
                rows: vec![row],
                settings: settings.clone(),
                set: Vec::new(),
                recordable: false,
            };
            own.switched(&switches)
        };
        let rows = self.plan.rows.iter().copied();
        let boots: Vec<(u64, OwnBoot)> = rows
            .flat_map(|row| self.seeds.iter().map(move |&seed| (seed, of_row(row))))
            .collect();
        let what = format!(
            "{} in {}, {} of the lab, {} at a time",
            number(self.plan.rows.len(), "row"),
            number(setups.len(), "condition"),
            number(boots.len(), "boot"),
            at_a_time(boots.len())
        );
        let steps = (boots.len() * setups.len()) as u64;
        let booted = self.control.during(steps, &what, || {
            run_all(&boots, self.control, |(seed, own)| {
                self.in_steps(&setups, *seed, own)
            })
        })?;
        let first = self.setups.len();
        for setup in setups {
            self.setups.push(setup);
            self.started.push(None);
        }
        for ((seed, own), of_steps) in boots.into_iter().zip(booted) {
            for (step, booted) in of_steps.into_iter().enumerate() {
                let boot = Boot {
                    setup: first + step,
                    seed,
                    work: Work::Step(own.clone()),
                };
                self.done.push((boot, booted));
            }
        }
        Ok(())
    }

    /// Adds a condition under which no lab did what it should: its runs are like the first condition's, and each was skipped where the lab cannot be
    /// made so, and else is a fault, for that reason.
    pub fn without_runs(&mut self, setup: Setup<'a>, why: &Error) {
        let reason = why.to_string();
        let outcome = match why {
            Error::Inside { .. } => Outcome::Skipped { reason },
            _ => Outcome::Fault { reason },
        };
        let at = self.setups.len();
        self.setups.push(setup);
        self.started.push(None);
        let like = self.done.iter().filter(|(boot, _)| boot.setup == 0);
        let dead = like.filter_map(|(boot, booted)| match &boot.work {
            Work::Own(own) | Work::Step(own) => {
                let boot = Boot {
                    setup: at,
                    seed: boot.seed,
                    work: Work::Step(own.clone()),
                };
                Some((boot, ended(booted, &outcome)))
            }
            Work::Foreign => None,
        });
        let dead: Vec<(Boot, Booted)> = dead.collect();
        self.done.extend(dead);
    }

    /// What each condition brought out at one seed.
    fn in_steps(&self, setups: &[Setup<'_>], seed: u64, own: &OwnBoot) -> Result<Vec<Booted>> {
        let mut died: Vec<Option<String>> = vec![None; setups.len()];
        loop {
            let left: Vec<usize> = (0..setups.len()).filter(|&at| died[at].is_none()).collect();
            let Some(&first) = left.first() else {
                return Err(Error::Said {
                    kind: Kind::Cannot,
                    says: format!(
                        "{}: the lab died under each condition: {}",
                        own.rows[0].name,
                        died.into_iter().flatten().next().unwrap_or_default()
                    ),
                });
            };
            let patches = left.iter().flat_map(|&at| {
                let apply = setups[at].patches.clone();
                let undo: Vec<Patch> = apply.iter().rev().map(Patch::undone).collect();
                [apply, undo]
            });
            let mut lab = setups[first].prepared.lab(seed, own.cpus);
            lab.patches = Some(Patches {
                breakpoint: exitpath_lab::step_address()?,
                steps: patches.collect(),
            });
            lab.silence = Some(SILENCE);
            match boots::in_steps(lab, own, left.len() as u32, self.control) {
                Ok(measured) => return Ok(whole(measured, &died, own)),
                Err((error, _)) if error.is_interruption() => return Err(error),
                Err((error, Some(step))) => died[left[step as usize]] = Some(error.to_string()),
                Err((error, None)) => return Err(error),
            }
        }
    }
}

/// What was measured, with what the others died of in its places.
fn whole(measured: Vec<Booted>, died: &[Option<String>], own: &OwnBoot) -> Vec<Booted> {
    let mut measured = measured.into_iter().peekable();
    let mut last: Option<Booted> = None;
    let mut all = Vec::new();
    for died in died {
        let booted = match died {
            None => measured.next(),
            Some(why) => {
                let like = measured.peek().or(last.as_ref()).cloned();
                like.map(|like| {
                    let reason = why.clone();
                    ended(&like, &Outcome::Fault { reason })
                })
            }
        };
        debug_assert!(booted.is_some(), "{}", own.rows[0].name);
        last.clone_from(&booted);
        all.extend(booted);
    }
    all
}

/// A boot that ended early, and so each of its runs.
fn ended(like: &Booted, outcome: &Outcome) -> Booted {
    let run = |like: &Run| Run {
        outcome: outcome.clone(),
        ops: 0,
        userspace_exits: 0,
        counters: Default::default(),
        samples: Vec::new(),
        notes: Vec::new(),
        ..like.clone()
    };
    Booted {
        runs: like.runs.iter().map(run).collect(),
        trace: None,
        ..like.clone()
    }
}
