//! Executes a plan: one fresh VM per run, the protocol with its guest, counters, raw samples.
//!
//! The same code runs on a host and inside the lab. Nothing is computed here beyond taking the
//! protocol's own exits off the counters: what comes out is raw, and `analysis` does the rest.

mod calibrate;
mod contention;
mod counters;
mod exception;
pub mod foreign;
mod kicked;
mod marker;
mod order;
mod session;
pub mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use exitpath_exits::ladder::{ALL_ON_RUNG, BARE_RUNG, LOCKED_SAMPLES, PARTS, Rung, is_locking};
use exitpath_exits::{Row, Scratch};
use exitpath_recording::{Bounds, Outcome, RowInfo, Run, RungInfo, RungRole};
use exitpath_vmm::Kvm;
use serde::{Deserialize, Serialize};

pub use calibrate::{Calibration, calibrate};
pub use order::random_order;
pub use session::take_usual_place;

/// How much is measured in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Bracketed samples, unless the row limits itself.
    pub samples: u32,
    /// Iterations before the first sample that counts.
    pub warm_up: u32,
    /// Repetitions of the batch estimator.
    pub batches: u32,
    /// Operations in the shorter batch.
    pub batch_length: u32,
    /// How long a guest may go without finishing an operation.
    pub watchdog: Duration,
    /// CPUs that vCPU threads are bound to, in the order of the vCPUs. Fewer than vCPUs: some
    /// share one, and the run says so. Empty: threads are not bound.
    pub cpus: Vec<usize>,
    /// Whether a vCPU that waits for another must pause to let it run: true where an emulator
    /// runs one CPU at a time.
    pub yielding: bool,
}

/// Where a run stands in its recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Position in the order the runs were made, from 0.
    pub id: u32,
    /// The block of the randomised order.
    pub block: u32,
    /// The lab's seed.
    pub seed: Option<u64>,
    /// CPUs of the machine.
    pub cpus: u32,
}

/// What the recording keeps of a catalogue row.
pub fn row_info(row: &Row) -> RowInfo {
    let bounds = |(min, max)| Bounds { min, max };
    RowInfo {
        name: row.name.to_owned(),
        operation: row.operation.to_owned(),
        reference: matches!(
            row.group,
            exitpath_exits::Group::Reference | exitpath_exits::Group::Check
        ),
        halts: row.halts,
        interrupts: row.interrupts,
        vcpus: u32::from(row.vcpus),
        delay_ticks: row.delay_ticks,
        exits: bounds(row.exits),
        userspace_exits: bounds(row.userspace_exits),
        rung: row.rung.map(|rung| RungInfo {
            layers: rung.layers.names().into_iter().map(str::to_owned).collect(),
            reference: rung.reference.map(str::to_owned),
            role: role(row, rung),
        }),
        kick: kicked::info(row),
    }
}

fn role(row: &Row, rung: Rung) -> RungRole {
    match row.name {
        _ if is_locking(row) => RungRole::Locking(rung.layers.lock.name().to_owned()),
        BARE_RUNG => RungRole::Bare,
        ALL_ON_RUNG => RungRole::AllOn,
        name if PARTS.contains(&name) => RungRole::Part,
        _ if rung.reference == Some(ALL_ON_RUNG) => RungRole::AllBut,
        _ => RungRole::Layer,
    }
}

/// Measures one row in a fresh VM. Whatever goes wrong with the guest is the run's outcome.
///
/// # Errors
/// Where KVM itself refuses what every row needs.
pub fn run_row(
    kvm: &Kvm,
    row: &'static Row,
    settings: &Settings,
    place: &Place,
) -> Result<Run, exitpath_vmm::Error> {
    let mut run = Run {
        id: place.id,
        row: row.name.to_owned(),
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
    };
    if let Some(reason) = row.needs.iter().find_map(|&need| kvm.lacks(need)) {
        run.outcome = Outcome::Skipped { reason };
        return Ok(run);
    }
    let cpus = match settings.cpus.len() {
        0 => exitpath_vmm::kick::allowed_cpus()?.len(),
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

/// Address of a function that every run executes once, before it counts anything. The program is
/// linked to its address, so that it is the same in the lab.
pub fn ready_address() -> u64 {
    marker::arm as *const () as u64
}

/// Samples a run of this row takes.
pub fn samples_of(row: &Row, settings: &Settings) -> u32 {
    let room = exitpath_exits::layout::RESULTS_SIZE / 16;
    let times = if is_locking(row) { LOCKED_SAMPLES } else { 1 };
    let wanted = settings.samples.saturating_mul(times);
    wanted.min(row.max_samples).min(room as u32)
}

/// Repetitions and length of this row's batches, limited by the pages a row uses up.
fn batches_of(row: &Row, settings: &Settings) -> (u32, u32) {
    if is_locking(row) {
        // A batch is what several vCPUs make of it, not so many times an operation.
        return (0, 0);
    }
    let room = (exitpath_exits::layout::RESULTS_SIZE / 32) as u32;
    if row.consumer.is_some() || row.kick.is_some_and(|kick| !kick.has_batches()) {
        return (0, 0);
    }
    match row.scratch {
        Scratch::Unused => (settings.batches.min(room), settings.batch_length),
        // One repetition per phase, so that every operation has a page of its own.
        Scratch::Unmap | Scratch::Clean => (1, settings.batch_length.min(row.max_samples / 3)),
    }
}
