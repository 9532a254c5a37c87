//! Did N operations make N exits, and who handled them?

use exitpath_recording::{Bounds, Run};

use super::{RowSummary, Verdict};

/// Who handled an exit, as the counters say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandledBy {
    /// There was nothing to handle.
    None,
    /// The CPU: no exit was made.
    Hardware,
    /// KVM, without leaving the kernel.
    Kernel,
    /// The VMM.
    Userspace,
}

/// Counts may be off by this much per operation before they contradict the catalogue: a handful
/// of exits that have nothing to do with the row among a few hundred operations.
const TOLERANCE: f64 = 0.02;

pub(super) fn apply(summary: &mut RowSummary, runs: &[&Run]) {
    let ops: u64 = runs.iter().map(|run| run.ops).sum();
    if ops == 0 {
        return;
    }
    let per_op = |total: i64| total as f64 / ops as f64;

    let userspace = per_op(runs.iter().map(|run| run.userspace_exits as i64).sum());
    summary.userspace_exits_per_op = Some(userspace);
    let exits: Option<i64> = runs
        .iter()
        .map(|run| run.counters.get("exits").copied())
        .sum();
    match exits {
        Some(total) => {
            // Exits that external interrupts forced are disturbances, unless the row is about them.
            let external: i64 = runs
                .iter()
                .filter_map(|run| run.counters.get("irq_exits"))
                .sum();
            let total = if summary.row.interrupts {
                total
            } else {
                total - external
            };
            summary.exits_per_op = Some(per_op(total.max(0)));
        }
        None => summary.doubt(
            Verdict::Usable,
            "this kernel has no KVM statistics (KVM_GET_STATS_FD, 5.14): that each operation \
             made its exits is not verified",
        ),
    }

    let (row, exits_per_op) = (summary.row.clone(), summary.exits_per_op);
    summary.handled_by = if row.reference {
        Some(HandledBy::None)
    } else if userspace >= 0.5 {
        Some(HandledBy::Userspace)
    } else {
        exits_per_op.map(|exits| {
            if exits >= 0.5 {
                HandledBy::Kernel
            } else {
                HandledBy::Hardware
            }
        })
    };

    let expected = [
        ("exits", exits_per_op, row.exits),
        ("user space exits", Some(userspace), row.userspace_exits),
    ];
    for (what, counted, bounds) in expected {
        if let Some(counted) = counted.filter(|&counted| !within(counted, bounds)) {
            summary.doubt(
                Verdict::Void,
                format!(
                    "{ops} operations made {counted:.2} {what} each, not {}",
                    show(bounds)
                ),
            );
        }
    }
}

fn within(value: f64, bounds: Bounds) -> bool {
    value >= bounds.min - TOLERANCE && value <= bounds.max + TOLERANCE
}

fn show(bounds: Bounds) -> String {
    if bounds.min == bounds.max {
        format!("{}", bounds.min)
    } else {
        format!("{} to {}", bounds.min, bounds.max)
    }
}
