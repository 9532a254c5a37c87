//! What was counted, less what the protocol itself adds; results as the guest leaves them, as samples.
//!
//! A phase ends with a write to the control port, an exit of each kind. The other exits that are not the
//! operation's are those of the brackets without it, which baselines are run to count.

use std::collections::BTreeMap;

use exitpath_recording::{Batch, Sample, counter};

/// Baselines run to learn what they add to the counters.
pub(super) const BASELINES_COUNTED: u64 = 64;
/// Counters that are recorded even where nothing happened: their zero is a finding.
const KEPT_AT_ZERO: [&str; 5] = [
    counter::EXITS,
    counter::IO_EXITS,
    counter::MMIO_EXITS,
    counter::HOST_STATE_RELOAD,
    counter::THREAD_CHANGES,
];

/// What the protocol itself adds to the counts of a phase.
pub(super) struct Own {
    /// What was counted while [`BASELINES_COUNTED`] brackets without the operation were run.
    pub(super) baseline: BTreeMap<String, i64>,
    /// User space exits meanwhile.
    pub(super) baseline_userspace: i64,
    /// Samples of the phase.
    pub(super) samples: u32,
    /// vCPUs of the row.
    pub(super) vcpus: u8,
}

impl Own {
    /// Exits of the phase that are not the operation's, where the baselines made `total`, `external` of
    /// them for interrupts.
    ///
    /// What a bracket makes without the operation is a whole number, or chance, which would be multiplied
    /// here. Each sample has two brackets.
    fn exits(&self, total: i64, external: i64) -> i64 {
        if self.vcpus > 1 {
            // What another vCPU does goes by time, not by brackets, and no bracket of such a row exits without
            // its operation.
            return 1;
        }
        let per_baseline = (total - external - 1) as f64 / BASELINES_COUNTED as f64;
        1 + per_baseline.round() as i64 * 2 * i64::from(self.samples)
    }

    /// Leaves of what was counted during the phase what the operations made, and of that what is worth recording. Gives their
    /// share of the user space exits.
    ///
    /// # Errors
    /// As [`Own::userspace_exits_beyond`].
    pub(super) fn take_off(
        &self,
        counters: &mut BTreeMap<String, i64>,
        userspace_exits: i64,
    ) -> Result<u64, String> {
        self.take_off_counters(counters);
        counters.retain(|name, value| *value != 0 || KEPT_AT_ZERO.contains(&name.as_str()));
        self.userspace_exits_beyond(userspace_exits)
    }

    fn take_off_counters(&self, counters: &mut BTreeMap<String, i64>) {
        let external = self.baseline.get(counter::IRQ_EXITS).copied().unwrap_or(0);
        for (name, external) in [(counter::EXITS, external), (counter::IO_EXITS, 0)] {
            if let (Some(value), Some(&base)) = (counters.get_mut(name), self.baseline.get(name)) {
                *value -= self.exits(base, external);
            }
        }
        // Each control write loads the host's state once as well, and the baseline has one. So it is with
        // the thread that calls KVM_RUN for it.
        for name in [counter::HOST_STATE_RELOAD, counter::THREAD_CHANGES] {
            if let (1, Some(value)) = (self.vcpus, counters.get_mut(name)) {
                *value -= self.baseline.get(name).copied().unwrap_or(0);
            }
        }
    }

    /// The operations' share of the user space exits of the phase.
    ///
    /// # Errors
    /// Where there were fewer than the protocol itself makes, in words: then one of the two counts is wrong, and
    /// nobody knows what the operations made.
    fn userspace_exits_beyond(&self, counted: i64) -> Result<u64, String> {
        let own = self.exits(self.baseline_userspace, 0);
        u64::try_from(counted - own).map_err(|_| {
            format!(
                "KVM_RUN returned {counted} times in a phase in which the protocol alone makes it return {own} \
                 times, by what {BASELINES_COUNTED} brackets without the operation made ({}): user space \
                 exits were miscounted",
                self.baseline_userspace
            )
        })
    }
}

/// Pages that the results of the largest phase take.
pub(super) fn result_pages(samples: u32, batches: u32) -> u32 {
    // Two words a sample, four a repetition.
    samples.div_ceil(256).max(batches.div_ceil(128))
}

/// Results of a phase of pairs.
pub(super) fn samples(results: &[u64]) -> Vec<Sample> {
    let pairs = results.chunks_exact(2);
    pairs
        .map(|pair| Sample {
            empty: pair[0],
            op: pair[1],
        })
        .collect()
}

/// Results of a phase of batches of `n` and of twice as many.
pub(super) fn batches(results: &[u64], n: u32) -> impl Iterator<Item = Batch> {
    results.chunks_exact(4).map(move |times| Batch {
        n: u64::from(n),
        empty_n: times[0],
        empty_2n: times[1],
        op_n: times[2],
        op_2n: times[3],
    })
}

#[cfg(test)]
mod tests {
    use exitpath_exits::layout::RESULTS_SIZE;

