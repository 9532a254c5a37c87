//! `exitpath show DIR`: the table (or the ladder, or the kicks) of a recording, without measuring anything;
//! and how the commands that measure show what they have recorded.

use std::path::Path;

use exitpath_analysis::kick::kicks;
use exitpath_analysis::nothing::Nothing;
use exitpath_analysis::path::PhaseTable;
use exitpath_analysis::userspace::ladder;
use exitpath_analysis::{table, vmexit};
use exitpath_exits::primitives::what;
use exitpath_recording::Recording;
use exitpath_report::{json, views};

use crate::failure::Failure;
use crate::knobs::further;
use crate::{command, output, recorded};
use exitpath_cli::Show;

pub(crate) fn run(args: &Show) -> Result<(), Failure> {
    let recording = recorded::read(&args.recording)?;
    self::recording(&recording, &args.recording, args.json)
}

/// Shows a recording as the command that made it does. One in which nothing could be measured is an error,
/// behind what there is of it.
pub(crate) fn recording(recording: &Recording, dir: &Path, as_json: bool) -> Result<(), Failure> {
    let manifest = &recording.manifest;
    let place = dir.display().to_string();
    let print = |text: exitpath_report::Document, json: String| match as_json {
        true => output::print(&json),
        false => output::show(&text, dir),
    };
    let nothing = if manifest.command == command::USERSPACE {
        let ladder = ladder(recording, &PhaseTable::default()).map_err(Failure::cannot)?;
        let json = json::userspace(manifest, &ladder, Some(place)).render();
        print(views::userspace(manifest, &ladder), json)?;
        ladder.nothing()
    } else if manifest.command == command::KICK {
        let kicks = kicks(recording);
        let json = json::kick(manifest, &kicks, Some(place)).render();
        print(views::kick(manifest, &kicks), json)?;
        kicks.nothing()
    } else if manifest.command == command::ABLATE {
        let ablations = exitpath_analysis::ablation::summary::ablations(recording, &further())
            .map_err(Failure::cannot)?;
        let json = json::ablations(manifest, &ablations, &place);
        print(views::ablations(manifest, &ablations), json)?;
        let measured = ablations.iter().any(|ablation| ablation.full.is_some());
        (!measured)
            .then(|| Nothing::Measured("no row could be measured with all knobs on".to_owned()))
    } else if manifest.command == command::PRIMITIVES {
        let (rows, used) = (table::summarise(recording), json::used_of(manifest));
        let json = json::primitives(manifest, &rows, what, &used, &place);
        print(views::primitives(manifest, &rows, what, &used), json)?;
        table::nothing(&rows)
    } else if let compared @ [_, ..] = vmexit::compared(recording).as_slice() {
        let json = json::vmexit(manifest, compared, &place).render();
        print(views::vmexit(manifest, compared), json)?;
        None
    } else {
        let first = recorded::first(recording, dir);
        let recording = first.as_ref().unwrap_or(recording);
        let rows = table::summarise(recording);
        let manifest = &recording.manifest;
        let json = json::table(manifest, &rows, Some(place)).render();
        print(views::table(manifest, &rows), json)?;
        table::nothing(&rows)
    };
    match nothing {
        None => Ok(()),
        Some(Nothing::NotThere(what)) => Err(Failure::usage(what)),
        Some(Nothing::Measured(why)) => Err(Failure::cannot(why)),
    }
}
