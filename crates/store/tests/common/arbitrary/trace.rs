//! Arbitrary traces: parts, and how a trace of some runs is assembled from them.

use std::collections::BTreeMap;

use exitpath_recording::{
    Block, Condition, Exit, Instruction, Location, Part, Path, Run, Segment, Space, Symbol, Trace,
    Window,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::values::{extreme, text};

/// A range of positions in something that may have fewer: both are to be taken modulo what is left.
type Range = [usize; 2];

/// Exits of a window: which segment, and what the CPU says.
type Exits = Vec<(usize, [u64; 3])>;

/// Which condition, space and first address.
type SymbolKey = (Option<usize>, Space, u64);

/// What a trace is made of, before references are made to refer to something.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    instructions: Vec<Instruction>,
    /// Of each path its blocks: CPU, and which instructions.
    paths: Vec<Vec<(u32, Range)>>,
    /// Of each run its segments: part, and which path. None for a run that is not traced.
    windows: Vec<Option<Vec<(Part, usize)>>>,
    /// Of each run its exits: segment, and what the CPU says; or of none.
    exits: Option<Vec<Exits>>,
    backwards: bool,
    /// Name, module and the most bytes of each.
    symbols: BTreeMap<SymbolKey, (String, String, u64)>,
    /// Which instruction and at which depth; function, file and line.
    locations: BTreeMap<(usize, u32), (String, String, u32)>,
}

/// Parts of a trace of at most eight runs.
pub(super) fn parts() -> impl Strategy<Value = Parts> {
    let instruction = (extreme(), vec(any::<u8>(), 1..=15))
        .prop_map(|(address, bytes)| Instruction { address, bytes });
    let block = (any::<u32>(), any::<Range>());
    let part = prop_oneof![Just(Part::Between), Just(Part::Empty), Just(Part::Op)];
    let space = prop_oneof![Just(Space::Guest), Just(Space::User), Just(Space::Kernel)];
    let window = option::of(vec((part, any::<usize>()), 1..20));
    let exit = (any::<usize>(), [extreme(), extreme(), extreme()]);
    let exits = option::of(vec(vec(exit, 0..5), 8));
    (
        vec(instruction, 0..20),
        vec(vec(block, 1..20), 0..8),
        (vec(window, 8), any::<bool>(), exits),
        btree_map(
            (option::of(any::<usize>()), space, extreme()),
            (text(), text(), extreme()),
            0..8,
        ),
        btree_map(
            (0..20_usize, any::<u32>()),
            (text(), text(), any::<u32>()),
            0..8,
        ),
    )
        .prop_map(
            |(instructions, paths, (windows, backwards, exits), symbols, locations)| Parts {
                instructions,
                paths,
                windows,
                exits,
                backwards,
                symbols,
                locations,
            },
        )
}

/// As many of these exits as make sense in so many segments, in order.
fn exits(exits: Exits, segments: usize) -> Vec<Exit> {
    let exit = |(segment, [code, info1, info2]): (usize, [u64; 3])| Exit {
        segment: (segment % segments) as u32,
        code,
        info1,
        info2,
    };
    let mut exits: Vec<Exit> = exits.into_iter().map(exit).collect();
    exits.sort_by_key(|exit| exit.segment);
    exits
}

/// The trace of these runs that can be made of the parts.
pub(super) fn assemble(parts: Parts, runs: &[Run], conditions: &[Condition]) -> Trace {
    let instructions = parts.instructions.len();
    let block = |(cpu, [first, count]): (u32, Range)| {
        let first = first % instructions;
        let count = 1 + count % (instructions - first);
        Block {
            cpu,
            first: first as u32,
            count: count as u32,
        }
    };
    let paths = parts.paths.into_iter().filter(|_| instructions > 0);
    let paths = paths.map(|blocks| Path {
        blocks: blocks.into_iter().map(block).collect(),
    });
    let paths: Vec<_> = paths.collect();
    let segment = |(part, path): (Part, usize)| Segment {
        part,
        path: (path % paths.len()) as u32,
    };
    let windows = runs.iter().zip(parts.windows);
    let mut windows: Vec<Window> = windows
        .filter_map(|(run, segments)| Some((run.id, segments?)))
        .filter(|_| !paths.is_empty())
        .map(|(run, segments)| Window {
            run,
            segments: segments.into_iter().map(segment).collect(),
            exits: None,
        })
        .collect();
    if let Some(of_runs) = parts.exits {
        for (window, of_run) in windows.iter_mut().zip(of_runs) {
            window.exits = Some(exits(of_run, window.segments.len()));
        }
    }
    // The order is the trace's, not that of the runs.
    if parts.backwards {
        windows.reverse();
    }
    // In the order of the conditions' names.
    let named = |condition: usize| conditions[condition % conditions.len()].name.clone();
    let symbols = parts.symbols.into_iter();
    let symbols: BTreeMap<_, _> = symbols
        .map(|((condition, space, address), rest)| ((condition.map(named), space, address), rest))
        .collect();
    let next = symbols.keys().skip(1).cloned().map(Some);
    let next: Vec<_> = next.chain([None]).collect();
    let symbols = symbols.into_iter().zip(next);
    let symbols = symbols.map(
        |(((condition, space, address), (name, module, size)), next)| {
            let room = match next {
                Some((of, same, next)) if (&of, same) == (&condition, space) => next - address,
                // As far as the last address; the one symbol at 0 cannot have that size.
                _ => (u64::MAX - address).saturating_add(1),
            };
            Symbol {
                space,
                address,
                size: size.min(room),
                name,
                module,
                condition,
            }
        },
    );
    let symbols = symbols.collect();
    let locations = parts.locations.into_iter();
    let locations = locations
        .filter(|((instruction, _), _)| *instruction < instructions)
        .map(|((instruction, depth), (function, file, line))| Location {
            instruction: instruction as u32,
            depth,
            function,
            file,
            line,
        });
    Trace {
        locations: locations.collect(),
        instructions: parts.instructions,
        paths,
        windows,
        symbols,
    }
}
