//! `exitpath userspace`: the VMM's half of an exit, layer by layer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_analysis::path::PhaseTable;
use exitpath_analysis::table::Verdict;
use exitpath_analysis::userspace::{Ladder, ladder};
use exitpath_exits::Row;
use exitpath_exits::ladder::{ALL_ON_RUNG, PARTS, RUNGS, is_locking};
use exitpath_lab::plugin::Plugin;
use exitpath_recording::Recording;

use crate::cli::{On, Place, Userspace};
use crate::failure::Failure;
use crate::in_lab::{self, LabMeasurement};
use crate::lab::Prepared;
use crate::measure::host::HostMeasurement;
use crate::measure::{self, choose_machine};
use crate::{interrupt, output, rows};

/// The command's name, which recordings of it have.
pub(crate) const NAME: &str = "userspace";
/// Bracketed samples of each rung in the lab, unless the user says otherwise. Each is recorded to the
/// instruction, and nearly all are the same.
const LAB_SAMPLES: u32 = 100;

pub(crate) fn run(args: &Userspace, place: &Place) -> Result<(), Failure> {
    if args.list {
        return output::print(&rows::lines(RUNGS));
    }
    let rungs = choose(&args.rungs)?;
    if let Some(limited) = rows::limited(&rungs, args.sampling.samples) {
        output::remark(&limited);
    }
    let dir = output::folder(args.measuring.out.as_deref(), NAME)?;
    let interrupted = interrupt::flag();
    let (machine, guest, why) = choose_machine(place)?;
    let mut recording = match machine {
        On::Host => {
            let plan = HostMeasurement {
                command: NAME,
                rows: &rungs,
                sampling: &args.sampling,
            };
            measure::host::measure(&plan, &guest, &interrupted)?
        }
        On::Lab => in_the_lab(args, &rungs, &interrupted)?,
    };
    measure::keep(&mut recording, why, &dir)?;
    show(&recording, &dir, args.measuring.json)
}

/// Rungs of one vCPU are recorded to the instruction, so that each difference can be explained.
fn in_the_lab(
    args: &Userspace,
    rungs: &[&'static Row],
    interrupted: &Arc<AtomicBool>,
) -> Result<Recording, Failure> {
    let prepared = Prepared::new(&args.lab, interrupted)?;
    let samples = args.sampling.samples.unwrap_or(LAB_SAMPLES);
    let plan = LabMeasurement {
        command: NAME,
        rows: rungs,
        settings: measure::settings(&args.sampling, samples, vec![0], true),
        order_seed: args.sampling.order_seed.unwrap_or(1),
        seeds: args.lab.emulator.seeds(&[1, 2, 3]),
        plugin: Some(Plugin::Records),
        patches: None,
        vmlinux: None,
        traced: true,
    };
    in_lab::record(&plan, &args.lab, &prepared, interrupted)
}

/// The rungs of these names with those that they are compared with, in the ladder's order; all where
/// there are none.
fn choose(names: &[String]) -> Result<Vec<&'static Row>, Failure> {
    let mut wanted: Vec<&str> = Vec::new();
    for name in names {
        let rung = RUNGS.iter().find(|rung| rung.name == *name);
        let rung = rung.ok_or_else(|| rows::unknown("rung", name, RUNGS, "userspace --list"))?;
        wanted.push(rung.name);
    }
    if wanted.is_empty() {
        return Ok(RUNGS.iter().collect());
    }
    let mut at = 0;
    while let Some(name) = wanted.get(at) {
        let rung = RUNGS.iter().find(|rung| rung.name == *name);
        if *name == ALL_ON_RUNG {
            // Whether they add up belongs to it.
            wanted.extend(PARTS);
        }
        let other = rung.and_then(compared_with);
        wanted.extend(other.filter(|other| !wanted.contains(other)));
        at += 1;
    }
    Ok(RUNGS
        .iter()
        .filter(|rung| wanted.contains(&rung.name))
        .collect())
}

/// The rung that another is compared with: its reference, or one vCPU with the same lock.
fn compared_with(rung: &Row) -> Option<&'static str> {
    let own = rung.rung?;
    if !is_locking(rung) {
        return own.reference;
    }
    let alone = |other: &&Row| other.vcpus == 1 && other.rung == Some(own);
    RUNGS.iter().find(alone).map(|alone| alone.name)
}

/// Shows the ladder of a recording. One in which no rung could be measured is an error.
pub(crate) fn show(recording: &Recording, dir: &Path, json: bool) -> Result<(), Failure> {
    let ladder = ladder(recording, &PhaseTable::default())
        .map_err(|error| Failure::Cannot(error.to_string()))?;
    let place = dir.display().to_string();
    if json {
        let object = exitpath_report::json::userspace(&recording.manifest, &ladder, Some(place));
        output::print(&object.render())?;
    } else {
        let text = exitpath_report::text::userspace(&recording.manifest, &ladder);
        let text = text.laid_out(&output::style());
        output::print(&format!("{text}recording: {place}"))?;
    }
    check(&ladder)
}

fn check(ladder: &Ladder) -> Result<(), Failure> {
    let failed = |verdict: Verdict| matches!(verdict, Verdict::Void | Verdict::Skipped);
    let rungs = ladder.rungs.iter();
    let rungs = rungs.map(|rung| (rung.summary.verdict, rung.summary.notes.first()));
    let locking = ladder.locking.iter();
    let locking = locking.map(|row| (row.verdict, row.notes.first()));
    let all: Vec<(Verdict, Option<&String>)> = rungs.chain(locking).collect();
    match all.first() {
        Some((_, why)) if all.iter().all(|(verdict, _)| failed(*verdict)) => {
            Err(Failure::Cannot(format!(
                "no rung could be measured: {}",
                why.map_or("the recording is empty", String::as_str)
            )))
        }
        None => Err(Failure::Usage("the recording has no rungs".to_owned())),
        _ => Ok(()),
    }
}
