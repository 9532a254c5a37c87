//! Did N operations make N exits, and who handled them?

use exitpath_recording::{Bounds, Run, counter};

use super::summary::{HandledBy, RowSummary, Verdict};

/// Counts may be off by this much per operation before they contradict the catalogue: a handful
/// of exits that have nothing to do with the row among a few hundred operations.
const TOLERANCE: f64 = 0.02;
/// In a run of few operations one stray exit is more than that. It is allowed, up to this much per
/// operation.
const STRAY: f64 = 0.25;
/// Below this much per operation there is no exit, above one minus it there is one each time.
/// Between them some operations make one and others none.
const SELDOM: f64 = 0.1;
/// Share of kicks that met a consumer awake from which on that is said, and from which on the figure
/// mixes two costs.
const MET_AWAKE: f64 = 0.005;
const OFTEN_AWAKE: f64 = 0.05;

/// What the counters say of some runs, per operation.
struct PerOp {
    /// `None` where the kernel counts no exits.
    exits: Option<f64>,
    /// Whether there were fewer of them than the protocol makes itself, interrupts' included.
    too_few: bool,
    userspace_exits: f64,
    /// How far either may be off.
    tolerance: f64,
}

impl PerOp {
    /// `None` where no operation was counted. Sums are wide: a recording may claim anything.
    fn of(runs: &[&Run], with_interrupts: bool) -> Option<PerOp> {
        let ops: u128 = runs.iter().map(|run| u128::from(run.ops)).sum();
        if ops == 0 {
            return None;
        }
        let per_op = |total: i128| total as f64 / ops as f64;
        let userspace_exits = runs.iter().map(|run| i128::from(run.userspace_exits)).sum();
        let counter = |run: &Run, name| run.counters.get(name).copied().map(i128::from);
        let exits: Option<i128> = runs.iter().map(|run| counter(run, counter::EXITS)).sum();
        // Exits that external interrupts forced are disturbances, unless the row is about them.
        let external: i128 = if with_interrupts {
            0
        } else {
            runs.iter()
                .filter_map(|run| counter(run, counter::IRQ_EXITS))
                .sum()
        };
        Some(PerOp {
            exits: exits.map(|exits| per_op(exits - external)),
            too_few: exits.is_some_and(|exits| exits < 0),
            userspace_exits: per_op(userspace_exits),
            tolerance: per_op(runs.len() as i128).clamp(TOLERANCE, STRAY),
        })
    }

    /// The counts outside their bounds, each with what it counts and the bounds.
    fn contradictions(&self, summary: &RowSummary) -> Vec<(f64, &'static str, Bounds)> {
        let row = &summary.row;
        let within = |value: f64, bounds: Bounds| {
            value >= bounds.min - self.tolerance && value <= bounds.max + self.tolerance
        };
        [
            (self.exits, counter::EXITS, row.exits),
            (
                Some(self.userspace_exits),
                "user space exits",
                row.userspace_exits,
            ),
        ]
        .into_iter()
        .filter_map(|(counted, what, bounds)| counted.map(|counted| (counted, what, bounds)))
        .filter(|&(counted, _, bounds)| !within(counted, bounds))
        .collect()
    }

    fn handled_by(&self, summary: &RowSummary) -> Option<HandledBy> {
        let made = |per_op: f64| {
            if per_op < SELDOM {
                Some(false)
            } else if per_op > 1.0 - SELDOM {
                Some(true)
            } else {
                None
            }
        };
        if made(self.userspace_exits)? {
            return Some(HandledBy::Userspace);
        }
        let nothing_to_handle = summary.row.reference && summary.row.exits.max < SELDOM;
        match self.exits {
            None if nothing_to_handle => Some(HandledBy::None),
            None => None,
            Some(exits) if made(exits)? => Some(HandledBy::Kernel),
            Some(_) if summary.row.reference => Some(HandledBy::None),
            Some(_) => Some(HandledBy::Hardware),
        }
    }
}

/// Fills in exits per operation and who handled them.
pub(super) fn count(summary: &mut RowSummary, runs: &[&Run]) {
    if let Some(counts) = PerOp::of(runs, summary.row.interrupts) {
        // Taking the protocol's own exits off leaves a little less than nothing at times.
        summary.exits_per_op = counts.exits.map(|exits| exits.max(0.0));
        summary.userspace_exits_per_op = Some(counts.userspace_exits);
        summary.handled_by = counts.handled_by(summary);
    }
}

