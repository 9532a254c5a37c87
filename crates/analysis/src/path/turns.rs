//! Whose turn it is, in a round on several CPUs.
//!
//! QEMU runs the lab's CPUs one after the other in one thread, and their clocks go by what all of them execute: a turn lasts
//! until its CPU has used up its share, has nothing to do, or says that it waits (PAUSE, HLT). On real CPUs, turns that do
//! not wait for each other are at the same time.

use std::collections::BTreeSet;

use exitpath_recording::Space;

use super::model::{Node, RowPath};

/// Instructions that a CPU executes before another one's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The CPU.
    pub cpu: u32,
    /// Instructions of the round before it.
    pub begin: u64,
    /// Instructions in it.
    pub instructions: u64,
    /// Of these, the guest's.
    pub guest: u64,
    /// The function that the first one is in.
    pub first: String,
    /// The function that the last one is in.
    pub last: String,
}

/// The turns of a round; none where it is one CPU's alone.
pub fn turns(path: &RowPath) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    let mut begin = 0;
    for step in path.steps.iter().filter(|step| step.instructions > 0) {
        let Some(Node {
            cpu, name, space, ..
        }) = path.tree.get(step.node)
        else {
            continue;
        };
        if turns.last().is_none_or(|turn| turn.cpu != *cpu) {
            turns.push(Turn {
                cpu: *cpu,
                begin,
                instructions: 0,
                guest: 0,
                first: name.clone(),
                last: String::new(),
            });
        }
        if let Some(turn) = turns.last_mut() {
            turn.instructions += step.instructions;
            turn.last.clone_from(name);
            if *space == Space::Guest {
                turn.guest += step.instructions;
            }
        }
        begin += step.instructions;
    }
    let cpus: BTreeSet<u32> = turns.iter().map(|turn| turn.cpu).collect();
    if cpus.len() < 2 {
        turns.clear();
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::super::model::{Count, Entered, Step};
    use super::*;

    fn node(name: &str, cpu: u32, space: Space) -> Node {
        Node {
            parent: 0,
            name: name.to_owned(),
            module: String::new(),
            space,
            phase: String::new(),
            cpu,
            entered: Entered::Call,
            own: Count::default(),
            total: Count::default(),
            calls: 1,
        }
    }

    fn path(steps: &[(usize, u64)]) -> RowPath {
        let step = |&(node, instructions)| Step {
            node,
            instructions,
            skipped: false,
        };
        RowPath {
            tree: vec![
                node("round", 0, Space::Kernel),
                node("operation", 0, Space::Guest),
                node("send", 0, Space::Kernel),
                node("take", 1, Space::Kernel),
                node("handler", 1, Space::Guest),
            ],
            steps: steps.iter().map(step).collect(),
            ..RowPath::default()
        }
    }

    #[test]
    fn a_turn_ends_where_another_cpu_goes_on() {
        let turns = turns(&path(&[(1, 3), (2, 100), (3, 50), (4, 7), (3, 20), (1, 5)]));
        let told: Vec<_> = turns
            .iter()
            .map(|turn| (turn.cpu, turn.begin, turn.instructions, turn.guest))
            .collect();
        assert_eq!(told, [(0, 0, 103, 3), (1, 103, 77, 7), (0, 180, 5, 5)]);
        assert_eq!((&*turns[0].first, &*turns[0].last), ("operation", "send"));
        assert_eq!((&*turns[1].first, &*turns[1].last), ("take", "take"));
    }

    #[test]
    fn one_cpu_has_no_turns() {
        assert!(turns(&path(&[(1, 3), (2, 100), (1, 2)])).is_empty());
    }
}
