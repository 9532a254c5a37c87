//! Rows by name: which there are, and which a command can take.

use exitpath_exits::kicks::{KICKS, Part, SCALING};
use exitpath_exits::ladder::{ALL_ON_RUNG, PARTS, RUNGS, is_locking};
use exitpath_exits::primitives::{PRIMITIVES, USES};
use exitpath_exits::reasons;
use exitpath_exits::{Row, bare, default_rows, find, making, nearest};

use crate::error::{Error, Result};

type Rows = Vec<&'static Row>;

/// The rows of these names, each once; those of the default table where there are none.
///
/// # Errors
/// [`Error::UnknownRow`].
pub fn choose(names: &[String]) -> Result<Rows> {
    if names.is_empty() {
        return Ok(default_rows().collect());
    }
    let mut rows: Rows = Vec::new();
    for name in names {
        let row = find(name).ok_or_else(|| unknown_anywhere(name))?;
        if !rows.iter().any(|known| known.name == row.name) {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// The rows of these names, all of which an image for another VMM can hold; those that it can where there
/// are none.
///
/// # Errors
/// [`Error::UnknownRow`], [`Error::NotUnderAnotherVmm`].
pub fn choose_for_image(names: &[String]) -> Result<Rows> {
    if names.is_empty() {
        return Ok(bare::rows().collect());
    }
    let rows = choose(names)?;
    for row in &rows {
        if let Some(why) = bare::obstacle(row) {
            return Err(Error::NotUnderAnotherVmm { row: row.name, why });
        }
    }
    Ok(rows)
}

/// The rungs of these names with those that they are compared with, in the ladder's order; all where
/// there are none.
///
/// # Errors
/// [`Error::UnknownRow`].
pub fn choose_rungs(names: &[String]) -> Result<Rows> {
    let mut wanted: Vec<&str> = Vec::new();
    for name in names {
        let rung = RUNGS.iter().find(|rung| rung.name == *name);
        let rung = rung.ok_or_else(|| unknown("rung", name, RUNGS, "userspace --list"))?;
        wanted.push(rung.name);
    }
    if wanted.is_empty() {
        return Ok(RUNGS.iter().collect());
    }
    let mut at = 0;
    while let Some(name) = wanted.get(at) {
        let rung = RUNGS.iter().find(|rung| rung.name == *name);
        if *name == ALL_ON_RUNG {
            // Whether they add up belongs to it.
            wanted.extend(PARTS);
        }
        let other = rung.and_then(compared_with);
        wanted.extend(other.filter(|other| !wanted.contains(other)));
        at += 1;
    }
    Ok(RUNGS
        .iter()
        .filter(|rung| wanted.contains(&rung.name))
        .collect())
}

/// The rung that another is compared with: its reference, or one vCPU with the same lock.
fn compared_with(rung: &Row) -> Option<&'static str> {
    let own = rung.rung?;
    if !is_locking(rung) {
        return own.reference;
    }
    let alone = |other: &&Row| other.vcpus == 1 && other.rung == Some(own);
    RUNGS.iter().find(alone).map(|alone| alone.name)
}

/// The primitives of these names; all where there are none, those that are rows of the table of exits too.
///
/// # Errors
/// [`Error::UnknownRow`].
pub fn choose_primitives(names: &[String]) -> Result<Rows> {
    let all: Rows = USES.iter().filter_map(|used| find(used.row)).collect();
    for name in names {
        if all.iter().all(|row| row.name != *name) {
            return Err(unknown("primitive", name, PRIMITIVES, "primitives --list"));
        }
    }
    let wanted = |row: &&'static Row| names.is_empty() || names.iter().any(|name| row.name == name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// The rows of `exitpath kick` that this is true of.
pub fn kicks(wanted: impl Fn(&Row, exitpath_exits::kicks::Kick) -> bool) -> Rows {
    let wanted = |row: &&Row| row.kick.is_some_and(|kick| wanted(row, kick));
    KICKS.iter().chain(SCALING).filter(wanted).collect()
}

/// All rows of `exitpath kick` but those that are there to go wrong.
pub fn listed_kicks() -> Rows {
    kicks(|_, kick| kick.part != Part::Check)
}

/// Refuses rows of which it is known that there is no path to show.
///
/// # Errors
/// [`Error::NoExit`].
pub fn traceable(rows: &[&'static Row]) -> Result<()> {
    for row in rows {
        if row.exits.1 == 0.0 {
            return Err(Error::NoExit {
                row: row.name,
                operation: row.operation,
            });
        }
    }
    Ok(())
}

/// Whether a row belongs on two CPUs. One vCPU that locks is what several are compared with.
pub(crate) fn on_two_cpus(row: &Row) -> bool {
    row.vcpus > 1 || row.cpus > 1 || is_locking(row)
}

/// What is to be said where more samples are asked for than some rows take in a run.
pub fn limited(rows: &[&Row], asked: Option<u32>) -> Option<String> {
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

/// The error for a name that is none of `among`, with those near it, or with those that make the exit
/// whose reason it is.
fn unknown(what: &str, name: &str, among: &[Row], list: &str) -> Error {
    if let Some(said) = exit_reason(what, name, among, list) {
        return Error::UnknownRow(said);
    }
    let near = match nearest(name, among).as_slice() {
        [] => " and none has a similar name".to_owned(),
        near => format!("; near it: {}", near.join(", ")),
    };
    Error::UnknownRow(format!(
        "no {what} is called '{name}'{near}; `exitpath {list}` names all"
    ))
}

/// The error for a name that is in no table: commands that take rows take those of all tables.
fn unknown_anywhere(name: &str) -> Error {
    let tables = [
        (exitpath_exits::ROWS, "measure --list"),
        (RUNGS, "userspace --list"),
        (KICKS, "kick --list"),
        (SCALING, "kick --list"),
        (PRIMITIVES, "primitives --list"),
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
            failure.to_string()
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
