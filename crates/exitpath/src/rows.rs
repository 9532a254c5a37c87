//! Rows of the catalogue by name.

use exitpath_exits::ladder::RUNGS;
use exitpath_exits::reasons::{self, Reasons};
use exitpath_exits::{Row, default_rows, find, making, nearest};

use crate::failure::Failure;

/// One line for each row of the table of exits.
pub(crate) fn list() -> String {
    lines(exitpath_exits::ROWS)
}

/// One line for each of these: what one operation is, and why the guest exits on SVM and on VMX.
pub(crate) fn lines(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let Reasons {
            svm,
            vmx,
            virtual_apic,
        } = row.reasons;
        let mut line = format!("{:<30}{}", row.name, row.operation);
        if !svm.is_empty() {
            line.push_str(&format!(
                "  [SVM: {}; VMX: {}",
                svm.join(" "),
                vmx.join(" ")
            ));
            if !virtual_apic.is_empty() {
                line.push_str(&format!("; virtual APIC: {}", virtual_apic.join(" ")));
            }
            line.push(']');
        }
        line
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The error for a name that is none of `among`, with those near it, or with those that make the exit
/// whose reason it is.
pub(crate) fn unknown(what: &str, name: &str, among: &[Row], list: &str) -> Failure {
    if let Some(said) = exit_reason(what, name, among, list) {
        return Failure::Usage(said);
    }
    let near = match nearest(name, among).as_slice() {
        [] => String::new(),
        near => format!("; near it: {}", near.join(", ")),
    };
    Failure::Usage(format!(
        "no {what} is called '{name}'{near}; `exitpath {list}` names all"
    ))
}

/// What to say where a name is an exit reason, in whichever spelling.
fn exit_reason(what: &str, name: &str, among: &[Row], list: &str) -> Option<String> {
    let reasons = reasons::named(name);
    if reasons.is_empty() {
        return None;
    }
    let which: Vec<String> = reasons
        .iter()
        .map(|reason| format!("{} on {}", reason.constant, reason.vendor.name()))
        .collect();
    let which = which.join(" and ");
    let (here, elsewhere): (Vec<&Row>, Vec<&Row>) = making(&reasons)
        .into_iter()
        .partition(|row| among.iter().any(|other| other.name == row.name));
    let names = |rows: &[&Row]| {
        rows.iter()
            .map(|row| row.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let said = format!("no {what} is called '{name}'; it is an exit reason ({which})");
    Some(match (here.as_slice(), elsewhere.as_slice()) {
        ([], []) => format!("{said} that no {what} makes; `exitpath {list}` names all"),
        ([], rows) => format!(
            "{said} that no {what} makes, but rows that `exitpath measure` takes: {}",
            names(rows)
        ),
        (rows, _) => format!("{said} of: {}; name one of these", names(rows)),
    })
}

/// The rows of these names, each once; all where there are none.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Row>, Failure> {
    if names.is_empty() {
        return Ok(default_rows().collect());
    }
    let mut rows: Vec<&'static Row> = Vec::new();
    for name in names {
        let row = find(name).ok_or_else(|| {
            // `find` knows all of them.
            let near_a_rung = nearest(name, exitpath_exits::ROWS).is_empty();
            match near_a_rung && !nearest(name, RUNGS).is_empty() {
                true => unknown("row", name, RUNGS, "userspace --list"),
                false => unknown("row", name, exitpath_exits::ROWS, "measure --list"),
            }
        })?;
        if !rows.iter().any(|known| known.name == row.name) {
            rows.push(row);
        }
    }
    Ok(rows)
}
