//! Ways through the tree of calls that hold for any tree, a broken one included.

use exitpath_analysis::path::Node;

/// For each node those whose parent it is, in the tree's order. What starts at the first node and
/// follows these ends, whatever the parents are: every node but the first has exactly one.
pub(crate) fn children(tree: &[Node]) -> Vec<Vec<usize>> {
    let mut children = vec![Vec::new(); tree.len()];
    for (i, node) in tree.iter().enumerate().skip(1) {
        if let Some(siblings) = children.get_mut(node.parent) {
            siblings.push(i);
        }
    }
    children
}

/// The nodes from below the root down to this one.
pub(crate) fn stack(tree: &[Node], node: usize) -> Vec<usize> {
    let mut stack = Vec::new();
    let mut at = node;
    // A stack is no deeper than the tree is large; a longer one would be a circle.
    while at != 0 && stack.len() < tree.len() {
        let Some(this) = tree.get(at) else { break };
        stack.push(at);
        at = this.parent;
    }
    stack.reverse();
    stack
}
