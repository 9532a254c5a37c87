//! `exitpath show DIR`: the table (or the ladder) of a recording, without measuring anything.

use exitpath_analysis::table::{RowSummary, summarise};
use exitpath_analysis::vmexit;
use exitpath_recording::Recording;
use std::path::Path;

use crate::cli::Show;
use crate::failure::Failure;
use crate::{kick, output, userspace};

pub(crate) fn run(args: &Show) -> Result<(), Failure> {
    let recording = exitpath_recording::read(&args.recording)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if recording.manifest.command == userspace::NAME {
        return userspace::show(&recording, &args.recording, args.json);
    }
    if recording.manifest.command == kick::NAME {
        return kick::show(&recording, &args.recording, args.json);
    }
    let rows = summarise(&recording);
    table(&recording, &rows, &args.recording, args.json)
}

/// Prints a recording's table as text or JSON; where kvm-unit-tests' vmexit was run beside it, that
/// comparison.
pub(crate) fn table(
    recording: &Recording,
    rows: &[RowSummary],
    dir: &Path,
    json: bool,
) -> Result<(), Failure> {
    let place = dir.display().to_string();
    let beside = vmexit::compared(recording);
    if !beside.is_empty() {
        return output::print(&if json {
            exitpath_report::json::vmexit(&recording.manifest, &beside, &place).render()
        } else {
            let table = exitpath_report::text::vmexit(&recording.manifest, &beside);
            format!("{table}recording: {place}")
        });
    }
    if json {
        let table = exitpath_report::json::table(&recording.manifest, rows, Some(place));
        output::print(&table.render())
    } else {
        let table = exitpath_report::text::table(&recording.manifest, rows);
        output::print(&format!("{table}recording: {place}"))
    }
}
