//! What differs between two traces.

use std::fmt::Write;

use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff::{
    Change, ClassDiff, FunctionDiff, InstructionDiff, PathDiff, RowDiff, Side, Verdict,
};
use exitpath_recording::Manifest;

use super::Functions;
use crate::format::{change, machine, none, of, plain, short, subject, thousands};
use crate::layout::{Text, new_table, push_lines, push_warnings, push_wrapped};

/// Columns for a function's name.
const NAME_WIDTH: usize = 52;
/// Functions that a line on a row names; the rest are summed. Instructions likewise.
const NAMED: usize = 3;
/// Instructions that a table has, unless everything is to be shown.
const LISTED: usize = 10;
/// Columns for the text of an instruction.
const TEXT_WIDTH: usize = 28;
/// What may come before a mnemonic.
const PREFIXES: [&str; 7] = ["lock", "rep", "repz", "repe", "repnz", "repne", "notrack"];

/// What differs, row by row: the row's value, then phases and functions, those that differ most
/// first. `a` and `b` are the manifests of the first and the second recording.
///
/// All figures are instructions per round.
pub fn diff(a: &Manifest, b: &Manifest, diff: &PathDiff, functions: Functions) -> Text {
    let mut text = Text::new();
    push_lines(
        &mut text,
        &machine(a, a.environment.cpus, &a.environment.seeds),
    );
    push_lines(&mut text, &format!("a: {}\nb: {}", subject(a), subject(b)));
    for note in notes(a, b, diff) {
        push_wrapped(&mut text, &note);
    }
    push_warnings(&mut text, &warnings(a, b));
    push_wrapped(
        &mut text,
        "figures: instructions, not time; a row's by the guest's clock, of the most frequent path",
    );
    text.push('\n');
    for row in &diff.rows {
        push_wrapped(&mut text, &format!("{}: {}", plain(&row.name), value(row)));
        if let Some(others) = other_seeds(row) {
            push_wrapped(&mut text, &others);
        }
        if row.verdict == Verdict::Different {
            tables(&mut text, row, functions);
        }
    }
    text
}

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
                words.extend(otherwise(row, plain));
            } else {
                let _ = write!(text, " → {b} ({})", change(row.delta));
                if !row.functions.is_empty() {
                    words.push(largest(&row.functions, plain));
                }
            }
            if !row.classes.is_empty() {
                words.push(format!("classes: {}", classes(&row.classes)));
            }
            if !words.is_empty() {
                let _ = write!(text, ": {}", words.join("; "));
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
fn as_many(row: &RowDiff) -> bool {
    row.delta == 0 && row.functions.is_empty()
}

/// What differs where the numbers do not, in words.
pub(crate) fn otherwise(row: &RowDiff, name: fn(&str) -> String) -> Option<String> {
    if row.reordered {
        return Some("the same instructions in another order of functions".to_owned());
    }
    let number = row.instructions.len() + row.instructions_left_out;
    let (one, many) = ("instruction differs", "instructions differ");
    (number > 0).then(|| {
        let named = row.instructions.iter().take(NAMED);
        let mut words: Vec<String> = named.map(|diff| told(diff, name)).collect();
        if number > words.len() {
            words.push(format!(
                "and {} more",
                thousands((number - words.len()) as u64)
            ));
        }
        format!("{}: {}", of(number as u64, one, many), words.join(", "))
    })
}

/// An instruction that differs: where, and what it was and is.
pub fn instruction(diff: &InstructionDiff) -> String {
    told(diff, plain)
}

fn told(diff: &InstructionDiff, name: fn(&str) -> String) -> String {
    let place = name(&place(diff));
    match (&diff.a, &diff.b) {
        (Some(a), Some(b)) => {
            let (of_a, of_b) = (operation(&a.text), operation(&b.text));
            if of_a != of_b && a.times == b.times {
                format!("{place} {} → {}", name(&of_a), name(&of_b))
            } else {
                format!("{place} {} → {}", name(&side(a)), name(&side(b)))
            }
        }
        (Some(a), None) => format!("{place} − {}", name(&operation(&a.text))),
        (None, Some(b)) => format!("{place} + {}", name(&operation(&b.text))),
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
fn operation(text: &str) -> String {
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

/// The functions that differ most, each with its difference; names as `name` writes them.
pub(crate) fn largest(functions: &[FunctionDiff], name: fn(&str) -> String) -> String {
    // A word on one more takes as much room as that one.
    let named = if functions.len() == NAMED + 1 {
        functions.len()
    } else {
        functions.len().min(NAMED)
    };
    let (top, rest) = functions.split_at(named);
    let mut words: Vec<String> = top
        .iter()
        .map(|function| format!("{} {}", name(&function.name), change(function.delta)))
        .collect();
    if !rest.is_empty() {
        let number = thousands(rest.len() as u64);
        words.push(format!("and {number} more {}", change(sum(rest))));
    }
    words.join(", ")
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
pub(crate) fn notes(a: &Manifest, b: &Manifest, diff: &PathDiff) -> Vec<String> {
    let (a, b) = (&a.environment, &b.environment);
    let told = [
        format!("kernel: {} → {}", a.kernel, b.kernel),
        format!("command line: {} → {}", a.cmdline, b.cmdline),
    ];
    let notes = diff.notes.iter().filter(|note| !told.contains(note));
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

fn value(row: &RowDiff) -> String {
    let seeds = format!("seeds {}/{}", row.seeds_agreeing, row.seeds.len());
    let (a, b) = (thousands(row.a), thousands(row.b));
    let seeds = match elsewhere(row) {
        Some(words) => format!("{seeds}, {words}"),
        None => seeds,
    };
    if row.verdict == Verdict::Different && as_many(row) {
        let words = otherwise(row, plain).map_or_else(String::new, |words| format!(", {words}"));
        format!("{a}, the same number{words}, {seeds}")
    } else if row.verdict == Verdict::Different {
        format!("{a} → {b} ({}), {seeds}", change(row.delta))
    } else {
        format!("{a}, the same, {seeds}")
    }
}

fn tables(text: &mut Text, row: &RowDiff, functions: Functions) {
    let phases: Vec<_> = row.phases.iter().filter(|phase| phase.delta != 0).collect();
    if !phases.is_empty() {
        let mut table = new_table(&["", "phase", "a", "b", "delta"], &[0, 1]);
        for phase in phases {
            table.add_row([
                String::new(),
                plain(&phase.name),
                thousands(phase.a),
                thousands(phase.b),
                change(phase.delta),
            ]);
        }
        text.table(table);
    }
    if !row.functions.is_empty() {
        let header = [
            "", "function", "module", "own a", "own b", "delta", "calls a", "calls b", "",
        ];
        let leaving = ["calls a", "calls b", "module", "own a", "own b"];
        let mut table = new_table(&header, &[0, 1, 2, 8]).leaving(&leaving);
        let (top, rest) = row.functions.split_at(functions.shown(row.functions.len()));
        for function in top {
            table.add_row([
                String::new(),
                short(&function.name, NAME_WIDTH),
                plain(&function.module),
                thousands(function.a),
                thousands(function.b),
                change(function.delta),
                thousands(function.calls.0),
                thousands(function.calls.1),
                presence(function.change).to_owned(),
            ]);
        }
        if !rest.is_empty() {
            let nothing = String::new;
            let number = thousands(rest.len() as u64);
            table.add_row([
                nothing(),
                format!("… and {number} more"),
                nothing(),
                nothing(),
                nothing(),
                change(sum(rest)),
            ]);
        }
        text.table(table);
    }
    instructions(text, row, functions);
    if !row.classes.is_empty() {
        let mut table = new_table(&["", "class of instructions", "a", "b", "delta"], &[0, 1]);
        for class in &row.classes {
            table.add_row([
                String::new(),
                class.class.to_owned(),
                thousands(class.a),
                thousands(class.b),
                change(class.delta),
            ]);
        }
        text.table(table);
    }
    if row.unexplained != 0 {
        let _ = writeln!(
            text,
            "    not by functions: {} (instructions that were begun and not completed)",
            change(row.unexplained)
        );
    }
    text.push('\n');
}

/// How many instructions are listed.
pub(crate) fn listed(row: &RowDiff, functions: Functions) -> usize {
    match functions {
        Functions::All => row.instructions.len(),
        Functions::Top(_) => row.instructions.len().min(LISTED),
    }
}

/// What is said of instructions that are not listed.
pub(crate) fn unlisted(row: &RowDiff, listed: usize) -> Option<String> {
    let more = row.instructions.len() - listed + row.instructions_left_out;
    (more > 0).then(|| format!("… and {} more", thousands(more as u64)))
}

/// An instruction as a table shows it: without its operands where these are long, so that no number of them is cut.
fn brief(of: &Side) -> String {
    let whole = side(of);
    if whole.chars().count() <= TEXT_WIDTH {
        return whole;
    }
    let text = format!("{} …", operation(&of.text));
    side(&Side { text, ..of.clone() })
}

fn instructions(text: &mut Text, row: &RowDiff, functions: Functions) {
    if row.instructions.is_empty() {
        return;
    }
    let mut table = new_table(&["", "instruction", "module", "a", "b"], &[0, 1, 2, 3, 4]);
    let listed = listed(row, functions);
    let word = |of: &Option<Side>| of.as_ref().map_or_else(none, brief);
    for diff in &row.instructions[..listed] {
        table.add_row([
            String::new(),
            short(&place(diff), NAME_WIDTH),
            plain(&diff.module),
            word(&diff.a),
            word(&diff.b),
        ]);
    }
    if let Some(words) = unlisted(row, listed) {
        let nothing = String::new;
        table.add_row([nothing(), words, nothing(), nothing(), nothing()]);
    }
    text.table(table);
}
