//! `exitpath show DIR`: the table (or the ladder) of a recording, without measuring anything.

use exitpath_analysis::table::{RowSummary, summarise};
use exitpath_analysis::vmexit::{self, Comparison};
use exitpath_recording::Recording;
use std::path::Path;

use crate::cli::Show;
use crate::failure::Failure;
use crate::{kick, output, userspace};

pub(crate) fn run(args: &Show) -> Result<(), Failure> {
    let recording =
        exitpath_store::read(&args.recording).map_err(|error| Failure::Usage(error.to_string()))?;
    if recording.manifest.command == userspace::NAME {
        return userspace::show(&recording, &args.recording, args.json);
    }
    if recording.manifest.command == kick::NAME {
        return kick::show(&recording, &args.recording, args.json);
    }
    let compared = vmexit::compared(&recording);
    if !compared.is_empty() {
        return beside(&recording, &compared, &args.recording, args.json);
    }
    let rows = summarise(&recording);
    table(&recording, &rows, &args.recording, args.json)
}

/// Prints what kvm-unit-tests' vmexit said beside a recording's rows, as text or JSON.
pub(crate) fn beside(
    recording: &Recording,
    compared: &[Comparison],
    dir: &Path,
    json: bool,
) -> Result<(), Failure> {
    let place = dir.display().to_string();
    output::print(&if json {
        exitpath_report::json::vmexit(&recording.manifest, compared, &place).render()
    } else {
        let table = exitpath_report::text::vmexit(&recording.manifest, compared);
        format!("{}recording: {place}", table.laid_out(&output::style()))
    })
}

/// Prints a recording's table as text or JSON.
pub(crate) fn table(
    recording: &Recording,
    rows: &[RowSummary],
    dir: &Path,
    json: bool,
) -> Result<(), Failure> {
    let place = dir.display().to_string();
    if json {
        let table = exitpath_report::json::table(&recording.manifest, rows, Some(place));
        output::print(&table.render())
    } else {
        let table = exitpath_report::text::table(&recording.manifest, rows);
        let table = table.laid_out(&output::style());
        output::print(&format!("{table}recording: {place}"))
    }
}
