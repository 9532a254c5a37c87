//! From the growing tree to the one that is told: nodes that are one made one, those without
//! instructions left out, parents in front of their children.

use std::collections::{HashMap, HashSet};

use super::PhaseTable;
use super::code::Code;
use super::functions::FunctionId;
use super::model::{Artefact, Node, Step};
use super::stack::NONE;
use super::traits;
use super::tree::{Growing, ROOT, Split, Tree, most};

/// A finished tree.
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
    pub(super) steps: Vec<Step>,
    /// Of each function: with all it calls, and times entered.
    pub(super) functions: HashMap<FunctionId, (Split, Split)>,
    /// Of each function the phase it has by where it was first entered.
    pub(super) phases: HashMap<FunctionId, usize>,
    pub(super) artefacts: Vec<Artefact>,
}

/// Finishes a tree.
pub(super) fn finish(
    code: &Code<'_>,
    table: &PhaseTable,
    tree: &mut Tree<'_>,
    cpus: &[u32],
) -> Nodes {
    let mut growing = std::mem::take(&mut tree.nodes);
    let mut children = children(&growing);
    let mut now = (0..growing.len() as u32).collect::<Vec<_>>();
    for &(node, as_node) in &tree.same {
        let (node, as_node) = (now[node as usize], now[as_node as usize]);
        if !is_below(&growing, as_node, node) {
            merge(&mut growing, &mut children, &mut now, node, as_node);
        }
    }
    for (node, as_node) in twins(&growing, &children[ROOT as usize]) {
        merge(&mut growing, &mut children, &mut now, node, as_node);
    }
    let totals = totals(&growing, &children);
    let order = order(&growing, &children, &totals);
    let mut positions = vec![0; growing.len()];
    for (position, &node) in order.iter().enumerate() {
        positions[node as usize] = position;
    }
    let names = table.names();
    let name_of = |phase: usize| names.get(phase).copied().unwrap_or_default().to_owned();
    let node = |&node: &u32| {
        let growing = &growing[node as usize];
        let info = (node != ROOT).then(|| code.function(growing.function));
        Node {
            parent: positions[growing.parent as usize],
            name: info.map_or_else(|| "round".to_owned(), |info| info.name.clone()),
            module: info.map_or_else(String::new, |info| info.module.clone()),
            space: info.map_or(exitpath_recording::Space::Kernel, |info| info.space),
            cpu: cpus.get(growing.cpu).copied().unwrap_or_default(),
            entered: growing.entered,
            calls: growing.calls.all,
            own: growing.own.count(),
            total: totals[node as usize].count(),
            phase: name_of(most(growing.phases.iter().copied()).unwrap_or(growing.phase)),
        }
    };
    let resolve = |step: &Step| Step {
        node: positions[now[step.node] as usize],
        ..*step
    };
    let mut phases = HashMap::new();
    for &node in order.iter().filter(|&&node| node != ROOT) {
        let growing = &growing[node as usize];
        phases.entry(growing.function).or_insert(growing.phase);
    }
    Nodes {
        phases,
        nodes: order.iter().map(node).collect(),
        steps: merged(tree.steps.iter().map(resolve)),
        functions: functions(&growing, &children, &totals),
        artefacts: artefacts(code, &growing, &children, &totals),
    }
}

fn children(nodes: &[Growing]) -> Vec<Vec<u32>> {
    let mut children = vec![Vec::new(); nodes.len()];
    for (node, growing) in nodes.iter().enumerate().skip(1) {
        children[growing.parent as usize].push(node as u32);
    }
    children
}

/// Of nodes side by side those that are the same as an earlier one, and which.
fn twins(nodes: &[Growing], side_by_side: &[u32]) -> Vec<(u32, u32)> {
    let mut first = HashMap::new();
    let twin = |&node: &u32| {
        let growing = &nodes[node as usize];
        let place = (growing.function, growing.entered, growing.cpu);
        let as_node = *first.entry(place).or_insert(node);
        (as_node != node).then_some((node, as_node))
    };
    side_by_side.iter().filter_map(twin).collect()
}

/// Whether a node is another one or below it.
fn is_below(nodes: &[Growing], mut node: u32, other: u32) -> bool {
    loop {
        if node == other {
            return true;
        }
        if node == ROOT {
            return false;
        }
        node = nodes[node as usize].parent;
    }
}

/// Makes one node, with all below it, part of another.
fn merge(
    nodes: &mut [Growing],
    children: &mut [Vec<u32>],
    now: &mut [u32],
    node: u32,
    as_node: u32,
) {
    let parent = nodes[node as usize].parent;
    children[parent as usize].retain(|&child| child != node);
    let mut pairs = vec![(node, as_node)];
    while let Some((node, as_node)) = pairs.pop() {
        let Growing {
            calls, own, phases, ..
        } = nodes[node as usize].clone();
        let into = &mut nodes[as_node as usize];
        into.calls.plus(calls);
        into.own.plus(own);
        into.phases.extend(phases);
        for known in now.iter_mut().filter(|known| **known == node) {
            *known = as_node;
        }
        for child in std::mem::take(&mut children[node as usize]) {
            let place = |node: u32| {
                let growing = &nodes[node as usize];
                (growing.function, growing.entered, growing.cpu)
            };
            let twin = children[as_node as usize]
                .iter()
                .copied()
                .find(|&other| place(other) == place(child));
            match twin {
                Some(twin) => pairs.push((child, twin)),
                None => {
                    nodes[child as usize].parent = as_node;
                    children[as_node as usize].push(child);
                }
            }
        }
    }
}

