//! `exitpath ablate --on host`: what can be switched off while this machine runs, and what a VM can be made without.

use std::collections::BTreeSet;
use std::time::Duration;

use exitpath_analysis::ablation::design::MOST;
use exitpath_analysis::ablation::summary::needed;
use exitpath_cli::Ablate;
use exitpath_exits::Row;
use exitpath_experiment::host::own::{self, Switched};
use exitpath_experiment::knobs::{self, SWITCH_KNOBS, State, SwitchKnob};
use exitpath_experiment::{Plan, Sampling, guest};
use exitpath_recording::Recording;

use crate::command;
use crate::control::control;
use crate::failure::Failure;
use crate::knobs::condition_name;
use crate::output;

/// Bracketed samples of each run unless the user says otherwise.
const SAMPLES: u32 = 200;
/// Seconds a guest may go without progress.
const WATCHDOG: Duration = Duration::from_secs(2);

pub(super) fn record(args: &Ablate, rows: Vec<&'static Row>) -> Result<Recording, Failure> {
    let mut locked = Vec::new();
    let mut chosen: Vec<&SwitchKnob> = Vec::new();
    let named = !args.knob.is_empty();
    for knob in asked_for(args)? {
        match knob.state_here(named)? {
            State::On => chosen.push(knob),
            State::Absent => {}
            State::Locked(why) => locked.push(format!("{}: {why}", knob.name)),
        }
    }
    for why in &locked {
        output::remark(&format!("{why}: it stays on"));
    }
    if chosen.is_empty() {
        return Err(Failure::cannot(
            "none of the knobs is on here and can be switched off",
        ));
    }
    if chosen.len() > MOST {
        return Err(Failure::usage(format!(
            "{} knobs are more than {MOST}: name some by --knob",
            chosen.len()
        )));
    }
    // In the order in which the analysis numbers them.
    chosen.sort_by_key(|knob| knob.name);
    let conditions: Vec<Switched> = needed(chosen.len())
        .unwrap_or_default()
        .into_iter()
        .map(|off| {
            let states = chosen.iter().enumerate();
            switched(states.map(|(at, &knob)| (knob, off >> at & 1 == 1)), named)
        })
        .collect();
    let plan = Plan {
        command: command::ABLATE,
        rows,
        sampling: Sampling {
            batches: 0,
            batch_length: 0,
            ..Sampling::measured(args.samples.unwrap_or(SAMPLES), WATCHDOG)
        },
        order_seed: 1,
        by_layers: false,
    };
    let guest = guest::check();
    let mut recording = own::record(&plan, &guest, args.runs, &conditions, &control())?;
    recording.manifest.warnings.extend(locked);
    Ok(recording)
}

/// The knobs of these names; all where there are none.
fn asked_for(args: &Ablate) -> Result<Vec<&'static SwitchKnob>, Failure> {
    let mut seen = BTreeSet::new();
    let names = args.knob.iter().filter(|name| seen.insert(*name));
    let named = names.map(|name| {
        knobs::find(name).ok_or_else(|| {
            Failure::usage(format!(
                "there is no knob '{name}' on a host: `exitpath ablate --list-knobs --on host` names them"
            ))
        })
    });
    match args.knob.is_empty() {
        true => Ok(SWITCH_KNOBS.iter().collect()),
        false => named.collect(),
    }
}

/// The condition in which those knobs are off of which that is said, and the others on.
fn switched<'k>(states: impl Iterator<Item = (&'k SwitchKnob, bool)>, named: bool) -> Switched {
    let mut made = Switched::base();
    let mut names = Vec::new();
    for (knob, is_off) in states {
        match is_off {
            true => {
                names.push(knob.name);
                made.differs.push(knob.switch_off(&mut made.switches));
            }
            false => made
                .differs
                .extend(knob.leave_on(named, &mut made.switches)),
        }
    }
    made.name = condition_name(&names);
    made
}
