//! One row's path, put together.

use std::collections::HashMap;

use exitpath_recording::{Run, Space, Window};

use super::arch::classes::CLASSES;
use super::code::Code;
use super::functions::FunctionId;
use super::model::{ClassCount, Count, Executed, Function, Phase, RowPath};
use super::nodes::{Nodes, finish};
use super::rounds::{Round, Rounds};
use super::tree::{OfFunction, Split, Tree, most};
use super::variants::variants;
use super::walk::Walker;
use super::{PathError, PhaseTable, arch};

/// The path of one window.
pub(super) fn row(
    code: &Code<'_>,
    table: &PhaseTable,
    window: &Window,
    run: &Run,
    delay: u64,
) -> Result<RowPath, PathError> {
    let rounds = Rounds::new(code, window, run)?;
    let (variants, usual) = variants(code, &rounds);
    let mut row = RowPath {
        row: run.row.clone(),
        run: run.id,
        seed: run.seed,
        cpus: run.cpus,
        rounds: rounds.rounds.len(),
        variants,
        ..RowPath::default()
    };
    let with = |residual: fn(&Round) -> i64| {
        let rounds = rounds.rounds.iter();
        rounds.filter(|round| residual(round) != 0).count()
    };
    row.rounds_with_residual = with(Round::residual);
    row.rounds_with_empty_residual = with(Round::empty_residual);
    if let Some(usual) = usual {
        row.guest_timed = usual.guest_timed().saturating_sub(delay);
        row.intercepted = usual.intercepted();
        row.residual = usual.residual();
        row.exits = usual.op.tally.exits;
        row.exit_reasons = rounds.exits(&usual).map(<[_]>::to_vec);
        row.delay = delay;
        row.baseline = baseline(code, table, &rounds, &usual);
        row.baseline_exits = usual.empty.map_or(0, |empty| empty.walked.tally.exits);
        grow(code, table, &rounds, &usual, &mut row);
        let subtracted = row.baseline.all.saturating_add(delay);
        for variant in &mut row.variants {
            let (least, most) = variant.range;
            variant.total = variant.total.saturating_sub(subtracted);
            variant.range = (
                least.saturating_sub(subtracted),
                most.saturating_sub(subtracted),
            );
        }
    }
    Ok(row)
}

/// What the bracket without the operation has of the round's instructions.
fn baseline(code: &Code<'_>, table: &PhaseTable, rounds: &Rounds<'_>, usual: &Round) -> Count {
    let Some(empty) = usual.empty.filter(|_| usual.baseline() > 0) else {
        return Count::default();
    };
    let mut walker = Walker::new(code, rounds.state(empty.entry), Tree::new(code, table));
    walker.announce();
    if let Some(path) = code.path(empty.path) {
        walker.walk(path);
    }
    // The guest's own part of it has the bracket's name.
    let host = sum(&walker.observer.phases).count();
    let skipped = host.all - host.lean;
    Count {
        all: usual.baseline(),
        lean: usual.baseline().saturating_sub(skipped),
    }
}

fn sum(phases: &[Split]) -> Split {
    phases.iter().fold(Split::default(), |mut sum, &phase| {
        sum.plus(phase);
        sum
    })
}

/// Walks the round once more and tells all there is.
fn grow(
    code: &Code<'_>,
    table: &PhaseTable,
    rounds: &Rounds<'_>,
    usual: &Round,
    row: &mut RowPath,
) {
    let mut walker = Walker::new(code, rounds.entry(usual), Tree::new(code, table));
    walker.announce();
    if let Some(path) = code.path(usual.path) {
        walker.walk(path);
    }
    let cpus: Vec<u32> = walker.state.cpus.iter().map(|cpu| cpu.number).collect();
    let mut tree = walker.observer;
    let nodes = finish(code, table, &mut tree, &cpus);

    let names = table.names();
    row.total = sum(&tree.phases).count();
    let phases = std::iter::zip(&names, &tree.phases);
    let phases = phases.filter(|(_, instructions)| instructions.all > 0);
    row.phases = phases
        .map(|(name, instructions)| Phase {
            name: (*name).to_owned(),
            instructions: instructions.count(),
        })
        .collect();
    let (functions, positions) = functions(code, &names, &tree.functions, &nodes);
    row.functions = functions;
    row.classes = classes(code, &names, &tree);
    row.instructions = instructions(code, &tree, &positions);
    row.artefacts = nodes.artefacts;
    row.tree = nodes.nodes;
    row.steps = nodes.steps;
}

