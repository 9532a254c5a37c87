//! The lines of a command's tables, each a row of the recording, and the values that two of them have in one block.

use std::collections::BTreeMap;

use exitpath_recording::{KickInfo, Machine, Outcome, Recording, counter};

use crate::compare::paired;
use crate::table::{RowSummary, Verdict, net_mean};

/// Counters that are no counts: of those the largest of all runs is told.
const FACTS: [&str; 4] = [
    // Whether what serves the guest shares its vCPU's CPU.
    counter::KICK_SAME_CPU,
    counter::KICK_FIFO,
    counter::DISK_IOTHREADS,
    counter::DISK_CPUS,
];
/// Counters that bear witness, each summed over a row's runs.
const WITNESSES: [&str; 6] = [
    counter::KICK_TAKEN,
    counter::KICK_WAKEUPS,
    counter::KICK_SLEEPS,
    counter::DISK_REQUESTED,
    counter::DISK_COMPLETED,
    counter::DISK_WAKEUPS,
];
/// Instructions of a virtual second in the lab.
pub const VIRTUAL_SECOND: f64 = 1e9;

/// A figure and its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// In ticks, or in requests per second.
    pub value: f64,
    /// 95 % interval over runs; `None` in the lab and for a single run.
    pub ci95: Option<(f64, f64)>,
}

/// One way of notifying, or one number of ioeventfds or disks.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The row's part in the command.
    pub info: KickInfo,
    /// What the table of exits says of it: verdict, notes, samples, counts.
    pub summary: RowSummary,
    /// Ticks of one operation; for disks requests per second.
    pub value: Option<Estimate>,
    /// What the threads that served the guest counted, all runs together.
    pub witness: BTreeMap<String, i64>,
}

/// A kick by one way.
#[derive(Debug, Clone, PartialEq)]
pub struct Kicked {
    /// While nobody waits.
    pub cost: Line,
    /// While a consumer waits; a user exit has none to wait.
    pub waited: Option<Line>,
    /// From the kick until the consumer runs.
    pub wakeup: Option<Line>,
}

impl Kicked {
    /// All that there are.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        let others = [&self.waited, &self.wakeup];
        std::iter::once(&self.cost).chain(others.into_iter().flatten())
    }

    /// The worst of its lines'.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.lines().map(|line| line.summary.verdict);
        verdicts.fold(self.cost.summary.verdict, Ord::max)
    }
}

/// A row as a line.
pub(super) fn line(recording: &Recording, summary: RowSummary, info: KickInfo) -> Line {
    let mut witness: BTreeMap<String, i64> = BTreeMap::new();
    for run in recording
        .runs
        .iter()
        .filter(|run| run.row == summary.row.name)
    {
        for (&name, &value) in WITNESSES
            .iter()
            .chain(&FACTS)
            .filter_map(|name| Some((name, run.counters.get(*name)?)))
        {
            let told = witness.entry(name.to_owned()).or_default();
            *told = if FACTS.contains(&name) {
                value.max(*told)
            } else {
                told.saturating_add(value)
            };
        }
    }
    let lab = recording.manifest.machine == Machine::Lab;
    let ticks = summary.figures.map(|figures| Estimate {
        value: if lab { figures.median } else { figures.mean },
        ci95: figures.ci95.filter(|_| !lab),
    });
    let value = match info.requests {
        Some(requests) => ticks.and_then(|ticks| rate(recording, ticks, requests)),
        None => ticks,
    };
    Line {
        info,
        summary,
        value,
        witness,
    }
}

/// Requests per second by the guest's clock.
fn rate(recording: &Recording, ticks: Estimate, requests: u64) -> Option<Estimate> {
    let second = match recording.manifest.machine {
        Machine::Lab => VIRTUAL_SECOND,
        Machine::Host => recording.manifest.environment.tsc_khz? as f64 * 1e3,
    };
    let rate = |ticks: f64| requests as f64 * second / ticks;
    (ticks.value > 0.0).then(|| Estimate {
        value: rate(ticks.value),
        // The longer it takes, the fewer; an interval that reaches zero has no upper end.
        ci95: ticks
            .ci95
            .filter(|&(lo, _)| lo > 0.0)
            .map(|(lo, hi)| (rate(hi), rate(lo))),
    })
}

/// The ticks of one operation in each block of a host's recording.
pub(super) fn by_block(recording: &Recording, line: &Line) -> BTreeMap<u32, f64> {
    let name = &line.summary.row.name;
    let runs = recording.runs.iter();
    let done = runs.filter(|run| run.row == *name && run.outcome == Outcome::Done);
    done.filter_map(|run| Some((run.block, net_mean(run)?)))
        .collect()
}

/// What `of` makes of the ticks of two lines in each block that has both, where that is finite.
pub(super) fn within_blocks(
    recording: &Recording,
    one: &Line,
    other: &Line,
    of: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let (one, other) = (by_block(recording, one), by_block(recording, other));
    let pairs = paired(one, other).pairs.into_iter();
    let values = pairs.map(|pair| of(pair.a, pair.b));
    values.filter(|value| value.is_finite()).collect()
}
