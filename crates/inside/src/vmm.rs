//! Real VMMs in the lab: starts those that a plan names, and tells what they printed.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use exitpath_host::{Root, noise_difference, noise_snapshot_on};
use exitpath_recording::counter;
use exitpath_runner::foreign::{self, Limits};
use exitpath_runner::work::{Printed, Start, VmmJob, VmmReport};
use exitpath_runner::{Steady, image_output};

use crate::error::Error;
use crate::report;

pub(crate) fn run() -> Result<(), Error> {
    let _steady = Steady::new()?;
    let plan: VmmJob = report::plan()?;
    let mut printed = Vec::new();
    for start in &plan.starts {
        report::begun(&start.title)?;
        printed.push(one(start)?);
    }
    let facts = exitpath_host::examine(&Root::default(), None).facts;
    report::write(&VmmReport {
        printed,
        facts,
        kallsyms: plan.names.then(report::kallsyms).transpose()?,
        vdso: plan.names.then(report::vdso).flatten(),
    })
}

/// Starts a VMM and waits for its end, or ends it.
fn one(start: &Start) -> Result<Printed, Error> {
    let before = noise_snapshot_on(&Root::default(), 0);
    let total = Duration::from_secs(start.seconds);
    // The lab's time is not the guest's: only the whole of it is limited.
    let limits = Limits {
        total,
        first: total,
        silence: total,
        text: start.text,
        is_whole: image_output::is_whole,
    };
    let said = foreign::run(&start.argv, &limits, &AtomicBool::new(false))?;
    let after = noise_snapshot_on(&Root::default(), 0);
    Ok(Printed {
        text: said.text,
        errors: said.errors,
        ended: said.ended.map(|ended| ended.to_string()),
        maps: said.maps,
        interrupts: noise_difference(&before, &after).remove(counter::CPU_INTERRUPTS),
    })
}
