//! What is shown of a trace.

use std::path::Path;

use exitpath_analysis::path::{PhaseTable, RowPath, trace_rows};
use exitpath_recording::Recording;
use exitpath_report::{flame, json, perfetto, text};

use super::vmm;
use crate::cli::TraceView;
use crate::failure::Failure;
use crate::output;

/// The built-in table of phases, as text.
pub(super) fn built_in() -> &'static str {
    PhaseTable::built_in()
}

/// The table of phases: the user's before the built-in one.
pub(crate) fn phases(path: Option<&Path>) -> Result<PhaseTable, Failure> {
    let Some(path) = path else {
        return Ok(PhaseTable::default());
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    PhaseTable::default()
        .and(&text)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Finds out early that a file could not be written later.
pub(super) fn check_files(view: &TraceView) -> Result<(), Failure> {
    for path in [&view.flamegraph, &view.perfetto].into_iter().flatten() {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        if path.is_dir() || !dir.is_dir() {
            return Err(Failure::Usage(format!(
                "cannot write {}: name a file in a folder that exists",
                path.display()
            )));
        }
    }
    Ok(())
}

/// A graph of one row is refused for several, before they are traced if that is known.
pub(super) fn check_one_row(view: &TraceView, rows: usize) -> Result<(), Failure> {
    if rows > 1 && (view.flamegraph.is_some() || view.perfetto.is_some()) {
        return Err(Failure::Usage(
            "a flame graph or a timeline (--flamegraph, --perfetto) is of one row: name one"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Shows the rows of these names, or all; `own` is a recording of the same rows under exitpath's
/// own VMM, for one of another.
pub(super) fn show(
    recording: &Recording,
    own: Option<&Recording>,
    names: &[String],
    dir: &Path,
    phases: &PhaseTable,
    view: &TraceView,
) -> Result<(), Failure> {
    let paths =
        trace_rows(recording, phases).map_err(|error| Failure::Cannot(error.to_string()))?;
    let own = own.map(|own| trace_rows(own, phases)).transpose();
    let own = own.map_err(|error| Failure::Cannot(error.to_string()))?;
    let own_of = |path: &RowPath| own.iter().flatten().find(|own| own.row == path.row);
    let vmm = vmm::of(&recording.manifest);
    for name in names {
        if !paths.iter().any(|path| path.row == *name) {
            let has: Vec<&str> = paths.iter().map(|path| path.row.as_str()).collect();
            return Err(Failure::Usage(format!(
                "{} has no trace of {name}; it has {}",
                dir.display(),
                has.join(", ")
            )));
        }
    }
    // The first seed stands for all; how far the others agree is said.
    let shown: Vec<&RowPath> = recording
        .manifest
        .rows
        .iter()
        .filter(|row| names.is_empty() || names.contains(&row.name))
        .filter_map(|row| paths.iter().find(|path| path.row == row.name))
        .collect();
    let (shown, without): (Vec<&RowPath>, Vec<&RowPath>) =
        shown.into_iter().partition(|path| path.exits > 0);
    for path in &without {
        let no_path = format!(
            "{} made no exit here, so there is no path to show",
            path.row
        );
        if shown.is_empty() {
            return Err(Failure::Cannot(no_path));
        }
        output::remark(&no_path);
    }
    files(recording, &shown, view)?;
    if view.json {
        let place = dir.display().to_string();
        let objects: Vec<String> = shown
            .iter()
            .map(|path| {
                json::path(&recording.manifest, path, Some(place.clone()))
                    .under(vmm.map(str::to_owned), own_of(path))
                    .render()
            })
            .collect();
        return match objects.as_slice() {
            [object] => output::print(object),
            objects => output::print(&format!("[{}]", objects.join(","))),
        };
    }
    let manifest = &recording.manifest;
    let place = dir.display();
    let style = output::style();
    if view.folded {
        // Tools read it, and it has no place for words.
        for warning in &manifest.warnings {
            output::remark(&format!("warning: {warning}"));
        }
    }
    for path in shown {
        let mut printed = false;
        if view.folded {
            output::print(&flame::folded(path, flame::Which::All))?;
            printed = true;
        }
        if let Some(function) = &view.annotate {
            let trace = recording.trace.as_ref().expect("a trace was analysed");
            let text = text::annotate(manifest, path, trace, function)
                .map_err(|error| Failure::Usage(error.to_string()))?;
            output::print(&text.laid_out(&style))?;
            printed = true;
        }
        if view.tree {
            output::print(&text::tree(manifest, path, view.min).laid_out(&style))?;
            printed = true;
        }
        if !printed {
            let functions = if view.all {
                text::Functions::All
            } else {
                text::Functions::default()
            };
            let of_row: Vec<RowPath> = paths
                .iter()
                .filter(|other| other.row == path.row)
                .cloned()
                .collect();
            let seeds = if of_row.len() > 1 {
                text::seeds(&of_row)
            } else {
                String::new()
            };
            let text = text::path(manifest, path, functions).laid_out(&style);
            let parts = vmm.map_or_else(String::new, |vmm| {
                vmm::parts(vmm, path, own_of(path), &style)
            });
            output::print(&format!("{text}{parts}{seeds}recording: {place}"))?;
        }
    }
    Ok(())
}

/// Writes the files that are asked for, of the first row.
fn files(recording: &Recording, shown: &[&RowPath], view: &TraceView) -> Result<(), Failure> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text)
            .map_err(|error| Failure::Cannot(format!("cannot write {}: {error}", path.display())))
    };
    let (Some(first), manifest) = (shown.first(), &recording.manifest) else {
        return Ok(());
    };
    check_one_row(view, shown.len())?;
    if let Some(path) = &view.flamegraph {
        let svg =
            flame::svg(manifest, first).map_err(|error| Failure::Cannot(error.to_string()))?;
        write(path, svg)?;
    }
    if let Some(path) = &view.perfetto {
        write(path, perfetto::trace(manifest, first))?;
    }
    Ok(())
}
