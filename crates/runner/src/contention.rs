//! Rows in which several vCPUs exit at once: how many exits all of them made, and in what time.

use std::thread;
use std::time::{Duration, Instant};

use exitpath_exits::Row;
use exitpath_exits::layout::word;
use exitpath_recording::counter;
use exitpath_vmm::{Error, Memory};

/// Among the counters: port writes of all vCPUs while the first one made a number of them in a row;
/// of its own as many as it would have made in all of that time, as it also takes the empty loop's.
const ALL_EXITS: &str = counter::PHASE_PORT_WRITES;
/// Among the counters: how long that took by CLOCK_MONOTONIC, in ns; in the lab virtual ones.
const PHASE_NS: &str = counter::PHASE_NS;

/// Port writes that the other vCPUs have counted so far.
fn written(memory: &Memory, row: &Row) -> Vec<u64> {
    let vcpus = 1..u64::from(row.vcpus);
    vcpus
        .map(|vcpu| memory.word(word::WRITES + vcpu * word::WRITES_STEP))
        .collect()
}

/// Waits until each of the other vCPUs has written.
pub(crate) fn wait_for_others(memory: &Memory, row: &Row, limit: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    while let Some(idle) = written(memory, row).iter().position(|&writes| writes == 0) {
        if begun.elapsed() > limit {
            return Err(Error::Unexpected {
                reason: format!("vCPU {} has not begun within {limit:?}", idle + 1),
            });
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The time in which the first vCPU writes in a loop, as the others do.
pub(crate) struct Phase<'a> {
    row: &'a Row,
    written: Vec<u64>,
    begun: Instant,
}

impl<'a> Phase<'a> {
    pub(crate) fn begin(memory: &Memory, row: &'a Row) -> Phase<'a> {
        Phase {
            row,
            written: written(memory, row),
            begun: Instant::now(),
        }
    }

    /// The counters, where the first vCPU has taken `samples` as one short and one long batch of the empty
    /// loop, and of writes, in so many ticks.
    pub(crate) fn end(self, memory: &Memory, samples: u32, ticks: [u64; 4]) -> [(String, i64); 2] {
        let took = self.begun.elapsed();
        let after = written(memory, self.row);
        let all = all_writes(&self.written, &after, samples, ticks);
        let ns = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
        [(ALL_EXITS.to_owned(), all), (PHASE_NS.to_owned(), ns)]
    }
}

/// Writes of all vCPUs in a phase: what the others counted, which may wrap round, and as many of the first
/// one's as it would have made if it had written all the time.
fn all_writes(before: &[u64], after: &[u64], samples: u32, ticks: [u64; 4]) -> i64 {
    let others = std::iter::zip(before, after);
    let others: u128 = others
        .map(|(before, after)| u128::from(after.wrapping_sub(*before)))
        .sum();
    let [empty_short, empty_long, short, long] = ticks.map(u128::from);
    // A long batch has twice the operations of a short one.
    let own = u128::from(samples) * 3;
    let writing = short + long;
    let own = own * (empty_short + empty_long + writing) / writing.max(1);
    i64::try_from(others.saturating_add(own)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_vcpus_writes_are_those_of_the_whole_phase() {
        // It wrote 300 times in 600 of 800 ticks.
        let ticks = [60, 140, 200, 400];
        assert_eq!(all_writes(&[], &[], 100, ticks), 400);
        assert_eq!(all_writes(&[10, 1_000], &[35, 1_100], 100, ticks), 525);
    }

    #[test]
    fn the_others_counts_may_wrap_and_nothing_overflows() {
        assert_eq!(all_writes(&[u64::MAX - 1], &[3], 0, [0; 4]), 5);
        let all = all_writes(&[0, 0], &[u64::MAX, u64::MAX], u32::MAX, [u64::MAX; 4]);
        assert_eq!(all, i64::MAX);
    }
}
