//! `exitpath ablate --on host`: what can be switched off while this machine runs, and what a VM can be made without.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use exitpath_analysis::ablation::design::MOST;
use exitpath_analysis::ablation::summary::needed;
use exitpath_cli::Ablate;
use exitpath_exits::Row;
use exitpath_experiment::host::knobs::{HOST_KNOBS, HostKnob, State, Switch};
use exitpath_experiment::host::own::{self, Switched};
use exitpath_experiment::{Plan, Sampling, guest};
use exitpath_recording::{Difference, Recording};

use crate::command;
use crate::control::control;
use crate::failure::Failure;
use crate::knobs::ALL_ON;
use crate::output;

/// Bracketed samples of each run unless the user says otherwise.
const SAMPLES: u32 = 200;
/// Seconds a guest may go without progress.
const WATCHDOG: Duration = Duration::from_secs(2);

pub(super) fn record(args: &Ablate, rows: Vec<&'static Row>) -> Result<Recording, Failure> {
    let mut locked = Vec::new();
    let mut chosen: Vec<&HostKnob> = Vec::new();
    for knob in asked_for(args)? {
        match knob.state_here()? {
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
            let is_off = |at: &usize| off >> at & 1 == 1;
            let off = (0..chosen.len()).filter(is_off).map(|at| chosen[at]);
            switched(&off.collect::<Vec<_>>())
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
fn asked_for(args: &Ablate) -> Result<Vec<&'static HostKnob>, Failure> {
    let mut seen = BTreeSet::new();
    let names = args.knob.iter().filter(|name| seen.insert(*name));
    let named = names.map(|name| {
        let knob = HOST_KNOBS.iter().find(|knob| knob.name == *name);
        knob.ok_or_else(|| {
            Failure::usage(format!(
                "there is no knob '{name}' on a host: `exitpath ablate --list-knobs --on host` names them"
            ))
        })
    });
    match args.knob.is_empty() {
        true => Ok(HOST_KNOBS.iter().collect()),
        false => named.collect(),
    }
}

/// The condition in which these are off.
fn switched(off: &[&HostKnob]) -> Switched {
    let mut made = Switched {
        name: ALL_ON.to_owned(),
        ..Switched::base()
    };
    if !off.is_empty() {
        let names: Vec<&str> = off.iter().map(|knob| knob.name).collect();
        made.name = format!("without {}", names.join(", "));
    }
    for knob in off {
        match knob.switch {
            Switch::File(file, value) => {
                made.settings.push((PathBuf::from(file), value.to_owned()))
            }
            Switch::Vm(without, _) => without(&mut made.machine),
        }
        made.differs.push(Difference::Off {
            knob: knob.name.to_owned(),
            changes: vec![knob.change()],
        });
    }
    made
}
