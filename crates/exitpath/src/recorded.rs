//! Recordings that the user names. `DIR@CONDITION` is what was measured under one of several conditions.

use std::path::Path;

use exitpath_cli::recording::split;
use exitpath_recording::Recording;

use crate::command;
use crate::failure::Failure;
use crate::output;

/// Reads a recording, all of it or one condition.
pub(crate) fn read(name: &Path) -> Result<Recording, Failure> {
    let Some((dir, condition)) = split(name) else {
        return exitpath_store::read(name).map_err(Failure::usage);
    };
    let recording = exitpath_store::read(Path::new(dir)).map_err(Failure::usage)?;
    recording.under(condition).ok_or_else(|| {
        let has = names(&recording, dir);
        Failure::usage(format!(
            "{dir} has no condition '{condition}'; it has {has}"
        ))
    })
}

/// The same of one that has a trace.
pub(crate) fn traced(name: &Path) -> Result<Recording, Failure> {
    let recording = read(name)?;
    if recording.trace.is_none() {
        return Err(Failure::usage(format!(
            "{} has no instructions: it was made by `exitpath {}`, and `exitpath trace` records them",
            name.display(),
            recording.manifest.command
        )));
    }
    Ok(recording)
}

/// The same of one condition: where there are several, the name has to say which.
pub(crate) fn traced_under_one(name: &Path) -> Result<Recording, Failure> {
    let recording = traced(name)?;
    if are_several(&recording) {
        let dir = name.display().to_string();
        let has = names(&recording, &dir);
        return Err(Failure::usage(format!(
            "{dir} has several conditions; name one of them: {has}"
        )));
    }
    Ok(recording)
}

/// The recording under the first of its conditions, where it has several; that it has others is said.
pub(crate) fn first(recording: &Recording, dir: &Path) -> Option<Recording> {
    let first = recording.manifest.conditions.first()?;
    if !are_several(recording) {
        return None;
    }
    let dir = dir.display().to_string();
    output::remark(&format!(
        "under the condition '{}'; there are {}",
        first.name,
        names(recording, &dir)
    ));
    recording.under(&first.name)
}

/// Rows that have a condition each are told apart by their names.
fn are_several(recording: &Recording) -> bool {
    let manifest = &recording.manifest;
    manifest.conditions.len() > 1 && manifest.command != command::USERSPACE
}

/// As a shell takes them: a name may have blanks.
fn names(recording: &Recording, dir: &str) -> String {
    let conditions = recording.manifest.conditions.iter();
    let names = conditions.map(|condition| format!("'{dir}@{}'", condition.name));
    names.collect::<Vec<_>>().join(", ")
}
