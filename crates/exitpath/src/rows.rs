//! Rows of the catalogue by name.

use exitpath_exits::kicks::{KICKS, SCALING};
use exitpath_exits::ladder::RUNGS;
use exitpath_exits::reasons::{self, Reasons};
use exitpath_exits::{Row, default_rows, find, making, nearest};

use crate::failure::Failure;

/// One line for each row of the table of exits.
pub(crate) fn list() -> String {
    lines(exitpath_exits::ROWS)
}

/// One line for each of these: what one operation is, and why the guest exits on SVM and on VMX.
pub(crate) fn lines<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
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
    rows.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The error for a name that is none of `among`, with those near it, or with those that make the exit
/// whose reason it is.
pub(crate) fn unknown(what: &str, name: &str, among: &[Row], list: &str) -> Failure {
    if let Some(said) = exit_reason(what, name, among, list) {
        return Failure::Usage(said);
    }
    let near = match nearest(name, among).as_slice() {
        [] => " and none has a similar name".to_owned(),
        near => format!("; near it: {}", near.join(", ")),
    };
    Failure::Usage(format!(
        "no {what} is called '{name}'{near}; `exitpath {list}` names all"
    ))
}

/// What is to be said where more samples are asked for than some rows take in a run.
pub(crate) fn limited(rows: &[&Row], asked: Option<u32>) -> Option<String> {
    let asked = asked?;
    let fewer = rows.iter().filter(|row| row.max_samples < asked);
    let fewer: Vec<String> = fewer
        .map(|row| format!("{} {}", row.name, row.max_samples))
        .collect();
    (!fewer.is_empty()).then(|| {
        let fewer = fewer.join(", ");
        format!("--samples {asked} is more than these rows take in a run, which take: {fewer}")
    })
}

/// The error for a name that is in no table: commands that take rows take those of all tables.
fn unknown_anywhere(name: &str) -> Failure {
    let tables = [
        (exitpath_exits::ROWS, "measure --list"),
        (RUNGS, "userspace --list"),
        (KICKS, "kick --list"),
        (SCALING, "kick --list"),
    ];
    // An exit reason is told by the rows of the table of exits, whatever else its word resembles.
    let is_reason = !reasons::named(name).is_empty();
    let mut others = tables.iter().filter(|_| !is_reason);
    let near = others.find(|(rows, _)| !nearest(name, rows).is_empty());
    let (rows, list) = near.unwrap_or(&tables[0]);
    unknown("row", name, rows, list)
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
    fn rows_that_take_fewer_samples_than_asked_are_named() {
        let rows: Vec<&Row> = ["cpuid", "ipi"].into_iter().filter_map(find).collect();
        let most = rows[1].max_samples;
        assert!(most < rows[0].max_samples);
        assert_eq!(limited(&rows, None), None);
        assert_eq!(limited(&rows, Some(most)), None);
        let said = limited(&rows, Some(most + 1)).expect("ipi takes fewer");
        assert!(
            said.contains(&format!("ipi {most}")) && !said.contains("cpuid"),
            "{said}"
        );
    }

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
