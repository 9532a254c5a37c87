//! Trees, such as that of calls.

use super::{Cell, Column, Prose};

/// A node, below the last one of which the depth is one less.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    /// 0 for the root.
    pub(crate) depth: usize,
    /// A figure for each column.
    pub(crate) cells: Vec<Cell>,
    pub(crate) label: Prose,
}

/// A tree with figures beside each of its nodes.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// Of the figures.
    pub(crate) columns: Vec<Column>,
    /// What the nodes are.
    pub(crate) title: &'static str,
    /// All nodes, each before those below it.
    pub(crate) branches: Vec<Branch>,
}

impl Tree {
    /// Of each node, whether it is the last one below its parent.
    pub(crate) fn lasts(&self) -> Vec<bool> {
        // From the end: whether one so deep was seen since one less deep.
        let mut seen: Vec<bool> = Vec::new();
        let nodes = self.branches.iter().rev();
        let mut lasts: Vec<bool> = nodes
            .map(|branch| {
                seen.resize(branch.depth + 1, false);
                !std::mem::replace(&mut seen[branch.depth], true)
            })
            .collect();
        lasts.reverse();
        lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_below_each_parent_is_told() {
        let branch = |depth| Branch {
            depth,
            cells: Vec::new(),
            label: Prose::new(),
        };
        let tree = Tree {
            columns: Vec::new(),
            title: "",
            branches: [0, 1, 2, 2, 1, 2, 3].map(branch).into(),
        };
        let expected = [true, false, false, true, true, true, true];
        assert_eq!(tree.lasts(), expected);
    }
}