    use super::*;

    fn counters(of: &[(&str, i64)]) -> BTreeMap<String, i64> {
        of.iter().map(|&(name, n)| (name.to_owned(), n)).collect()
    }

    /// The protocol's own of 100 samples, where each bracket without the operation makes so many exits,
    /// of them so many in user space, and this many interrupts came while that was counted.
    fn own(exits: i64, userspace: i64, interrupts: i64) -> Own {
        Own {
            baseline: counters(&[
                ("exits", 1 + 64 * exits + interrupts),
                ("io_exits", 1 + 64 * userspace),
                ("irq_exits", interrupts),
                ("host_state_reload", 1),
            ]),
            baseline_userspace: 1 + 64 * userspace,
            samples: 100,
            vcpus: 1,
        }
    }

    #[test]
    fn what_is_left_are_the_operations_exits() {
        for (in_bracket, in_operation, interrupts) in [(0, 1, 0), (0, 0, 0), (3, 1, 0), (1, 2, 17)]
        {
            let own = own(in_bracket, 0, interrupts);
            // Of 100 samples, each with two brackets and one operation, and the write that ends the phase.
            let mut counted = counters(&[
                ("exits", 1 + 200 * in_bracket + 100 * in_operation),
                ("io_exits", 1),
                ("host_state_reload", 1),
                ("irq_exits", 5),
            ]);
            own.take_off_counters(&mut counted);
            assert_eq!(counted["exits"], 100 * in_operation);
            assert_eq!((counted["io_exits"], counted["host_state_reload"]), (0, 0));
            assert_eq!(counted["irq_exits"], 5, "nobody's but the machine's");
        }
    }

    #[test]
    fn chance_in_the_baselines_is_not_multiplied() {
        // Thirty stray exits in 64 brackets are none in each; forty are not known to be none.
        let mut own = own(0, 0, 0);
        own.baseline = counters(&[("exits", 31)]);
        let mut counted = counters(&[("exits", 101)]);
        own.take_off_counters(&mut counted);
        assert_eq!(counted["exits"], 100);
    }

    #[test]
    fn what_the_kernel_does_not_count_stays_uncounted() {
        let mut own = own(0, 0, 0);
        own.baseline.clear();
        let mut counted = counters(&[("halt_wait_ns", 12)]);
        own.take_off_counters(&mut counted);
        assert_eq!(counted, counters(&[("halt_wait_ns", 12)]));
    }

    #[test]
    fn other_vcpus_exits_go_by_time_and_only_the_last_write_comes_off() {
        let mut own = own(5, 5, 0);
        own.vcpus = 2;
        let mut counted = counters(&[("exits", 301), ("host_state_reload", 7)]);
        own.take_off_counters(&mut counted);
        assert_eq!(
            counted,
            counters(&[("exits", 300), ("host_state_reload", 7)])
        );
        assert_eq!(own.userspace_exits_beyond(101), Ok(100));
    }

    #[test]
    fn fewer_user_space_exits_than_the_protocols_own_are_no_zero() {
        let own = own(0, 0, 0);
        assert_eq!(own.userspace_exits_beyond(101), Ok(100));
        assert_eq!(own.userspace_exits_beyond(1), Ok(0));
        let why = own.userspace_exits_beyond(0).expect_err("a miscount");
        assert!(
            why.contains("returned 0 times") && why.contains("miscounted"),
            "{why}"
        );
        // A baseline that made one exit too many in each bracket would hide 200 of the operations'.
        let too_many = super::tests::own(0, 1, 0).userspace_exits_beyond(101);
        assert!(too_many.is_err(), "{too_many:?}");
    }

    #[test]
    fn results_are_read_as_they_were_stored() {
        let read = samples(&[7, 100, 8, 101]);
        let pairs: Vec<(u64, u64)> = read.iter().map(|s| (s.empty, s.op)).collect();
        assert_eq!(pairs, [(7, 100), (8, 101)]);
        let read: Vec<Batch> = batches(&[1, 2, 3, 4, 5, 6, 7, 8], 9).collect();
        assert_eq!(read.len(), 2);
        let Batch {
            n,
            empty_n,
            empty_2n,
            op_n,
            op_2n,
        } = read[1];
        assert_eq!([n, empty_n, empty_2n, op_n, op_2n], [9, 5, 6, 7, 8]);
    }

    #[test]
    fn every_page_of_results_is_touched_before_it_counts() {
        for (samples, batches) in [(1, 0), (256, 0), (257, 1), (20, 129), (4096, 40), (0, 1)] {
            let bytes = u64::from(samples * 16).max(u64::from(batches * 32));
            let pages = u64::from(result_pages(samples, batches));
            assert!(
                pages * 4096 >= bytes && (pages - 1) * 4096 < bytes,
                "{samples} {batches}"
            );
        }
        let most = (RESULTS_SIZE / 16) as u32;
        assert_eq!(u64::from(result_pages(most, most / 2)) * 4096, RESULTS_SIZE);
    }
}
