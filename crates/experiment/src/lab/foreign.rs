//! What another VMM's guest said in the lab, as runs.

use exitpath_exits::{Need, Row};
use exitpath_recording::{Run, counter};
use exitpath_runner::work::Printed;
use exitpath_runner::{foreign, image_output};

use crate::error::{Error, Result};
use crate::vmm::NOT_COUNTED;

/// Ticks of the lab's clock (instructions) between two of its timer's interrupts, at Linux's
/// highest rate of 1000 Hz.
const SHORTEST_TICK: u64 = 1_000_000;

/// Rows in the order in which one VM runs them: those about the x2APIC last. From its mode the guest
/// comes back by switching its APIC off, and for a second thereafter KVM looks on each exit whether
/// the APIC is on: four instructions.
pub(super) fn in_order(rows: &[&'static Row]) -> Vec<&'static Row> {
    let mut order = rows.to_vec();
    order.sort_by_key(|row| row.needs.contains(&Need::X2apic));
    order
}

/// No more interrupts than this can have hit a run's samples: the lab's timer ticks by its clock,
/// and one or two come by chance. What was counted is of the VMM's whole life.
fn most_interrupts(run: &Run) -> i64 {
    let ticks: u64 = run
        .samples
        .iter()
        .map(|sample| sample.empty + sample.op)
        .sum();
    i64::try_from(ticks / SHORTEST_TICK + 2).unwrap_or(i64::MAX)
}

/// How the VMM ended where that was not by itself, and the last it complained of; a message's end.
pub(super) fn how_it_ended(printed: &Printed) -> String {
    foreign::how_it_ended(printed.ended.as_deref(), &printed.errors)
}

/// What the image said, as the runs of these rows. Where it did not say all, the row in the
/// midst of which it ended hung, and of those behind it that is told.
///
/// # Errors
/// Where it said nothing, or what it never should.
pub(super) fn runs(printed: &Printed, rows: &[&'static Row]) -> Result<Vec<Run>> {
    let how = how_it_ended(printed);
    let told = image_output::so_far(&printed.text, rows).map_err(|what| Error::Told {
        what: what.to_string(),
        how: how.clone(),
    })?;
    let mut runs = told.runs;
    for run in &mut runs {
        run.notes.push(NOT_COUNTED.to_owned());
        let interrupts = printed.interrupts.map(|number| {
            let number = number.min(most_interrupts(run));
            (counter::CPU_INTERRUPTS.to_owned(), number)
        });
        run.counters.extend(interrupts);
    }
    for row in &rows[runs.len()..] {
        let what = if told.midst == Some(row.name) {
            "the VMM told no more of it"
        } else {
            "the VMM ended before it began"
        };
        runs.push(image_output::hung(
            runs.len() as u32,
            row.name,
            format!("{what}{how}"),
        ));
    }
    Ok(runs)
}
