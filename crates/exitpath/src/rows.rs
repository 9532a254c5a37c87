//! Rows of the catalogue by name.

use exitpath_exits::kicks::{KICKS, SCALING};
use exitpath_exits::ladder::RUNGS;
use exitpath_exits::{Row, default_rows, find, nearest};

use crate::failure::Failure;

/// One line for each row of the table of exits.
pub(crate) fn list() -> String {
    lines(exitpath_exits::ROWS)
}

/// One line for each of these.
pub(crate) fn lines<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
    let line = |row: &Row| format!("{:<30}{}", row.name, row.operation);
    rows.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The error for a name that is none of `among`, with those near it.
pub(crate) fn unknown(what: &str, name: &str, among: &[Row], list: &str) -> Failure {
    let near = match nearest(name, among).as_slice() {
        [] => " and none has a similar name".to_owned(),
        near => format!("; near it: {}", near.join(", ")),
    };
    Failure::Usage(format!(
        "no {what} is called '{name}'{near}; `exitpath {list}` names all"
    ))
}

/// The error for a name that is in no table: commands that take rows take those of all tables.
fn unknown_anywhere(name: &str) -> Failure {
    let tables = [
        (exitpath_exits::ROWS, "measure --list"),
        (RUNGS, "userspace --list"),
        (KICKS, "kick --list"),
        (SCALING, "kick --list"),
    ];
    let near = tables
        .iter()
        .find(|(rows, _)| !nearest(name, rows).is_empty());
    let (rows, list) = near.unwrap_or(&tables[0]);
    unknown("row", name, rows, list)
}

/// The rows of these names, each once; all where there are none.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Row>, Failure> {
    if names.is_empty() {
        return Ok(default_rows().collect());
    }
    let mut rows: Vec<&'static Row> = Vec::new();
    for name in names {
        let row = find(name).ok_or_else(|| unknown_anywhere(name))?;
        if !rows.iter().any(|known| known.name == row.name) {
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_near_one_that_is_not_there_are_of_any_table() {
        let said = |name: &str| {
            let failure = choose(&[name.to_owned()]).expect_err("there is none");
            failure.message()
        };
        for (name, near, list) in [
            ("cpiud", "cpuid", "measure --list"),
            ("signal_mas", "signal_mask", "userspace --list"),
            ("ioeventfds_pio_51", "ioeventfds_pio_512", "kick --list"),
        ] {
            let said = said(name);
            assert!(said.contains(near) && said.contains(list), "{said}");
        }
        let said = said("nosuch");
        assert!(said.contains("none has a similar name"), "{said}");
        assert!(said.contains("measure --list"), "{said}");
    }
}
