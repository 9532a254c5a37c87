//! What has to hold in a trace.

use std::collections::HashSet;

use crate::lists::too_many;
use crate::problem::Problem;
use crate::table::Table;
use crate::trace_tables::{
    EXITS, INSTRUCTIONS, LOCATIONS, PATHS, PATHS_MAX, SYMBOLS, WINDOWS, space_name,
};
use exitpath_recording::{
    Block, Instruction, Location, Manifest, Path, Run, Symbol, Trace, Window,
};

/// What has to hold in a trace of these runs, before writing and after reading: what is referred
/// to is there, and what is to be found by its order is in order. An error comes with the name of
/// the table it was found in.
pub(crate) fn check_trace(
    manifest: &Manifest,
    runs: &[Run],
    trace: &Trace,
) -> Result<(), (&'static str, Problem)> {
    let of = |table: &Table| {
        let name = table.name;
        move |problem| (name, problem)
    };
    check_instructions(&trace.instructions).map_err(of(&INSTRUCTIONS))?;
    check_paths(&trace.paths, trace.instructions.len()).map_err(of(&PATHS))?;
    check_windows(&trace.windows, runs, trace.paths.len()).map_err(of(&WINDOWS))?;
    check_exits(trace).map_err(of(&EXITS))?;
    check_symbols(&trace.symbols, manifest).map_err(of(&SYMBOLS))?;
    check_locations(&trace.locations, trace.instructions.len()).map_err(of(&LOCATIONS))
}

fn check_instructions(instructions: &[Instruction]) -> Result<(), Problem> {
    for (id, Instruction { bytes, .. }) in instructions.iter().enumerate() {
        if !(1..=15).contains(&bytes.len()) {
            return Err(problem!(
                "instruction {id} has {} bytes instead of 1 to 15",
                bytes.len()
            ));
        }
    }
    Ok(())
}

fn check_paths(paths: &[Path], instructions: usize) -> Result<(), Problem> {
    if paths.len() > PATHS_MAX {
        return Err(too_many("paths", PATHS_MAX));
    }
    for (id, Path { blocks }) in paths.iter().enumerate() {
        // It would have no row. No segment is empty: the clock read that ends it is in it, and
        // behind the last one the guest has yet to say that it is done.
        if blocks.is_empty() {
            return Err(problem!("path {id} has no blocks"));
        }
        for (index, &Block { first, count, .. }) in blocks.iter().enumerate() {
            if count == 0 || u64::from(first) + u64::from(count) > instructions as u64 {
                return Err(problem!(
                    "block {index} of path {id} is {count} instructions from {first} of \
                     {instructions}"
                ));
            }
        }
    }
    Ok(())
}

fn check_windows(windows: &[Window], runs: &[Run], paths: usize) -> Result<(), Problem> {
    let mut untraced: HashSet<u32> = runs.iter().map(|run| run.id).collect();
    for Window { run, segments, .. } in windows {
        if !untraced.remove(run) {
            return Err(if runs.iter().any(|known| known.id == *run) {
                problem!("run {run} has two windows")
            } else {
                problem!("there is a window of run {run}, which runs.parquet does not list")
            });
        }
        if segments.is_empty() {
            return Err(problem!("the window of run {run} has no segments"));
        }
        for (index, segment) in segments.iter().enumerate() {
            if segment.path as usize >= paths {
                return Err(problem!(
                    "segment {index} of run {run} takes path {} of {paths}",
                    segment.path
                ));
            }
        }
    }
    Ok(())
}

/// What has to hold in the exits of a trace.
pub(crate) fn check_exits(trace: &Trace) -> Result<(), Problem> {
    for window in &trace.windows {
        let run = window.run;
        let Some(exits) = &window.exits else {
            if trace.windows.iter().any(|window| window.exits.is_some()) {
                return Err(problem!(
                    "the exits of run {run} are not known, and those of another run are"
                ));
            }
            continue;
        };
        let segments = window.segments.len();
        let mut least = 0;
        for (index, exit) in exits.iter().enumerate() {
            if exit.segment < least || exit.segment as usize >= segments {
                return Err(problem!(
                    "exit {index} of run {run} is in segment {} of {segments}, behind one in {least}",
                    exit.segment
                ));
            }
            least = exit.segment;
        }
    }
    Ok(())
}

fn check_symbols(symbols: &[Symbol], manifest: &Manifest) -> Result<(), Problem> {
    let mut free = None;
    for symbol in symbols {
        let of = &symbol.condition;
        if let Some(of) = of
            && manifest.condition(of).is_none()
        {
            return Err(problem!(
                "the symbol {} is of the condition {of}, which is not there",
                symbol.name
            ));
        }
        let (space, address) = (space_name(symbol.space), symbol.address);
        let begin = u128::from(address);
        let end = begin + u128::from(symbol.size);
        if end > 1 << u64::BITS {
            return Err(problem!(
                "the {space} symbol at {address:#x} reaches beyond the last address"
            ));
        }
        if free.is_some_and(|free| (of, symbol.space, begin) < free) {
            return Err(problem!(
                "the {space} symbol at {address:#x} begins before the one above it has ended"
            ));
        }
        free = Some((of, symbol.space, end));
    }
    Ok(())
}

fn check_locations(locations: &[Location], instructions: usize) -> Result<(), Problem> {
    let mut above = None;
    for location in locations {
        let place = (location.instruction, location.depth);
        if place.0 as usize >= instructions {
            return Err(problem!(
                "there is a location of instruction {} of {instructions}",
                place.0
            ));
        }
        if above.is_some_and(|above| place <= above) {
            return Err(problem!(
                "the location of instruction {} at depth {} is double or out of order",
                place.0,
                place.1
            ));
        }
        above = Some(place);
    }
    Ok(())
}
