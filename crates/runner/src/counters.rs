//! Readings of KVM's and the thread's counters, and their differences.

use std::collections::BTreeMap;

use exitpath_recording::counter;
use exitpath_vmm::{Error, Stats, Vcpu};

/// All counters at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    values: BTreeMap<String, i64>,
    userspace_exits: u64,
}

/// Reads the counters of a VM from the thread that runs its first vCPU.
pub(crate) struct Counters {
    /// Statistics of the other vCPUs.
    pub(crate) others: Vec<Stats>,
}

impl Counters {
    pub(crate) fn read(&self, first: &Vcpu, secondary_exits: u64) -> Result<Reading, Error> {
        let mut values = BTreeMap::new();
        first.add_counters(&mut values)?;
        for stats in &self.others {
            stats.add_to(&mut values)?;
        }
        for (name, value) in thread_usage() {
            values.insert(name.to_owned(), value);
        }
        Ok(Reading {
            values,
            userspace_exits: first.userspace_exits() + secondary_exits,
        })
    }
}

impl Reading {
    /// What changed since `earlier`: counters, and user space exits.
    pub(crate) fn since(&self, earlier: &Reading) -> (BTreeMap<String, i64>, i64) {
        let changes = self
            .values
            .iter()
            .map(|(name, value)| {
                (
                    name.clone(),
                    value - earlier.values.get(name).copied().unwrap_or(0),
                )
            })
            .collect();
        (
            changes,
            self.userspace_exits as i64 - earlier.userspace_exits as i64,
        )
    }
}

/// Context switches and page faults of the calling thread.
fn thread_usage() -> [(&'static str, i64); 4] {
    // SAFETY: an all-zero rusage is valid, and getrusage fills at most its size.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    [
        (counter::INVOLUNTARY_SWITCHES, usage.ru_nivcsw),
        (counter::VOLUNTARY_SWITCHES, usage.ru_nvcsw),
        (counter::MINOR_FAULTS, usage.ru_minflt),
        (counter::MAJOR_FAULTS, usage.ru_majflt),
    ]
}
