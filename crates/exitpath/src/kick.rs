//! `exitpath kick`: notifications, from the guest to a device and back.

use std::path::Path;

use exitpath_analysis::kick::{Kicks, kicks};
use exitpath_analysis::table::Verdict;
use exitpath_exits::Row;
use exitpath_exits::kicks::{KICKS, Part, SCALING};
use exitpath_recording::Recording;

use crate::cli::{Kick, KickTable, On, Place};
use crate::failure::Failure;
use crate::in_lab::{self, LabMeasurement};
use crate::lab::Prepared;
use crate::measure::host::HostMeasurement;
use crate::measure::{self, choose_machine};
use crate::{interrupt, output, rows};

/// The command's name, which recordings of it have.
pub(crate) const NAME: &str = "kick";
/// Bracketed samples of each row in the lab, unless the user says otherwise.
const LAB_SAMPLES: u32 = 100;

pub(crate) fn run(args: &Kick, place: &Place) -> Result<(), Failure> {
    if args.list {
        let all = KICKS.iter().chain(SCALING);
        let shown = all.filter(|row| row.kick.is_none_or(|kick| kick.part != Part::Check));
        return output::print(&rows::lines(shown));
    }
    let rows = choose(args);
    if let Some(limited) = rows::limited(&rows, args.sampling.samples) {
        output::remark(&limited);
    }
    let dir = output::folder(args.measuring.out.as_deref(), NAME)?;
    let interrupted = interrupt::flag();
    let (machine, guest, why) = choose_machine(place)?;
    let mut recording = match machine {
        On::Host => {
            // Before anything is measured, not after.
            let most = rows.iter().filter_map(|row| row.kick?.many);
            if let Some(most) = most.map(|many| many.count).max() {
                exitpath_vmm::files::allow(u64::from(most))?;
            }
            let plan = HostMeasurement {
                command: NAME,
                rows: &rows,
                sampling: &args.sampling,
            };
            measure::host::measure(&plan, &guest, &interrupted)?
        }
        On::Lab => {
            let prepared = Prepared::new(&args.lab, &interrupted)?;
            let samples = args.sampling.samples.unwrap_or(LAB_SAMPLES);
            let plan = LabMeasurement {
                command: NAME,
                rows: &rows,
                settings: measure::settings(&args.sampling, samples, vec![0], true),
                order_seed: args.sampling.order_seed.unwrap_or(1),
                seeds: args.lab.emulator.seeds(&[1, 2, 3]),
                plugin: None,
                patches: None,
                vmlinux: None,
                traced: false,
            };
            in_lab::record(&plan, &args.lab, &prepared, &interrupted)?
        }
    };
    measure::keep(&mut recording, why, &dir)?;
    show(&recording, &dir, args.measuring.json)
}

/// The rows of the tables asked for, all where none is named.
fn choose(args: &Kick) -> Vec<&'static Row> {
    let wanted = |row: &&'static Row| {
        let Some(kick) = row.kick else { return false };
        let table = match kick.part {
            Part::Cost | Part::Waited | Part::Wakeup => KickTable::Kicks,
            Part::Scaling => KickTable::Scaling,
            Part::Disks => KickTable::Disks,
            Part::Completion => KickTable::Completions,
            Part::Check => return args.check.as_deref() == Some(kick.how),
        };
        let named = args.tables.contains(&table);
        let all = args.tables.is_empty() && args.check.is_none();
        (named || all)
            && kick.many.is_none_or(|many| many.count <= args.eventfds)
            && kick.disks.is_none_or(|disks| disks.count <= args.disks)
    };
    KICKS.iter().chain(SCALING).filter(wanted).collect()
}

/// Shows the tables of a recording. One in which nothing could be measured is an error.
pub(crate) fn show(recording: &Recording, dir: &Path, json: bool) -> Result<(), Failure> {
    let kicks = kicks(recording);
    let place = dir.display().to_string();
    if json {
        let object = exitpath_report::json::kick(&recording.manifest, &kicks, Some(place));
        output::print(&object.render())?;
    } else {
        let text = exitpath_report::text::kick(&recording.manifest, &kicks);
        let text = text.laid_out(&output::style());
        output::print(&format!("{text}recording: {place}"))?;
    }
    check(&kicks)
}

fn check(kicks: &Kicks) -> Result<(), Failure> {
    let failed = |verdict: Verdict| matches!(verdict, Verdict::Void | Verdict::Skipped);
    let Some(first) = kicks.lines().next() else {
        return Err(Failure::Usage("the recording has no kicks".to_owned()));
    };
    let nothing =
        |line: &exitpath_analysis::kick::Line| failed(line.summary.verdict) && line.value.is_none();
    if kicks.lines().all(nothing) {
        let why = first.summary.notes.first();
        return Err(Failure::Cannot(format!(
            "nothing could be measured; {}: {}",
            first.summary.row.name,
            why.map_or("the recording is empty", String::as_str)
        )));
    }
    Ok(())
}
