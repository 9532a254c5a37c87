//! Exits of live virtual machines: quantiles of their parts, and which reasons take most.

use std::collections::BTreeMap;

use exitpath_recording::live::{Durations, Live, Part, Vm, bounds};

/// The duration at or below which this share of all lies, in nanoseconds, by their histogram: at most 1/64 off. `None` where there is none.
pub fn quantile(durations: &Durations, share: f64) -> Option<f64> {
    let all: u64 = durations
        .buckets
        .iter()
        .map(|(_, count)| u64::from(*count))
        .sum();
    let wanted = (share * all as f64).ceil().max(1.0) as u64;
    let mut below = 0;
    let found = durations.buckets.iter().find(|(_, count)| {
        below += u64::from(*count);
        below >= wanted
    });
    let (low, high) = bounds(found?.0);
    Some((low + high) as f64 / 2.0)
}

/// A reason of a VM's exits, all vCPUs together.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// The reason.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// How many of them through user space.
    pub through_userspace: u64,
    /// How many of them have no time.
    pub untimed: u64,
    /// The parts of their time, in the order of [`Part::ALL`].
    pub parts: [Durations; 5],
}

impl Reason {
    /// All parts together, in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.parts.iter().map(|part| part.sum_ns).sum()
    }

    /// A part of it.
    pub fn part(&self, part: Part) -> &Durations {
        part.of(&self.parts)
    }
}

/// A VM's reasons, those that take most first.
pub fn reasons(vm: &Vm) -> Vec<Reason> {
    let mut by_name: BTreeMap<&str, Reason> = BTreeMap::new();
    for exits in vm.vcpus.iter().flat_map(|vcpu| &vcpu.exits) {
        let of = by_name.entry(&exits.reason).or_insert_with(|| Reason {
            reason: exits.reason.clone(),
            count: 0,
            through_userspace: 0,
            untimed: 0,
            parts: Default::default(),
        });
        of.count += exits.count;
        of.through_userspace += exits.through_userspace;
        of.untimed += exits.untimed;
        for (sum, part) in of.parts.iter_mut().zip(&exits.parts) {
            add(sum, part);
        }
    }
    let mut reasons: Vec<Reason> = by_name.into_values().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.sum_ns()));
    reasons
}

fn add(sum: &mut Durations, part: &Durations) {
    sum.sum_ns += part.sum_ns;
    let mut buckets: BTreeMap<u32, u32> = sum.buckets.iter().copied().collect();
    for &(bucket, count) in &part.buckets {
        *buckets.entry(bucket).or_default() += count;
    }
    sum.buckets = buckets.into_iter().collect();
}

/// All VMs, those whose exits take most first.
pub fn by_time(live: &Live) -> Vec<&Vm> {
    let mut vms: Vec<&Vm> = live.vms.iter().collect();
    vms.sort_by_key(|vm| {
        let exits = vm.vcpus.iter().flat_map(|vcpu| &vcpu.exits);
        let parts = exits.flat_map(|exits| &exits.parts);
        std::cmp::Reverse(parts.map(|part| part.sum_ns).sum::<u64>())
    });
    vms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_of_all_that_were_counted() {
        let durations = Durations {
            sum_ns: 0,
            buckets: vec![(10, 50), (20, 49), (30, 1)],
        };
        assert_eq!(quantile(&durations, 0.5), Some(10.0));
        assert_eq!(quantile(&durations, 0.99), Some(20.0));
        assert_eq!(quantile(&durations, 0.999), Some(30.0));
        assert_eq!(quantile(&Durations::default(), 0.5), None);
    }

    #[test]
    fn vcpus_are_added_up() {
        use exitpath_recording::live::{Exits, Vcpu};
        let vcpu = |id, bucket| Vcpu {
            id,
            tid: id,
            ended: false,
            exits: vec![Exits {
                reason: "hlt".to_owned(),
                count: 2,
                through_userspace: 1,
                untimed: 1,
                parts: std::array::from_fn(|at| Durations {
                    sum_ns: at as u64,
                    buckets: vec![(bucket, 2), (7, 1)],
                }),
            }],
        };
        let vm = Vm {
            pid: 1,
            name: None,
            vcpus: vec![vcpu(0, 5), vcpu(1, 7)],
        };
        let [hlt] = reasons(&vm).try_into().expect("one reason");
        assert_eq!((hlt.count, hlt.through_userspace, hlt.untimed), (4, 2, 2));
        assert_eq!(hlt.sum_ns(), 20);
        assert_eq!(hlt.part(Part::Preempted).sum_ns, 8);
        assert_eq!(hlt.part(Part::Kernel).buckets, [(5, 2), (7, 4)]);
    }
}