/// All functions of the round, and where each is among them.
fn functions(
    code: &Code<'_>,
    phases: &[&str],
    counted: &[OfFunction],
    nodes: &Nodes,
) -> (Vec<Function>, HashMap<FunctionId, usize>) {
    // The guest as VMRUN enters it is a node, and its functions are what it runs.
    let guest = |f: FunctionId| code.function(f).space == Space::Guest;
    let in_tree = nodes.functions.keys().copied().filter(|&f| !guest(f));
    let in_guest = (0..counted.len() as FunctionId).filter(|&f| guest(f));
    let function = |id: FunctionId| {
        let info = code.function(id);
        let counted = &counted[id as usize];
        let (total, calls) = match nodes.functions.get(&id) {
            Some(&of_tree) if info.space != Space::Guest => of_tree,
            _ => {
                let mut calls = Split::default();
                calls.add(counted.guest_calls, false);
                (counted.own, calls)
            }
        };
        let phase = most(counted.phases.iter().copied()).or_else(|| nodes.phases.get(&id).copied());
        let phase = phase.and_then(|phase| phases.get(phase));
        Function {
            name: info.name.clone(),
            module: info.module.clone(),
            space: info.space,
            phase: phase.copied().unwrap_or_default().to_owned(),
            own: counted.own.count(),
            total: total.count(),
            calls: calls.count(),
        }
    };
    let mut functions: Vec<(FunctionId, Function)> = in_tree
        .chain(in_guest)
        .map(|id| (id, function(id)))
        .filter(|(_, function)| function.total.all > 0 || function.calls.all > 0)
        .collect();
    functions.sort_by(|(_, a), (_, b)| {
        let size = |f: &Function| std::cmp::Reverse((f.own.all, f.total.all));
        let name = |f: &Function| (f.space, f.module.clone(), f.name.clone());
        size(a).cmp(&size(b)).then_with(|| name(a).cmp(&name(b)))
    });
    let ids = functions.iter().enumerate();
    let positions = ids.map(|(position, (id, _))| (*id, position)).collect();
    let functions = functions.into_iter().map(|(_, function)| function);
    (functions.collect(), positions)
}

fn classes(code: &Code<'_>, phases: &[&str], tree: &Tree<'_>) -> Vec<ClassCount> {
    let of_class = std::iter::zip(CLASSES, &tree.classes);
    let told = of_class.map(|(class, counts)| {
        let mut count = Split::default();
        let mut by_phase = vec![0; phases.len()];
        let mut by_function: HashMap<FunctionId, u64> = HashMap::new();
        for (&(phase, function), &instructions) in counts {
            count.plus(instructions);
            by_phase[phase] += instructions.all;
            *by_function.entry(function).or_default() += instructions.all;
        }
        let named = std::iter::zip(phases, by_phase).filter(|&(_, count)| count > 0);
        let named = named.map(|(phase, count)| ((*phase).to_owned(), count));
        let mut functions: Vec<(String, u64)> = by_function
            .into_iter()
            .map(|(function, count)| (code.function(function).name.clone(), count))
            .collect();
        functions.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ClassCount {
            class: class.name,
            count: count.count(),
            phases: named.collect(),
            functions,
        }
    });
    told.collect()
}

fn instructions(
    code: &Code<'_>,
    tree: &Tree<'_>,
    positions: &HashMap<FunctionId, usize>,
) -> Vec<Executed> {
    let executed = |times: &[Split], in_guest: bool| {
        let times = (0..).zip(times.iter().copied());
        let times = times.filter(|(_, times)| times.all > 0);
        times.map(|(id, times)| (id, times, in_guest)).collect()
    };
    let guest: Vec<(u32, Split, bool)> = executed(&tree.guest_times, true);
    let host: Vec<(u32, Split, bool)> = executed(&tree.host_times, false);
    let told = guest
        .into_iter()
        .chain(host)
        .filter_map(|(id, times, in_guest)| {
            let place = code.place(id);
            let (function, offset) = if in_guest {
                (place.guest, place.guest_offset)
            } else {
                (place.host, place.offset)
            };
            let instruction = code.trace.instructions.get(id as usize)?;
            Some(Executed {
                id,
                space: code.function(function).space,
                address: code.decoded(id).address,
                times: times.count(),
                function: *positions.get(&function)?,
                offset,
                cold: place.cold && !in_guest,
                text: arch::text(instruction),
                form: arch::form(instruction),
            })
        });
    let mut told: Vec<Executed> = told.collect();
    told.sort_by_key(|executed| (executed.space, executed.address, executed.id));
    told
}
