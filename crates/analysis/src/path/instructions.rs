//! Which instructions differ between two paths, function by function.
//!
//! A kernel makes an expensive instruction of a NOP, or a NOP of it, without changing how many
//! instructions run. So paths are compared by what each instruction does ([`Executed::form`]): its
//! mnemonic and the kinds of its operands. Addresses, displacements, numbers and the choice of
//! general registers are left out, because linking, loading and compiling change them without
//! making another path.

use std::collections::BTreeMap;

use exitpath_recording::Space;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::known::{Key, key, unqualified};
use super::model::{Executed, RowPath};

/// Instructions told at most of a function that takes another number of them in B: what differs
/// more is another function by the same name.
const SHORT: usize = 16;

/// An instruction that only one of two paths has, or that is another one in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstructionDiff {
    /// Its function, without what a compiler appends if A's and B's differ in that.
    pub function: String,
    /// The function's module.
    pub module: String,
    /// Where it runs.
    pub space: Space,
    /// What A executes; `None` where B has one more.
    pub a: Option<Side>,
    /// What B executes; `None` where A has one more.
    pub b: Option<Side>,
}

/// An instruction of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Bytes from the beginning of the function, or of the part of it that it is in.
    pub offset: u64,
    /// Whether that is a part which the compiler has moved out of the function.
    pub cold: bool,
    /// Its text.
    pub text: String,
    /// How often it ran in the round.
    pub times: u64,
}

/// How many instructions of a class there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassDiff {
    /// The class, one of [`super::classes::CLASSES`].
    pub class: &'static str,
    /// Instructions in A.
    pub a: u64,
    /// Instructions in B.
    pub b: u64,
    /// B − A.
    pub delta: i64,
}

/// What differs of two paths besides the numbers of their functions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Differing {
    /// First those of functions that take as many instructions in both.
    pub(super) told: Vec<InstructionDiff>,
    /// How many more there are, of functions that differ in more than [`SHORT`].
    pub(super) left_out: usize,
    /// Whether the same instructions run in another order of functions.
    pub(super) reordered: bool,
}

impl Differing {
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty() && self.left_out == 0 && !self.reordered
    }
}

/// Compares the instructions of all functions that both paths have.
pub(super) fn differing(a: &RowPath, b: &RowPath) -> Differing {
    let (of_a, of_b) = (by_function(a), by_function(b));
    let mut differing = Differing::default();
    let mut of_others = Vec::new();
    let mut only_one = false;
    for (key, in_a) in &of_a {
        let Some(in_b) = of_b.get(key) else {
            only_one = true;
            continue;
        };
        let as_many = times(in_a) == times(in_b);
        let edits = edits(key, in_a, in_b, as_many);
        if as_many {
            differing.told.extend(edits);
        } else if edits.len() <= SHORT {
            of_others.extend(edits);
            only_one = true;
        } else {
            differing.left_out += edits.len();
        }
    }
    differing.told.extend(of_others);
    only_one |= of_a.len() != of_b.len();
    differing.reordered = !only_one && differing.is_empty() && order(a) != order(b);
    differing
}

/// The classes of which one path has more than the other.
pub(super) fn classes(a: &RowPath, b: &RowPath) -> Vec<ClassDiff> {
    let count = |row: &RowPath, class: &str| {
        let of_class = row.classes.iter().find(|count| count.class == class);
        of_class.map_or(0, |of_class| of_class.count.all)
    };
    let all = super::arch::classes::CLASSES.iter().map(|class| {
        let (in_a, in_b) = (count(a, class.name), count(b, class.name));
        ClassDiff {
            class: class.name,
            a: in_a,
            b: in_b,
            delta: in_b as i64 - in_a as i64,
        }
    });
    all.filter(|class| class.delta != 0).collect()
}

/// The instructions of each function, in the order of their addresses in it.
fn by_function(row: &RowPath) -> BTreeMap<Key, Vec<(&str, &Executed)>> {
    let mut functions: BTreeMap<Key, Vec<(&str, &Executed)>> = BTreeMap::new();
    for executed in &row.instructions {
        if let Some(function) = row.functions.get(executed.function) {
            let of_function = functions.entry(key(function)).or_default();
            of_function.push((&function.name, executed));
        }
    }
    for executed in functions.values_mut() {
        // Stable: what is at one place stays in the order of its ids.
        executed.sort_by_key(|(name, executed)| (*name, executed.cold, executed.offset));
    }
    functions
}

fn times(executed: &[(&str, &Executed)]) -> u64 {
    executed
        .iter()
        .map(|(_, executed)| executed.times.all)
        .sum()
}

/// What makes B's instructions of a function from A's. Where both take as many, also those that
/// run more or less often: nothing else would show that.
fn edits(
    key: &Key,
    a: &[(&str, &Executed)],
    b: &[(&str, &Executed)],
    as_many: bool,
) -> Vec<InstructionDiff> {
    let forms = |executed: &[(&str, &Executed)]| -> Vec<String> {
        executed.iter().map(|(_, e)| e.form.clone()).collect()
    };
    let side = |executed: &[(&str, &Executed)], at: usize| {
        let executed = executed.get(at)?.1;
        Some(Side {
            offset: executed.offset,
            cold: executed.cold,
            text: executed.text.clone(),
            times: executed.times.all,
        })
    };
    let name = match (a.first(), b.first()) {
        (Some((of_a, _)), Some((of_b, _))) if of_a == of_b && !of_a.starts_with("0x") => of_a,
        _ => key.2.as_str(),
    };
    let diff = |a: Option<Side>, b: Option<Side>| InstructionDiff {
        function: name.to_owned(),
        module: key.1.clone(),
        space: key.0,
        a,
        b,
    };
    let mut edits = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &forms(a), &forms(b)) {
        let (in_a, in_b) = (op.old_range(), op.new_range());
        let equal = matches!(op, DiffOp::Equal { .. });
        for at in 0..in_a.len().max(in_b.len()) {
            let of = |executed, range: &std::ops::Range<usize>| {
                (at < range.len()).then(|| side(executed, range.start + at))?
            };
            let (in_a, in_b) = (of(a, &in_a), of(b, &in_b));
            let times = |side: &Option<Side>| side.as_ref().map(|side| side.times);
            if !equal || (as_many && times(&in_a) != times(&in_b)) {
                edits.push(diff(in_a, in_b));
            }
        }
    }
    edits
}

/// What runs from one change of function to the next.
fn order(row: &RowPath) -> Vec<(Space, &str, u64)> {
    let mut order: Vec<(Space, &str, u64)> = Vec::new();
    for step in &row.steps {
        let Some(node) = row.tree.get(step.node) else {
            continue;
        };
        let name = unqualified(&node.name);
        match order.last_mut() {
            Some((space, last, sum)) if (*space, *last) == (node.space, name) => {
                *sum += step.instructions;
            }
            _ => order.push((node.space, name, step.instructions)),
        }
    }
    order
}
