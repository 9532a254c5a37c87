//! What differs between two traces.

use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff::{PathDiff, RowDiff, Side, Verdict};
use exitpath_recording::Manifest;

use super::Functions;
use crate::changes::{
    as_many, elsewhere, notes, operation, other_seeds, otherwise, place, presence, side, sum,
};
use crate::document::{Cell, Column, Document, Table, Unit};
use crate::format::{change, machine, plain, subject, thousands};

/// Characters of a function's name on a terminal.
const NAME_WIDTH: usize = 52;
/// Instructions that a table has, unless everything is to be shown.
const LISTED: usize = 10;
/// Characters of an instruction's text on a terminal.
const TEXT_WIDTH: usize = 28;

/// What differs, row by row: the row's value, then phases and functions, those that differ most
/// first. `a` and `b` are the manifests of the first and the second recording.
///
/// All figures are instructions per round.
pub fn diff(a: &Manifest, b: &Manifest, diff: &PathDiff, functions: Functions) -> Document {
    let mut text = Document::new();
    text.fact(machine(a, a.environment.cpus, &a.environment.seeds));
    text.fact(format!("a: {}", subject(a)));
    text.fact(format!("b: {}", subject(b)));
    for note in notes(diff) {
        text.note(note);
    }
    text.warnings(&warnings(a, b));
    text.note(
        "figures: instructions, not time; a row's by the guest's clock, of the most frequent path",
    );
    text.space();
    for row in &diff.rows {
        text.note(format!("{}: {}", plain(&row.name), value(row)));
        if let Some(others) = other_seeds(row) {
            text.note(others);
        }
        if row.verdict == Verdict::Different {
            for table in tables(row, functions, brief) {
                text.table(table.indented());
            }
            if row.unexplained != 0 {
                text.lines(&format!(
                    "    not by functions: {} (instructions that were begun and not completed)\n",
                    change(row.unexplained)
                ));
            }
            text.space();
        }
    }
    text
}

fn value(row: &RowDiff) -> String {
    let seeds = format!("seeds {}/{}", row.seeds_agreeing, row.seeds.len());
    let (a, b) = (thousands(row.a), thousands(row.b));
    let seeds = match elsewhere(row) {
        Some(words) => format!("{seeds}, {words}"),
        None => seeds,
    };
    if row.verdict == Verdict::Different && as_many(row) {
        let words = otherwise(row).map_or_else(String::new, |words| format!(", {words}"));
        format!("{a}, the same number{words}, {seeds}")
    } else if row.verdict == Verdict::Different {
        format!("{a} → {b} ({}), {seeds}", change(row.delta))
    } else {
        format!("{a}, the same, {seeds}")
    }
}

/// What a row's difference consists of: phases, functions, instructions as `shown` writes them, classes.
pub(super) fn tables(
    row: &RowDiff,
    functions: Functions,
    shown: fn(&Side) -> String,
) -> Vec<Table> {
    let tables = [
        phases(row),
        self::functions(row, functions),
        instructions(row, functions, shown),
        classes(row),
    ];
    tables
        .into_iter()
        .filter(|table| !table.rows.is_empty())
        .collect()
}

fn phases(row: &RowDiff) -> Table {
    let mut table = sides("phase");
    for phase in row.phases.iter().filter(|phase| phase.delta != 0) {
        table.row([
            Cell::name(&phase.name),
            Cell::Whole(phase.a),
            Cell::Whole(phase.b),
            Cell::Change(phase.delta),
        ]);
    }
    table
}

fn classes(row: &RowDiff) -> Table {
    let mut table = sides("class of instructions");
    for class in &row.classes {
        table.row([
            Cell::name(class.class),
            Cell::Whole(class.a),
            Cell::Whole(class.b),
            Cell::Change(class.delta),
        ]);
    }
    table
}

/// Something with how many instructions it has in both, and how many more in B.
fn sides(what: &str) -> Table {
    Table::new([
        Column::words(what),
        Column::figures("a", Unit::Instructions),
        Column::figures("b", Unit::Instructions),
        Column::figures("delta", Unit::Instructions),
    ])
}

fn functions(row: &RowDiff, functions: Functions) -> Table {
    let mut table = Table::new([
        Column::names("function", NAME_WIDTH),
        Column::words("module"),
        Column::figures("own a", Unit::Instructions),
        Column::figures("own b", Unit::Instructions),
        Column::figures("delta", Unit::Instructions),
        Column::figures("calls a", Unit::Count),
        Column::figures("calls b", Unit::Count),
        Column::words(""),
    ])
    .leaving(&["calls a", "calls b", "module", "own a", "own b"]);
    let (top, rest) = row.functions.split_at(functions.shown(row.functions.len()));
    for function in top {
        table.row([
            Cell::name(&function.name),
            Cell::name(&function.module),
            Cell::Whole(function.a),
            Cell::Whole(function.b),
            Cell::Change(function.delta),
            Cell::Whole(function.calls.0),
            Cell::Whole(function.calls.1),
            presence(function.change).into(),
        ]);
    }
    if !rest.is_empty() {
        let more = format!("… and {} more", thousands(rest.len() as u64));
        let nothing = || Cell::Empty;
        table.row([
            more.into(),
            nothing(),
            nothing(),
            nothing(),
            Cell::Change(sum(rest)),
        ]);
    }
    table
}

fn instructions(row: &RowDiff, functions: Functions, shown: fn(&Side) -> String) -> Table {
    let mut table = Table::new([
        Column::names("instruction", NAME_WIDTH),
        Column::words("module"),
        Column::words("a"),
        Column::words("b"),
    ]);
    let listed = match functions {
        Functions::All => row.instructions.len(),
        Functions::Top(_) => row.instructions.len().min(LISTED),
    };
    let word = |of: &Option<Side>| Cell::known(of.as_ref(), |of| Cell::name(&shown(of)));
    for diff in &row.instructions[..listed] {
        table.row([
            Cell::name(&place(diff)),
            Cell::name(&diff.module),
            word(&diff.a),
            word(&diff.b),
        ]);
    }
    let more = row.instructions.len() - listed + row.instructions_left_out;
    if more > 0 && !row.instructions.is_empty() {
        table.row([format!("… and {} more", thousands(more as u64)).into()]);
    }
    table
}

/// An instruction without its operands where these are long, so that no number of them is cut.
fn brief(of: &Side) -> String {
    let whole = side(of);
    if whole.chars().count() <= TEXT_WIDTH {
        return whole;
    }
    let text = format!("{} …", operation(&of.text));
    side(&Side { text, ..of.clone() })
}
