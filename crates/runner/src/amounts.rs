//! How much a run takes of a row: what is asked for, as far as the row and its guest's memory allow it.

use exitpath_exits::ladder::{LOCKED_SAMPLES, is_locking};
use exitpath_exits::layout::RESULTS_SIZE;
use exitpath_exits::{Row, Scratch};

use crate::kicked;
use crate::settings::Settings;

/// Samples a run of this row takes.
pub fn samples_of(row: &Row, settings: &Settings) -> u32 {
    let room = RESULTS_SIZE / 16;
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
pub(crate) fn batches_of(row: &Row, settings: &Settings) -> (u32, u32) {
    if is_locking(row) {
        // A batch is what several vCPUs make of it, not so many times an operation.
        return (0, 0);
    }
    if row.vcpus > 1 && row.halts {
        // What it costs to wake a vCPU goes by how long it has slept, and in a batch that is another time
        // than between brackets.
        return (0, 0);
    }
    let room = (RESULTS_SIZE / 32) as u32;
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
    use std::time::Duration;

    use exitpath_exits::catalogue::all;
    use exitpath_exits::find;

    use super::*;

    fn settings(samples: u32, batches: u32) -> Settings {
        Settings {
            samples,
            warm_up: 0,
            batches,
            batch_length: 64,
            watchdog: Duration::from_secs(2),
            cpus: Vec::new(),
            machine: Default::default(),
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
}
