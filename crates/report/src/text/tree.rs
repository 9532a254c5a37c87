//! The tree of calls of a traced path.

use std::collections::BTreeSet;

use exitpath_analysis::path::{Count, Entered, Node, RowPath};
use exitpath_recording::Manifest;

use super::path::{both, header};
use crate::calls;
use crate::format::{none, plain, thousands};
use crate::layout::{Text, new_table};

/// The tree of calls, each node with its own instructions, those with all below it, and how often
/// it was entered.
///
/// Nodes with fewer than `minimum` instructions, all below them included, are not shown but
/// counted, together with their neighbours.
pub fn tree(manifest: &Manifest, path: &RowPath, minimum: u64) -> Text {
    let columns = [
        "own",
        "lean own",
        "total",
        "lean total",
        "calls",
        "function",
    ];
    let mut table = new_table(&columns, &[5]).uncut();
    let children = calls::children(&path.tree);
    let cpus: BTreeSet<u32> = path.tree.iter().skip(1).map(|node| node.cpu).collect();
    let mut todo = vec![Line::Node {
        node: 0,
        indent: String::new(),
        branch: "",
    }];
    while let Some(line) = todo.pop() {
        let (node, indent, branch) = match line {
            Line::Node {
                node,
                indent,
                branch,
            } => (node, indent, branch),
            Line::Hidden {
                number,
                total,
                indent,
            } => {
                let [all, lean] = both(total);
                let more = format!("{indent}└── … {} more", thousands(number));
                table.add_row([String::new(), String::new(), all, lean, String::new(), more]);
                continue;
            }
        };
        let Some(this) = path.tree.get(node) else {
            continue;
        };
        let [own, own_lean] = both(this.own);
        let [total, total_lean] = both(this.total);
        let (calls, label) = if node == 0 {
            (String::new(), "one round".to_owned())
        } else {
            let parent = path.tree.get(this.parent);
            // It was entered before the round, as its line says.
            let calls = match this.calls {
                0 => none(),
                calls => thousands(calls),
            };
            let moved = this.parent == 0 || parent.is_some_and(|parent| parent.cpu != this.cpu);
            (calls, label(this, moved && cpus.len() > 1))
        };
        let label = format!("{indent}{branch}{label}");
        table.add_row([own, own_lean, total, total_lean, calls, label]);

        let below = match branch {
            "" => String::new(),
            "└── " => format!("{indent}    "),
            _ => format!("{indent}│   "),
        };
        if let Some(children) = children.get(node) {
            todo.extend(lines_below(path, children, minimum, below));
        }
    }
    let mut text = header(manifest, path);
    text.push('\n');
    text.table(table);
    text
}

/// What is to be drawn.
enum Line {
    Node {
        node: usize,
        /// Before the branch.
        indent: String,
        branch: &'static str,
    },
    Hidden {
        number: u64,
        /// Of all of them.
        total: Count,
        indent: String,
    },
}

/// The lines for the children of one node, the last first.
fn lines_below(path: &RowPath, children: &[usize], minimum: u64, indent: String) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut hidden = (0, Count::default());
    let nodes = children
        .iter()
        .filter_map(|&child| Some((child, path.tree.get(child)?)));
    for (node, child) in nodes {
        if child.total.all < minimum {
            hidden.0 += 1;
            hidden.1.all += child.total.all;
            hidden.1.lean += child.total.lean;
        } else {
            lines.push(Line::Node {
                node,
                indent: indent.clone(),
                branch: "├── ",
            });
        }
    }
    if hidden.0 > 0 {
        lines.push(Line::Hidden {
            number: hidden.0,
            total: hidden.1,
            indent,
        });
    } else if let Some(Line::Node { branch, .. }) = lines.last_mut() {
        *branch = "└── ";
    }
    lines.reverse();
    lines
}

/// The node's name with its module, and how it was entered where that was not by a call.
fn label(node: &Node, name_cpu: bool) -> String {
    let mut text = plain(&node.name);
    if !node.module.is_empty() && node.module != node.name {
        text = format!("{text} [{}]", plain(&node.module));
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
        text = format!("{text}, {entered}");
    }
    if name_cpu {
        text = format!("{text}, CPU {}", node.cpu);
    }
    text
}
