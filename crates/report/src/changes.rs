//! What differs between two paths, in words.

use std::fmt::Write;

use exitpath_analysis::path::diff::{
    Change, ClassDiff, FunctionDiff, InstructionDiff, PathDiff, RowDiff, Side, Verdict,
};

use crate::document::Prose;
use crate::format::{change, of, plain, thousands};

/// Functions that a line on a row names; the rest are summed. Instructions likewise.
const NAMED: usize = 3;
/// What may come before a mnemonic.
const PREFIXES: [&str; 7] = ["lock", "rep", "repz", "repe", "repnz", "repne", "notrack"];

/// What differs in one block that fits into a commit message: a line for each row, with the
/// functions that its difference comes from, or else the instructions, and the classes of
/// instructions of which there are more or fewer.
pub fn commit(diff: &PathDiff) -> String {
    let mut text = String::new();
    for row in &diff.rows {
        let (name, a, b) = (plain(&row.name), thousands(row.a), thousands(row.b));
        let _ = write!(text, "{name} {a}");
        if row.verdict == Verdict::Different {
            let mut words = Vec::new();
            if as_many(row) {
                let _ = write!(text, ", the same number");
                words.extend(otherwise(row));
            } else {
                let _ = write!(text, " → {b} ({})", change(row.delta));
                if !row.functions.is_empty() {
                    words.push(largest(&row.functions));
                }
            }
            if !row.classes.is_empty() {
                words.push(format!("classes: {}", classes(&row.classes)).into());
            }
            if !words.is_empty() {
                let _ = write!(text, ": {}", Prose::joined(words, "; "));
            }
        } else {
            text.push_str(" unchanged");
        }
        let elsewhere = elsewhere(row).map_or_else(String::new, |words| format!(", {words}"));
        let others = other_seeds(row).map_or_else(String::new, |words| format!(", {words}"));
        let _ = writeln!(
            text,
            " [seeds {}/{}{elsewhere}{others}]",
            row.seeds_agreeing,
            row.seeds.len()
        );
    }
    text
}

/// Whether both have the same number by the same functions, and still another path.
pub(crate) fn as_many(row: &RowDiff) -> bool {
    row.delta == 0 && row.functions.is_empty()
}

/// What differs where the numbers do not.
pub(crate) fn otherwise(row: &RowDiff) -> Option<Prose> {
    if row.reordered {
        return Some("the same instructions in another order of functions".into());
    }
    let number = row.instructions.len() + row.instructions_left_out;
    let (one, many) = ("instruction differs", "instructions differ");
    (number > 0).then(|| {
        let named = row.instructions.iter().take(NAMED);
        let mut words: Vec<Prose> = named.map(told).collect();
        if number > words.len() {
            let more = thousands((number - words.len()) as u64);
            words.push(format!("and {more} more").into());
        }
        let words = Prose::joined(words, ", ");
        Prose::from(format!("{}: ", of(number as u64, one, many))).and(words)
    })
}

/// An instruction that differs: where, and what it was and is.
pub fn instruction(diff: &InstructionDiff) -> String {
    told(diff).to_string()
}

fn told(diff: &InstructionDiff) -> Prose {
    let place = Prose::of(&place(diff));
    match (&diff.a, &diff.b) {
        (Some(a), Some(b)) => {
            let (of_a, of_b) = (operation(&a.text), operation(&b.text));
            let (of_a, of_b) = match of_a != of_b && a.times == b.times {
                true => (of_a, of_b),
                false => (side(a), side(b)),
            };
            place.words(" ").name(&of_a).words(" → ").name(&of_b)
        }
        (Some(a), None) => place.words(" − ").name(&operation(&a.text)),
        (None, Some(b)) => place.words(" + ").name(&operation(&b.text)),
        (None, None) => place,
    }
}

