//! What is shown of a trace.

use std::path::Path;

use exitpath_analysis::path::without::without;
use exitpath_analysis::path::{PhaseTable, RowPath, trace_rows};
use exitpath_experiment::OWN;
use exitpath_recording::{Difference, Recording, fact};
use exitpath_report::{flame, json, perfetto, views};

use crate::failure::Failure;
use crate::{output, recorded};
use exitpath_cli::TraceView;

/// The table of phases: the user's before the built-in one.
pub(crate) fn phases(path: Option<&Path>) -> Result<PhaseTable, Failure> {
    let Some(path) = path else {
        return Ok(PhaseTable::default());
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    PhaseTable::default()
        .and(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Finds out early that a file could not be written later.
pub(super) fn check_files(view: &TraceView) -> Result<(), Failure> {
    for path in [&view.flamegraph, &view.perfetto].into_iter().flatten() {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        if path.is_dir() || !dir.is_dir() {
            return Err(Failure::usage(format!(
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
        return Err(Failure::usage(
            "a flame graph or a timeline (--flamegraph, --perfetto) is of one row: name one",
        ));
    }
    Ok(())
}

/// Shows the rows of these names, or all: without functions where those were patched out, under another VMM
/// where there is one.
pub(super) fn show(
    recording: &Recording,
    names: &[String],
    dir: &Path,
    phases: &PhaseTable,
    view: &TraceView,
) -> Result<(), Failure> {
    let conditions = &recording.manifest.conditions;
    let condition = |is: fn(&Difference) -> bool| {
        conditions
            .iter()
            .find(|condition| condition.differs.iter().any(is))
    };
    // What patching out saved has no functions or phases to show.
    let asked = view.tree || view.folded || view.all;
    let named = view.annotate.is_some() || view.phases.is_some();
    let drawn = view.flamegraph.is_some() || view.perfetto.is_some();
    let usual = !asked && !named && !drawn && names.is_empty();
    let patched = condition(|difference| matches!(difference, Difference::Patch { .. }));
    let both = patched.is_some() && conditions.len() > 1;
    if both && usual {
        return show_without(recording, dir, phases, view);
    }
    let theirs = condition(|difference| matches!(difference, Difference::Vmm { .. }));
    let theirs = theirs.and_then(|condition| recording.under(&condition.name));
    let own = recording.under(OWN);
    let own = own.filter(|_| theirs.is_some());
    // Under several conditions one address has several names.
    let shown = theirs.or_else(|| recorded::first(recording, dir));
    let shown = shown.as_ref().unwrap_or(recording);
    show_paths(shown, own.as_ref(), names, dir, phases, view)
}

/// What patching functions out saved.
fn show_without(
    recording: &Recording,
    dir: &Path,
    phases: &PhaseTable,
    view: &TraceView,
) -> Result<(), Failure> {
    let manifest = &recording.manifest;
    let without = without(recording, phases).map_err(Failure::cannot)?;
    if view.json {
        let place = dir.display().to_string();
        return output::print(&json::without(manifest, &without, &place).render());
    }
    for warning in &manifest.warnings {
        output::remark(&format!("warning: {warning}"));
    }
    output::show(&views::without(&without), dir)
}

/// Shows paths; `own` is a recording of the same rows under exitpath's own VMM, for one of another.
fn show_paths(
    recording: &Recording,
    own: Option<&Recording>,
    names: &[String],
    dir: &Path,
    phases: &PhaseTable,
    view: &TraceView,
) -> Result<(), Failure> {
    let manifest = &recording.manifest;
    let paths = trace_rows(recording, phases).map_err(Failure::cannot)?;
    let own = own.map(|own| trace_rows(own, phases)).transpose();
    let own = own.map_err(Failure::cannot)?;
    let own_of = |path: &RowPath| own.iter().flatten().find(|own| own.row == path.row);
    let vmm = manifest.environment.facts.get(fact::VMM_COMMAND);
    let vmm = vmm.and_then(|command| command.as_str());
    if let Some(name) = names
        .iter()
        .find(|name| !paths.iter().any(|path| path.row == **name))
    {
        let has: Vec<&str> = paths.iter().map(|path| path.row.as_str()).collect();
        return Err(Failure::usage(format!(
            "{} has no trace of {name}; it has {}",
            dir.display(),
            has.join(", ")
        )));
    }
    // The first seed stands for all; how far the others agree is said.
    let rows = manifest.rows.iter().map(|row| &row.name);
    let (shown, without): (Vec<&RowPath>, Vec<&RowPath>) = rows
        .filter(|row| names.is_empty() || names.contains(row))
        .filter_map(|row| paths.iter().find(|path| path.row == *row))
        .partition(|path| path.exits > 0);
    for path in &without {
        let no_path = format!(
            "{} made no exit here, so there is no path to show",
            path.row
        );
        if shown.is_empty() {
            return Err(Failure::cannot(no_path));
        }
        output::remark(&no_path);
    }
    files(recording, &shown, view)?;
    if view.json {
        let object = |path: &&RowPath| {
            json::path(manifest, path, Some(dir.display().to_string()))
                .under(vmm.map(str::to_owned), own_of(path))
                .render()
        };
        let objects: Vec<String> = shown.iter().map(object).collect();
        return output::print(&match objects.as_slice() {
            [object] => object.clone(),
            objects => format!("[{}]", objects.join(",")),
        });
    }
    let style = output::style();
    if view.folded {
        // Tools read it, and it has no place for words.
        for warning in &manifest.warnings {
            output::remark(&format!("warning: {warning}"));
        }
    }
    for path in shown {
        if view.folded {
            output::print(&flame::folded(path, flame::Which::All))?;
        }
        if let Some(function) = &view.annotate {
            let trace = recording.trace.as_ref().expect("a trace was analysed");
            let text = views::annotate(manifest, path, trace, function).map_err(Failure::usage)?;
            output::print(&text.laid_out(&style))?;
        }
        if view.tree {
            output::print(&views::tree(manifest, path, view.min).laid_out(&style))?;
        }
        if !view.folded && !view.tree && view.annotate.is_none() {
            let mut text = views::path(manifest, path, functions(view.all));
            if let Some(vmm) = vmm {
                text.append(views::under(vmm, path, own_of(path)));
            }
            let of_row: Vec<RowPath> = paths
                .iter()
                .filter(|other| other.row == path.row)
                .cloned()
                .collect();
            if of_row.len() > 1 {
                text.lines(&views::seeds(&of_row));
            }
            output::show(&text, dir)?;
        }
    }
    Ok(())
}

/// How many functions are shown.
pub(crate) fn functions(all: bool) -> views::Functions {
    match all {
        true => views::Functions::All,
        false => views::Functions::default(),
    }
}

/// Writes the files that are asked for, of the first row.
fn files(recording: &Recording, shown: &[&RowPath], view: &TraceView) -> Result<(), Failure> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text)
            .map_err(|error| Failure::cannot(format!("cannot write {}: {error}", path.display())))
    };
    let (Some(first), manifest) = (shown.first(), &recording.manifest) else {
        return Ok(());
    };
    check_one_row(view, shown.len())?;
    if let Some(path) = &view.flamegraph {
        write(path, flame::svg(manifest, first).map_err(Failure::cannot)?)?;
    }
    if let Some(path) = &view.perfetto {
        write(path, perfetto::trace(manifest, first))?;
    }
    Ok(())
}