/// Visits all nodes, each before (`true`) and after its children.
fn visit(children: &[Vec<u32>], mut at: impl FnMut(u32, bool)) {
    let mut pending = vec![(ROOT, true)];
    while let Some((node, before)) = pending.pop() {
        at(node, before);
        if before {
            pending.push((node, false));
            pending.extend(children[node as usize].iter().rev().map(|&c| (c, true)));
        }
    }
}

fn totals(nodes: &[Growing], children: &[Vec<u32>]) -> Vec<Split> {
    let mut totals: Vec<Split> = nodes.iter().map(|node| node.own).collect();
    visit(children, |node, before| {
        if !before && node != ROOT {
            let total = totals[node as usize];
            totals[nodes[node as usize].parent as usize].plus(total);
        }
    });
    totals
}

/// The nodes worth telling, parents first, otherwise as first entered.
fn order(nodes: &[Growing], children: &[Vec<u32>], totals: &[Split]) -> Vec<u32> {
    let mut order = Vec::new();
    visit(children, |node, before| {
        let entered = nodes[node as usize].calls.all > 0 || totals[node as usize].all > 0;
        if before && (entered || node == ROOT) {
            order.push(node);
        }
    });
    order
}

fn merged(steps: impl Iterator<Item = Step>) -> Vec<Step> {
    let mut merged: Vec<Step> = Vec::new();
    for step in steps {
        match merged.last_mut() {
            Some(last) if (last.node, last.skipped) == (step.node, step.skipped) => {
                last.instructions += step.instructions;
            }
            _ => merged.push(step),
        }
    }
    merged
}

/// Inclusive counts, once where a function is its own caller's caller.
fn functions(
    nodes: &[Growing],
    children: &[Vec<u32>],
    totals: &[Split],
) -> HashMap<FunctionId, (Split, Split)> {
    let mut functions: HashMap<FunctionId, (Split, Split)> = HashMap::new();
    let mut above: HashMap<FunctionId, u32> = HashMap::new();
    visit(children, |node, before| {
        let growing = &nodes[node as usize];
        if growing.function == NONE {
            return;
        }
        let depth = above.entry(growing.function).or_default();
        if !before {
            *depth -= 1;
            return;
        }
        *depth += 1;
        let (total, calls) = functions.entry(growing.function).or_default();
        calls.plus(growing.calls);
        if *depth == 1 {
            total.plus(totals[node as usize]);
        }
    });
    functions
}

/// Work that only an emulated CPU makes for KVM (arch/x86/kvm/svm/svm.c of Linux 6.1 to 6.12):
///
/// - without NRIPS `__svm_skip_emulated_instruction` decodes the instruction to find its end;
/// - without decode assists `cr_interception`, `dr_interception` and `invlpg_interception` hand the
///   instruction over to the emulator, where hardware would have told register and value;
/// - without them `npf_interception` has no bytes of the instruction, so that the emulator has to
///   read them from guest memory.
fn artefacts(
    code: &Code<'_>,
    nodes: &[Growing],
    children: &[Vec<u32>],
    totals: &[Split],
) -> Vec<Artefact> {
    let mut skipped = 0;
    let (mut emulated, mut fetched) = (0, 0);
    // Nodes inside of which everything has been counted.
    let mut counted: HashSet<u32> = HashSet::new();
    let mut above = Vec::new();
    visit(children, |node, before| {
        let growing = &nodes[node as usize];
        if !before {
            above.pop();
            return;
        }
        let total = totals[node as usize].count();
        skipped += growing.own.count().all - growing.own.count().lean;
        let info = (growing.function != NONE).then(|| code.function(growing.function));
        let is = |set: u32| info.is_some_and(|info| info.is(set));
        let known = counted.contains(&growing.parent) && node != ROOT;
        let called_by = |set: u32| {
            let callers = above.iter().filter(|&&function| function != NONE);
            callers.map(|&f| code.function(f)).any(|info| info.is(set))
        };
        if known {
            counted.insert(node);
        } else if is(traits::EMULATES) && called_by(traits::DECODE_ASSISTS) {
            emulated += total.lean;
            counted.insert(node);
        } else if is(traits::FETCHES) && called_by(traits::MEMORY_EXIT) {
            fetched += total.lean;
            counted.insert(node);
        }
        above.push(growing.function);
    });
    let all = [
        (
            "nrip-save",
            "skip-emulation: without NRIPS, KVM decodes the instruction to find its end",
            skipped,
        ),
        (
            "decodeassists",
            "emulation without decode assists, the access itself included: real CPUs tell KVM the operands of MOV to CR and DR and of INVLPG",
            emulated,
        ),
        (
            "decodeassists",
            "instruction fetch without decode assists: real CPUs give KVM the bytes of an instruction that faults",
            fetched,
        ),
    ];
    let some = all
        .into_iter()
        .filter(|&(_, _, instructions)| instructions > 0);
    some.map(|(lacks, what, instructions)| Artefact {
        what: what.to_owned(),
        lacks,
        instructions,
    })
    .collect()
}