/// A place in a function, as disassemblies name it: B's, where only B has one.
pub(crate) fn place(diff: &InstructionDiff) -> String {
    let side = diff.a.as_ref().or(diff.b.as_ref());
    side.map_or_else(
        || diff.function.clone(),
        |side| {
            let cold = if side.cold { ".cold" } else { "" };
            format!("{}{cold}+{:#x}", diff.function, side.offset)
        },
    )
}

/// A mnemonic with its prefixes.
pub(crate) fn operation(text: &str) -> String {
    let mut words = text.split_whitespace();
    let mut operation = Vec::new();
    for word in words.by_ref() {
        operation.push(word);
        if !PREFIXES.contains(&word) {
            break;
        }
    }
    operation.join(" ")
}

/// An instruction, and how often it ran if more than once.
pub(crate) fn side(side: &Side) -> String {
    match side.times {
        1 => side.text.clone(),
        times => format!("{} × {}", thousands(times), side.text),
    }
}

/// Classes, each with its difference.
pub(crate) fn classes(classes: &[ClassDiff]) -> String {
    let words = classes
        .iter()
        .map(|class| format!("{} {}", class.class, change(class.delta)));
    words.collect::<Vec<_>>().join(", ")
}

/// At how many seeds the paths differ, where that is not at all of those that agree in number.
pub(crate) fn elsewhere(row: &RowDiff) -> Option<String> {
    let agreeing = row.seeds.iter().filter(|seed| seed.delta == row.delta);
    let (differ, same): (Vec<_>, Vec<_>) = agreeing.partition(|seed| seed.paths_differ);
    (!differ.is_empty() && !same.is_empty())
        .then(|| format!("another path at {} of them", thousands(differ.len() as u64)))
}

/// The functions that differ most, each with its difference.
pub(crate) fn largest(functions: &[FunctionDiff]) -> Prose {
    // A word on one more takes as much room as that one.
    let named = if functions.len() == NAMED + 1 {
        functions.len()
    } else {
        functions.len().min(NAMED)
    };
    let (top, rest) = functions.split_at(named);
    let function = |function: &FunctionDiff| {
        let by = format!(" {}", change(function.delta));
        Prose::of(&function.name).words(by)
    };
    let mut words: Vec<Prose> = top.iter().map(function).collect();
    if !rest.is_empty() {
        let number = thousands(rest.len() as u64);
        words.push(format!("and {number} more {}", change(sum(rest))).into());
    }
    Prose::joined(words, ", ")
}

pub(crate) fn sum(functions: &[FunctionDiff]) -> i64 {
    functions.iter().map(|function| function.delta).sum()
}

/// The word for a function that is on one of the paths only.
pub(crate) fn presence(presence: Change) -> &'static str {
    match presence {
        Change::Changed => "",
        Change::New => "new",
        Change::Gone => "gone",
    }
}

/// What the recordings differ in besides, but for what [`subject`] says already.
pub(crate) fn notes(diff: &PathDiff) -> Vec<String> {
    let told = ["kernel: ", "command line: ", "done to the kernel: "];
    let is_told = |note: &String| told.iter().any(|told| note.starts_with(told));
    let notes = diff.notes.iter().filter(|note| !is_told(note));
    notes.map(|note| plain(note)).collect()
}

/// Seeds at which the difference is another one.
pub(crate) fn other_seeds(row: &RowDiff) -> Option<String> {
    let others: Vec<String> = row
        .seeds
        .iter()
        .filter(|seed| seed.delta != row.delta || seed.classes != row.classes)
        .map(|other| {
            let seed = other.seed.map_or_else(String::new, |seed| seed.to_string());
            let classes = match other.classes == row.classes {
                true => String::new(),
                false if other.classes.is_empty() => " without a change of classes".to_owned(),
                false => format!(" with {}", classes(&other.classes)),
            };
            format!("{} at seed {seed}{classes}", change(other.delta))
        })
        .collect();
    (!others.is_empty()).then(|| format!("but {}", others.join(", ")))
}
