//! Rows of the catalogue by name.

use exitpath_exits::{Row, default_rows, find, nearest};

use crate::failure::Failure;

/// One line for each row.
pub(crate) fn list() -> String {
    let line = |row: &Row| format!("{:<30}{}", row.name, row.operation);
    exitpath_exits::ROWS
        .iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rows of these names, each once; all where there are none.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Row>, Failure> {
    if names.is_empty() {
        return Ok(default_rows().collect());
    }
    let mut rows: Vec<&'static Row> = Vec::new();
    for name in names {
        let row = find(name).ok_or_else(|| {
            let near = match nearest(name).as_slice() {
                [] => String::new(),
                near => format!("; near it: {}", near.join(", ")),
            };
            Failure::Usage(format!(
                "no row is called '{name}'{near}; `exitpath measure --list` names all"
            ))
        })?;
        if !rows.iter().any(|known| known.name == row.name) {
            rows.push(row);
        }
    }
    Ok(rows)
}
