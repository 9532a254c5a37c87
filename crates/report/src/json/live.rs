//! Exits of live virtual machines, as one JSON object.

use exitpath_analysis::live::quantile;
use exitpath_recording::live::{Durations, Kept, Live, Lost, Part};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Attached<'a> {
    /// `light`, `usual` or `exact`.
    kept: Kept,
    /// For how long, in seconds.
    seconds: f64,
    vms: Vec<VmFields<'a>>,
    /// What is missing.
    lost: Lost,
    overhead: Overhead,
}

#[derive(Debug, Serialize)]
struct VmFields<'a> {
    pid: u32,
    name: Option<&'a str>,
    vcpus: Vec<VcpuFields<'a>>,
}

#[derive(Debug, Serialize)]
struct VcpuFields<'a> {
    id: u32,
    tid: u32,
    /// Whether it is no more.
    ended: bool,
    reasons: Vec<ReasonFields<'a>>,
}

#[derive(Debug, Serialize)]
struct ReasonFields<'a> {
    reason: &'a str,
    count: u64,
    through_userspace: u64,
    /// Of which there is no time.
    untimed: u64,
    kernel: PartFields,
    userspace: PartFields,
    asleep: PartFields,
    polling: PartFields,
    preempted: PartFields,
}

/// A part of the exits' time. Quantiles are of those exits that have any of it, and at most 1/64 off; null where no histogram was kept.
#[derive(Debug, Serialize)]
struct PartFields {
    sum_ns: u64,
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
}

/// What the looking costs for each exit. It is not measured on the machine that is looked at.
#[derive(Debug, Serialize)]
struct Overhead {
    per_exit: Option<f64>,
    unit: &'static str,
    measured: bool,
}

fn part(durations: &Durations) -> PartFields {
    PartFields {
        sum_ns: durations.sum_ns,
        p50: quantile(durations, 0.5),
        p99: quantile(durations, 0.99),
        p999: quantile(durations, 0.999),
    }
}

/// All of it as text.
pub fn live(live: &Live) -> String {
    let vms = live.vms.iter().map(|vm| VmFields {
        pid: vm.pid,
        name: vm.name.as_deref(),
        vcpus: vm
            .vcpus
            .iter()
            .map(|vcpu| VcpuFields {
                id: vcpu.id,
                tid: vcpu.tid,
                ended: vcpu.ended,
                reasons: vcpu
                    .exits
                    .iter()
                    .map(|exits| {
                        let of = |wanted: Part| part(wanted.of(&exits.parts));
                        ReasonFields {
                            reason: &exits.reason,
                            count: exits.count,
                            through_userspace: exits.through_userspace,
                            untimed: exits.untimed,
                            kernel: of(Part::Kernel),
                            userspace: of(Part::Userspace),
                            asleep: of(Part::Asleep),
                            polling: of(Part::Polling),
                            preempted: of(Part::Preempted),
                        }
                    })
                    .collect(),
            })
            .collect(),
    });
    super::render(&Attached {
        kept: live.kept,
        seconds: live.seconds,
        vms: vms.collect(),
        lost: live.lost,
        overhead: Overhead {
            per_exit: None,
            unit: "instructions",
            measured: false,
        },
    })
}
