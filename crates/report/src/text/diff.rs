//! What differs between two traces.

use std::fmt::Write;

use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff::{Change, FunctionDiff, PathDiff, RowDiff, Verdict};
use exitpath_recording::Manifest;

use super::Functions;
use crate::format::{change, machine, plain, short, subject, thousands};
use crate::layout::{Text, new_table, push_lines, push_warnings, push_wrapped};

/// Columns for a function's name.
const NAME_WIDTH: usize = 52;
/// Functions that a line on a row names; the rest are summed.
const NAMED: usize = 3;

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
        let _ = writeln!(text, "{}: {}", plain(&row.name), value(row));
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
/// functions that its difference comes from.
pub fn commit(diff: &PathDiff) -> String {
    let mut text = String::new();
    for row in &diff.rows {
        let (name, a, b) = (plain(&row.name), thousands(row.a), thousands(row.b));
        let _ = write!(text, "{name} {a}");
        if row.verdict == Verdict::Different {
            let _ = write!(text, " → {b} ({})", change(row.delta));
            if !row.functions.is_empty() {
                let _ = write!(text, ": {}", largest(&row.functions, plain));
            }
        } else {
            text.push_str(" unchanged");
        }
        let _ = writeln!(text, " [seeds {}/{}]", row.seeds_agreeing, row.seeds.len());
    }
    text
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
        .filter(|seed| seed.delta != row.delta)
        .map(|other| {
            let seed = other.seed.map_or_else(String::new, |seed| seed.to_string());
            format!("{} at seed {seed}", change(other.delta))
        })
        .collect();
    (!others.is_empty()).then(|| format!("but {}", others.join(", ")))
}

fn value(row: &RowDiff) -> String {
    let seeds = format!("seeds {}/{}", row.seeds_agreeing, row.seeds.len());
    let (a, b) = (thousands(row.a), thousands(row.b));
    if row.verdict == Verdict::Different {
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
    if row.unexplained != 0 {
        let _ = writeln!(
            text,
            "    not by functions: {} (instructions that were begun and not completed)",
            change(row.unexplained)
        );
    }
    text.push('\n');
}
