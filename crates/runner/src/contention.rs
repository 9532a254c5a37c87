//! Rows in which several vCPUs exit at once: how many exits all of them made, and in what time.

use std::thread;
use std::time::{Duration, Instant};

use exitpath_exits::Row;
use exitpath_exits::layout::word;
use exitpath_vmm::{Error, Memory};

/// Among the counters: port writes of all vCPUs while the first one made a number of them in a row;
/// of its own as many as it would have made in all of that time, as it also takes the empty loop's.
const ALL_EXITS: &str = "phase.port_writes";
/// Among the counters: how long that took by CLOCK_MONOTONIC, in ns; in the lab virtual ones.
const PHASE_NS: &str = "phase.ns";

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

    /// The counters, where the first vCPU has made `own` writes in `writing` of `ticks`.
    pub(crate) fn end(
        self,
        memory: &Memory,
        own: u64,
        writing: u64,
        ticks: u64,
    ) -> [(String, i64); 2] {
        let took = self.begun.elapsed();
        let writes: u64 = std::iter::zip(written(memory, self.row), self.written)
            .map(|(after, before)| after.wrapping_sub(before))
            .sum();
        let own = u128::from(own) * u128::from(ticks) / u128::from(writing.max(1));
        let all = u128::from(writes).saturating_add(own);
        [
            (ALL_EXITS.to_owned(), i64::try_from(all).unwrap_or(i64::MAX)),
            (
                PHASE_NS.to_owned(),
                i64::try_from(took.as_nanos()).unwrap_or(i64::MAX),
            ),
        ]
    }
}
