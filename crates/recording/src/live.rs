//! Exits of virtual machines that run by themselves, as they were counted in the kernel.

use serde::{Deserialize, Serialize};

/// A part of the time between an exit and the next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// On its CPU, in the kernel.
    Kernel,
    /// In user space.
    Userspace,
    /// Off the CPU of its own will.
    Asleep,
    /// On its CPU, polling before it sleeps.
    Polling,
    /// Off the CPU against its will.
    Preempted,
}

impl Part {
    /// All of them, in the order of [`Exits::parts`].
    pub const ALL: [Part; 5] = [
        Part::Kernel,
        Part::Userspace,
        Part::Asleep,
        Part::Polling,
        Part::Preempted,
    ];

    /// This part of an exit's time, of all in the order of [`Part::ALL`].
    pub fn of(self, parts: &[Durations; 5]) -> &Durations {
        &parts[self as usize]
    }
}

/// How much was kept of each exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Counts and sums; time in user space is among the kernel's.
    Light,
    /// And histograms; time in user space has the system call's way back to the guest.
    Usual,
    /// And time in user space ends with the next KVM_RUN.
    Exact,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// How much was kept.
    pub kept: Kept,
    /// For how long, in seconds.
    pub seconds: f64,
    /// The processes that have virtual machines.
    pub vms: Vec<Vm>,
    /// What is missing.
    pub lost: Lost,
}

/// A process and its virtual machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// The process.
    pub pid: u32,
    /// What it is called, where its command line says so.
    pub name: Option<String>,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
}

/// A vCPU that was entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vcpu {
    /// Its number in its VM.
    pub id: u32,
    /// The thread that entered it first.
    pub tid: u32,
    /// Whether it is no more.
    pub ended: bool,
    /// Its exits, by reason.
    pub exits: Vec<Exits>,
}

/// A vCPU's exits for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exits {
    /// The reason, in the kernel's tracepoints' word; `other`: codes that are not told apart.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// How many of them through user space.
    pub through_userspace: u64,
    /// How many of them have no time: KVM entered again at once, in its inner loop, and notes none; or the guest's TSC is scaled.
    pub untimed: u64,
    /// The parts of their time, in the order of [`Part::ALL`].
    pub parts: [Durations; 5],
}

/// How long something took, all together and by size.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Durations {
    /// The sum, in nanoseconds.
    pub sum_ns: u64,
    /// Buckets that have any, by number, with their counts; [`bounds`] says how long these are. Empty where no histogram was kept.
    pub buckets: Vec<(u32, u32)>,
}

/// What is not among the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lost {
    /// Entries of vCPUs for which there was no room.
    pub vcpus: u64,
    /// vCPUs whose threads' sleep is counted as the kernel's time.
    pub threads: u64,
    /// Exits for whose reason there was no room.
    pub reasons: u64,
    /// Durations for which there was no histogram.
    pub histograms: u64,
    /// Entries before which no exit was seen.
    pub unpaired: u64,
    /// Exits of which nobody knows whether they went to user space: counted as if not.
    pub uncertain: u64,
}

impl Lost {
    /// Each by name, where there is any.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("entries of vCPUs without room", self.vcpus),
            ("vCPUs whose sleep is not seen", self.threads),
            ("exits of reasons without room", self.reasons),
            ("durations without a histogram", self.histograms),
            ("entries without an exit", self.unpaired),
            ("exits that may have gone to user space", self.uncertain),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// The smallest and the largest duration of a bucket, in nanoseconds: below 64 one each, then 32 to each power of two.
pub fn bounds(bucket: u32) -> (u64, u64) {
    let width_bits = (bucket / 32).saturating_sub(1);
    let low = u64::from(bucket - 32 * width_bits) << width_bits;
    (low, low + (1 << width_bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::bounds;

    /// As `exits.bpf.c` finds it.
    fn bucket(ns: u64) -> u32 {
        let up = (64 - ns.leading_zeros()).saturating_sub(6);
        (up << 5) + (ns >> up) as u32
    }

    #[test]
    fn a_duration_is_within_its_buckets_bounds_and_these_are_near() {
        let powers = (12..36).flat_map(|bits| [(1 << bits) - 1, 1 << bits, 3 << (bits - 1)]);
        for ns in (0..5_000).chain(powers) {
            let (low, high) = bounds(bucket(ns));
            assert!((low..=high).contains(&ns), "{ns}: {low} to {high}");
            let middle = (low + high) as f64 / 2.0;
            assert!(
                (middle - ns as f64).abs() <= 0.016 * ns as f64,
                "{ns}: {middle}"
            );
        }
    }
}
