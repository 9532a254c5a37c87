//! Executes a plan: one fresh VM per run, the protocol with its guest, counters, raw samples.
//!
//! The same code runs on a host and inside the lab. Nothing is computed here beyond taking the
//! protocol's own exits off the counters: what comes out is raw, and `analysis` does the rest.

mod arch;
mod calibrate;
mod contention;
mod counters;
mod error;
mod exception;
pub mod foreign;
pub mod image_output;
mod kicked;
mod order;
mod session;
pub mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use exitpath_exits::ladder::{ALL_ON_RUNG, BARE_RUNG, LOCKED_SAMPLES, PARTS, Rung, is_locking};
use exitpath_exits::{Row, Scratch};
use exitpath_recording::{Bounds, Outcome, RowInfo, Run, RungInfo, RungRole};
use exitpath_vmm::Kvm;
use serde::{Deserialize, Serialize};

pub use calibrate::{Calibration, calibrate};
pub use error::{Error, Result};
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

/// What the recording keeps of a catalogue row, of guests on a CPU of AMD or Hygon (`amd`) or on another.
pub fn row_info(row: &Row, amd: bool) -> RowInfo {
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
        exits: bounds(row.exits_on(amd)),
        userspace_exits: bounds(row.userspace_exits),
        parameters: row
            .parameters()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
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
pub fn run_row(kvm: &Kvm, row: &'static Row, settings: &Settings, place: &Place) -> Result<Run> {
    let mut run = Run {
        id: place.id,
        row: row.name.to_owned(),
        condition: exitpath_recording::Condition::BASE.to_owned(),
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

/// Samples a run of this row takes.
pub fn samples_of(row: &Row, settings: &Settings) -> u32 {
    let room = exitpath_exits::layout::RESULTS_SIZE / 16;
    let times = if is_locking(row) { LOCKED_SAMPLES } else { 1 };
    let wanted = settings.samples.saturating_mul(times);
    wanted.min(row.max_samples).min(room as u32)
}

/// Repetitions of batches of a rung that waits.
const WAITING_BATCHES: u32 = 2;

/// Whether each exit of a rung waits so long that few of them make a run.
fn waits(row: &Row) -> bool {
    row.rung.is_some() && row.max_samples < u32::MAX
}

/// Iterations before the first sample that counts, for this row.
pub(crate) fn warm_up_of(row: &Row, settings: &Settings) -> u32 {
    let most = if waits(row) {
        row.max_samples
    } else {
        u32::MAX
    };
    kicked::warm_up(row, settings).min(most)
}

/// Repetitions and length of this row's batches, limited by the pages a row uses up.
fn batches_of(row: &Row, settings: &Settings) -> (u32, u32) {
    if is_locking(row) {
        // A batch is what several vCPUs make of it, not so many times an operation.
        return (0, 0);
    }
    if row.vcpus > 1 && row.halts {
        // What it costs to wake a vCPU goes by how long it has slept, and in a batch that is another time
        // than between brackets.
        return (0, 0);
    }
    let room = (exitpath_exits::layout::RESULTS_SIZE / 32) as u32;
    if row.consumer.is_some() || row.kick.is_some_and(|kick| !kick.has_batches()) {
        return (0, 0);
    }
    match row.scratch {
        Scratch::Unused if waits(row) => (
            settings.batches.min(WAITING_BATCHES),
            settings.batch_length.min(row.max_samples / 3),
        ),
        Scratch::Unused => (settings.batches.min(room), settings.batch_length),
        // One repetition per phase, so that every operation has a page of its own.
        Scratch::Unmap | Scratch::Clean => (1, settings.batch_length.min(row.max_samples / 3)),
    }
}

#[cfg(test)]
mod tests {
    use exitpath_exits::catalogue::all;
    use exitpath_exits::find;
    use exitpath_exits::layout::RESULTS_SIZE;

    use super::*;

    fn settings(samples: u32, batches: u32) -> Settings {
        Settings {
            samples,
            warm_up: 0,
            batches,
            batch_length: 64,
            watchdog: Duration::from_secs(2),
            cpus: Vec::new(),
            yielding: false,
        }
    }

    fn row(name: &str) -> &'static Row {
        find(name).expect("a row")
    }

    #[test]
    fn no_run_has_more_results_than_there_is_room_for() {
        for wanted in [1, 250, 100_000, u32::MAX] {
            let settings = settings(wanted, wanted);
            for row in all() {
                let samples = samples_of(row, &settings);
                assert!(samples >= 1 && samples <= row.max_samples, "{}", row.name);
                assert!(u64::from(samples) * 16 <= RESULTS_SIZE, "{}", row.name);
                let (batches, length) = batches_of(row, &settings);
                assert!(u64::from(batches) * 32 <= RESULTS_SIZE, "{}", row.name);
                // A repetition takes a page for each operation of a short batch and a long one.
                if row.scratch != Scratch::Unused {
                    assert!(
                        batches <= 1 && 3 * length <= row.max_samples,
                        "{}",
                        row.name
                    );
                }
            }
        }
        assert_eq!(samples_of(row("cpuid"), &settings(250, 0)), 250);
        assert_eq!(samples_of(row("ipi"), &settings(250, 0)), 100);
    }

    #[test]
    fn what_cannot_be_batched_is_not() {
        let settings = settings(250, 20);
        for name in ["cpuid", "ipi", "hlt_pending"] {
            assert_eq!(batches_of(row(name), &settings), (20, 64), "{name}");
        }
        for name in ["locking_global_2", "preempted", "ipi_halt"] {
            assert_eq!(batches_of(row(name), &settings), (0, 0), "{name}");
        }
        let has_consumer = all().filter(|row| row.consumer.is_some());
        for row in has_consumer {
            assert_eq!(batches_of(row, &settings), (0, 0), "{}", row.name);
        }
    }

    #[test]
    fn an_exit_that_a_vendors_cpus_must_make_is_expected_there() {
        let least = |name, amd| row_info(row(name), amd).exits.min;
        for name in ["wbinvd", "toggle_cr0_wp", "toggle_cr4_pge"] {
            assert_eq!(
                (least(name, false), least(name, true)),
                (0.0, 1.0),
                "{name}"
            );
        }
        for name in ["xsetbv", "invd", "wr_tsc_adjust_msr", "rd_tsc_adjust_msr"] {
            assert_eq!(
                (least(name, false), least(name, true)),
                (1.0, 1.0),
                "{name}"
            );
        }
        for name in ["mov_dr", "mov_from_cr8", "rdtsc", "wr_kernel_gs_base"] {
            assert_eq!(
                (least(name, false), least(name, true)),
                (0.0, 0.0),
                "{name}"
            );
        }
        // The narrower bounds are never wider.
        for row in all() {
            let (any, amd) = (row.exits_on(false), row.exits_on(true));
            assert!(any.0 <= amd.0 && amd.1 <= any.1, "{}", row.name);
        }
    }

    #[test]
    fn a_rungs_part_in_the_sum_is_told_by_its_name_and_reference() {
        let role = |name: &str| row_info(row(name), true).rung.expect("a rung").role;
        assert_eq!(role(BARE_RUNG), RungRole::Bare);
        assert_eq!(role(ALL_ON_RUNG), RungRole::AllOn);
        for part in PARTS {
            assert_eq!(role(part), RungRole::Part, "{part}");
        }
        assert_eq!(role("all_but_mirror"), RungRole::AllBut);
        assert_eq!(role("syscall"), RungRole::Layer);
        assert_eq!(
            role("locking_global_2"),
            RungRole::Locking("global".to_owned())
        );
        assert!(row_info(row("cpuid"), true).rung.is_none());
    }
}
