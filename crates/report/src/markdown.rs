//! What differs between two traces as Markdown, for a pull request.

use std::fmt::Write;

use exitpath_analysis::path::conditions::warnings;
use exitpath_analysis::path::diff::{PathDiff, RowDiff, Side, Verdict};
use exitpath_recording::Manifest;

use crate::format::{change, machine, none, plain, subject, thousands};
use crate::text::Functions;
use crate::text::diff::{
    classes, elsewhere, largest, listed, notes, other_seeds, otherwise, place, presence, side, sum,
    unlisted,
};

/// A table of the rows, and below it, folded, the phases and functions of those that differ. `a` and
/// `b` are the manifests of the first and the second recording.
///
/// All figures are instructions per round.
pub fn diff(a: &Manifest, b: &Manifest, diff: &PathDiff, functions: Functions) -> String {
    let differ = diff
        .rows
        .iter()
        .filter(|row| row.verdict == Verdict::Different)
        .count();
    let mut text = match differ {
        0 => "### exitpath: the same\n\n".to_owned(),
        _ => format!(
            "### exitpath: {differ} of {} rows differ\n\n",
            diff.rows.len()
        ),
    };
    text.push_str("| row | a | b | delta | seeds | mostly |\n|---|--:|--:|--:|:-:|---|\n");
    for row in &diff.rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {}/{} | {} |",
            code(&row.name),
            thousands(row.a),
            thousands(row.b),
            change(row.delta),
            row.seeds_agreeing,
            row.seeds.len(),
            mostly(row)
        );
    }
    text.push('\n');
    for row in diff
        .rows
        .iter()
        .filter(|row| row.verdict == Verdict::Different)
    {
        details(&mut text, row, functions);
    }

    text.push_str(
        "Instructions, not time; a row's by the guest's clock, of the most frequent path.\n\n",
    );
    let lab = machine(a, a.environment.cpus, &a.environment.seeds);
    let _ = writeln!(text, "- {}", code(&lab));
    let _ = writeln!(text, "- a: {}", code(&subject(a)));
    let _ = writeln!(text, "- b: {}", code(&subject(b)));
    for note in notes(a, b, diff) {
        let _ = writeln!(text, "- {}", code(&note));
    }
    for warning in warnings(a, b) {
        let _ = writeln!(text, "- warning: {}", code(&warning));
    }
    text
}

/// What a row's difference comes from.
fn mostly(row: &RowDiff) -> String {
    let mut words = Vec::new();
    if !row.functions.is_empty() {
        words.push(largest(&row.functions, code));
    } else if row.verdict == Verdict::Different {
        words.extend(otherwise(row, code));
    }
    if !row.classes.is_empty() {
        words.push(format!("classes: {}", classes(&row.classes)));
    }
    words.extend(elsewhere(row));
    words.join("; ")
}

fn details(text: &mut String, row: &RowDiff, functions: Functions) {
    let name = plain(&row.name).replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(text, "<details><summary>{name}</summary>\n");
    if let Some(others) = other_seeds(row) {
        let (delta, agreeing, all) = (change(row.delta), row.seeds_agreeing, row.seeds.len());
        let _ = writeln!(text, "{delta} at {agreeing} of {all} seeds, {others}.\n");
    }
    let phases: Vec<_> = row.phases.iter().filter(|phase| phase.delta != 0).collect();
    if !phases.is_empty() {
        text.push_str("| phase | a | b | delta |\n|---|--:|--:|--:|\n");
        for phase in phases {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                code(&phase.name),
                thousands(phase.a),
                thousands(phase.b),
                change(phase.delta)
            );
        }
        text.push('\n');
    }
    if !row.functions.is_empty() {
        text.push_str(
            "| function | module | own a | own b | delta | calls a | calls b | |\n\
             |---|---|--:|--:|--:|--:|--:|---|\n",
        );
        let (top, rest) = row.functions.split_at(functions.shown(row.functions.len()));
        for function in top {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                code(&function.name),
                code(&function.module),
                thousands(function.a),
                thousands(function.b),
                change(function.delta),
                thousands(function.calls.0),
                thousands(function.calls.1),
                presence(function.change)
            );
        }
        if !rest.is_empty() {
            let number = thousands(rest.len() as u64);
            let _ = writeln!(
                text,
                "| … and {number} more | | | | {} | | | |",
                change(sum(rest))
            );
        }
        text.push('\n');
    }
    instructions(text, row, functions);
    if !row.classes.is_empty() {
        text.push_str("| class of instructions | a | b | delta |\n|---|--:|--:|--:|\n");
        for class in &row.classes {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                code(class.class),
                thousands(class.a),
                thousands(class.b),
                change(class.delta)
            );
        }
        text.push('\n');
    }
    text.push_str("</details>\n\n");
}

fn instructions(text: &mut String, row: &RowDiff, functions: Functions) {
    if row.instructions.is_empty() {
        return;
    }
    text.push_str("| instruction | module | a | b |\n|---|---|---|---|\n");
    let listed = listed(row, functions);
    let word = |of: &Option<Side>| of.as_ref().map_or_else(none, |of| code(&side(of)));
    for diff in &row.instructions[..listed] {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            code(&place(diff)),
            code(&diff.module),
            word(&diff.a),
            word(&diff.b)
        );
    }
    if let Some(words) = unlisted(row, listed) {
        let _ = writeln!(text, "| {words} | | | |");
    }
    text.push('\n');
}

/// Text that is taken as it is, inside a table too. Nothing stays nothing.
fn code(text: &str) -> String {
    let text = plain(text).replace('`', "'").replace('|', "\\|");
    match text.trim() {
        "" => String::new(),
        text => format!("`{text}`"),
    }
}