/// A counter summed over runs; `None` where no run has it.
pub(crate) fn total(runs: &[&Run], name: &str) -> Option<f64> {
    let counted = runs.iter().filter_map(|run| run.counters.get(name));
    counted
        .map(|&count| count as f64)
        .reduce(|sum, count| sum + count)
}

/// A kick that meets a consumer that is awake already costs less than one that wakes it.
pub(super) fn check_wakeups(summary: &mut RowSummary, runs: &[&Run]) {
    let count = |name: &str| total(runs, name);
    let Some(taken) = count(counter::KICK_TAKEN) else {
        return;
    };
    let wakeups = count(counter::KICK_WAKEUPS).unwrap_or(0.0);
    // How often it slept is not known everywhere.
    let woken = count(counter::KICK_SLEEPS).map_or(wakeups, |sleeps| sleeps.min(wakeups));
    let awake = 1.0 - woken / taken;
    if taken > 0.0 && awake > MET_AWAKE {
        let verdict = if awake > OFTEN_AWAKE {
            Verdict::Void
        } else {
            Verdict::Usable
        };
        summary.doubt(
            verdict,
            format!(
                "the consumer was woken {woken} times for {taken} kicks: others met it awake, or it did not \
                 run in time"
            ),
        );
    }
}

/// An exit that KVM asks every CPU for and that was not made is no merit of the hardware.
fn not_delivered(summary: &mut RowSummary, counts: &PerOp, is_emulated: bool) {
    let made_none = counts.exits.is_some_and(|exits| exits < SELDOM);
    if !made_none || summary.row.exits.min < 1.0 - SELDOM {
        return;
    }
    summary.handled_by = None;
    if is_emulated {
        summary.note(
            "KVM asks every CPU for this exit, and the emulated one did not make it: another version of \
             QEMU may (--qemu)",
        );
    }
}

/// Compares the counts with what the catalogue says the row should make; `is_emulated`: by an emulated CPU.
pub(super) fn verify(summary: &mut RowSummary, runs: &[&Run], is_emulated: bool) {
    let with_interrupts = summary.row.interrupts;
    let Some(counts) = PerOp::of(runs, with_interrupts) else {
        summary.doubt(
            Verdict::Usable,
            "no operations were counted: that each made its exits is not verified",
        );
        return;
    };
    if counts.exits.is_none() {
        summary.doubt(
            Verdict::Usable,
            "this kernel has no KVM statistics (KVM_GET_STATS_FD, 5.14): that each operation \
             made its exits is not verified",
        );
    }
    let ops: u128 = runs.iter().map(|run| u128::from(run.ops)).sum();
    let contradictions = counts.contradictions(summary);
    for &(counted, what, bounds) in &contradictions {
        let why = if counted < 0.0 && counts.too_few {
            "KVM counted fewer exits than the protocol makes without the operation: exits were \
             miscounted"
                .to_owned()
        } else if counted < 0.0 {
            "KVM counted more exits forced by interrupts than exits".to_owned()
        } else {
            let bounds = show(bounds);
            format!("{ops} operations made {counted:.2} {what} each, not {bounds}")
        };
        summary.doubt(Verdict::Void, why);
    }
    // Runs that are off in opposite directions add up to what was expected.
    let off = runs
        .iter()
        .filter(|run| {
            PerOp::of(&[run], with_interrupts)
                .is_some_and(|counts| !counts.contradictions(summary).is_empty())
        })
        .count();
    if contradictions.is_empty() && off > 0 {
        summary.doubt(
            Verdict::Usable,
            format!(
                "in {off} of {} runs the operations did not make the exits they should",
                runs.len()
            ),
        );
    }
    let known = counts.exits.is_some() || counts.userspace_exits >= SELDOM;
    if summary.handled_by.is_none() && known {
        summary.doubt(
            Verdict::Usable,
            "some operations make an exit and others none: the figures mix them",
        );
    }
    not_delivered(summary, &counts, is_emulated);
}

fn show(bounds: Bounds) -> String {
    if bounds.min == bounds.max {
        format!("{}", bounds.min)
    } else {
        format!("{} to {}", bounds.min, bounds.max)
    }
}
