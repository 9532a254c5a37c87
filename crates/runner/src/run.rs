//! One row in a fresh VM, where this machine can do it.

use std::collections::BTreeMap;

use exitpath_exits::Row;
use exitpath_recording::{Condition, Outcome, Run};
use exitpath_vmm::{Kvm, kick};

use crate::error::Result;
use crate::session;
use crate::settings::{Place, Settings};

/// Measures one row in a fresh VM. Whatever goes wrong with the guest is the run's outcome.
///
/// # Errors
/// Where KVM itself refuses what every row needs.
pub fn run_row(kvm: &Kvm, row: &'static Row, settings: &Settings, place: &Place) -> Result<Run> {
    let mut run = empty(row, place);
    if let Some(reason) = row.needs.iter().find_map(|&need| kvm.lacks(need)) {
        run.outcome = Outcome::Skipped { reason };
        return Ok(run);
    }
    let cpus = match settings.cpus.len() {
        0 => kick::allowed_cpus()?.len(),
        bound => bound,
    };
    if usize::from(row.cpus) > cpus {
        run.outcome = Outcome::Skipped {
            reason: format!("it needs {} CPUs, and there is {cpus} to run on", row.cpus),
        };
        return Ok(run);
    }
    if row.vcpus > 1 && settings.cpus.len() < usize::from(row.vcpus) && !settings.cpus.is_empty() {
        run.notes.push(format!(
            "{} vCPUs on {} CPU: includes scheduling",
            row.vcpus,
            settings.cpus.len()
        ));
    }
    session::run(kvm, row, settings, &mut run)?;
    Ok(run)
}

/// Samples of a row in so many steps, all in one VM, with the kernel's code changed from outside meanwhile: a run of each. Whatever
/// goes wrong in a step is its run's outcome, and the next one has a VM of its own. `begun` is told each step's number.
///
/// # Errors
/// Where KVM refuses what every row needs, and something goes wrong between two steps.
pub fn run_steps(
    kvm: &Kvm,
    row: &'static Row,
    settings: &Settings,
    place: &Place,
    steps: u32,
    begun: impl Fn(u32) + Clone + Send + 'static,
) -> Result<Vec<Run>> {
    Ok(session::steps::run(
        kvm,
        row,
        settings,
        &empty(row, place),
        steps,
        begun,
    )?)
}

/// A run of a row in which nothing has been measured yet.
fn empty(row: &Row, place: &Place) -> Run {
    Run {
        id: place.id,
        row: row.name.to_owned(),
        condition: Condition::BASE.to_owned(),
        block: place.block,
        seed: place.seed,
        cpus: place.cpus,
        outcome: Outcome::Done,
        notes: Vec::new(),
        ops: 0,
        userspace_exits: 0,
        counters: BTreeMap::new(),
        samples: Vec::new(),
        batches: Vec::new(),
    }
}
