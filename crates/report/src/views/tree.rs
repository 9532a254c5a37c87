//! The tree of calls of a traced path.

use std::collections::BTreeSet;

use exitpath_analysis::path::{Count, Entered, Node, RowPath};
use exitpath_recording::Manifest;

use super::path::{both, header};
use crate::calls;
use crate::document::{Block, Branch, Cell, Column, Document, Prose, Tree, Unit};
use crate::format::thousands;

/// The tree of calls, each node with its own instructions, those with all below it, and how often
/// it was entered.
///
/// Nodes with fewer than `minimum` instructions, all below them included, are not shown but
/// counted, together with their neighbours.
pub fn tree(manifest: &Manifest, path: &RowPath, minimum: u64) -> Document {
    let figures = |title, unit| Column::figures(title, unit);
    let mut tree = Tree {
        columns: vec![
            figures("own", Unit::Instructions),
            figures("lean own", Unit::Instructions),
            figures("total", Unit::Instructions),
            figures("lean total", Unit::Instructions),
            figures("calls", Unit::Count),
        ],
        title: "function",
        branches: Vec::new(),
    };
    let children = calls::children(&path.tree);
    let cpus: BTreeSet<u32> = path.tree.iter().skip(1).map(|node| node.cpu).collect();
    let mut todo = vec![Below::Node { node: 0, depth: 0 }];
    while let Some(below) = todo.pop() {
        let (node, depth) = match below {
            Below::Node { node, depth } => (node, depth),
            Below::Hidden {
                number,
                total,
                depth,
            } => {
                let [all, lean] = both(total);
                tree.branches.push(Branch {
                    depth,
                    cells: vec![Cell::Empty, Cell::Empty, all, lean, Cell::Empty],
                    label: format!("… {} more", thousands(number)).into(),
                });
                continue;
            }
        };
        let Some(this) = path.tree.get(node) else {
            continue;
        };
        let [own, own_lean] = both(this.own);
        let [total, total_lean] = both(this.total);
        let (calls, label) = if node == 0 {
            (Cell::Empty, Prose::from("one round"))
        } else {
            let parent = path.tree.get(this.parent);
            // It was entered before the round, as its line says.
            let calls = match this.calls {
                0 => Cell::Unknown,
                calls => Cell::Whole(calls),
            };
            let moved = this.parent == 0 || parent.is_some_and(|parent| parent.cpu != this.cpu);
            (calls, label(this, moved && cpus.len() > 1))
        };
        tree.branches.push(Branch {
            depth,
            cells: vec![own, own_lean, total, total_lean, calls],
            label,
        });
        if let Some(children) = children.get(node) {
            todo.extend(below_it(path, children, minimum, depth + 1));
        }
    }
    if !path.has_skip_emulation() {
        // The columns of what is without it.
        for at in [3, 1] {
            tree.columns.remove(at);
            for branch in &mut tree.branches {
                branch.cells.remove(at);
            }
        }
    }
    let mut text = header(manifest, path);
    text.space();
    text.push(Block::Tree(tree));
    text
}

/// What is to be shown.
enum Below {
    Node {
        node: usize,
        depth: usize,
    },
    Hidden {
        number: u64,
        /// Of all of them.
        total: Count,
        depth: usize,
    },
}

/// The children of one node, the last first.
fn below_it(path: &RowPath, children: &[usize], minimum: u64, depth: usize) -> Vec<Below> {
    let mut all = Vec::new();
    let (mut number, mut total) = (0, Count::default());
    let nodes = children
        .iter()
        .filter_map(|&child| Some((child, path.tree.get(child)?)));
    for (node, child) in nodes {
        if child.total.all < minimum {
            number += 1;
            total.all += child.total.all;
            total.lean += child.total.lean;
        } else {
            all.push(Below::Node { node, depth });
        }
    }
    if number > 0 {
        all.push(Below::Hidden {
            number,
            total,
            depth,
        });
    }
    all.reverse();
    all
}

/// The node's name with its module, and how it was entered where that was not by a call.
fn label(node: &Node, name_cpu: bool) -> Prose {
    let mut text = Prose::of(&node.name);
    if !node.module.is_empty() && node.module != node.name {
        text = text.words(" [").name(&node.module).words("]");
    }
    let entered = match node.entered {
        Entered::Call => None,
        Entered::Before => Some("before the round"),
        Entered::TailCall => Some("tail call"),
        Entered::Interrupt => Some("interrupt"),
        Entered::SystemCall => Some("system call"),
        Entered::Vmrun => Some("VMRUN"),
    };
    if let Some(entered) = entered {
        text = text.words(format!(", {entered}"));
    }
    if name_cpu {
        text = text.words(format!(", CPU {}", node.cpu));
    }
    text
}
