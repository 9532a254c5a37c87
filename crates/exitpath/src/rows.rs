//! Rows of the catalogue by name.

use exitpath_exits::ladder::RUNGS;
use exitpath_exits::{Row, default_rows, find, nearest};

use crate::failure::Failure;

/// One line for each row of the table of exits.
pub(crate) fn list() -> String {
    lines(exitpath_exits::ROWS)
}

/// One line for each of these.
pub(crate) fn lines(rows: &[Row]) -> String {
    let line = |row: &Row| format!("{:<30}{}", row.name, row.operation);
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The error for a name that is none of `among`, with those near it.
pub(crate) fn unknown(what: &str, name: &str, among: &[Row], list: &str) -> Failure {
    let near = match nearest(name, among).as_slice() {
        [] => String::new(),
        near => format!("; near it: {}", near.join(", ")),
    };
    Failure::Usage(format!(
        "no {what} is called '{name}'{near}; `exitpath {list}` names all"
    ))
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
