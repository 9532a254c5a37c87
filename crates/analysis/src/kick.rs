//! What a kick costs, how long its consumer takes to run, whether the number of ioeventfds matters,
//! what disks can do, and what it takes to tell the guest.
//!
//! A value is that of the table of exits ([`summarise`]): on a host the mean of the runs' means with its
//! interval over runs, in the lab the median, which is the value that nearly all samples have. Off the
//! consumer's time, too, comes the empty bracket; what that has more than the time is the clock's
//! second reading.
//!
//! What is said of two values on a host is said of their difference or ratio within blocks, both having
//! been measured close together, and by its interval: the same within a margin, different, or undecided
//! ([`of_means`]).

mod against;
mod trend;

use std::collections::BTreeMap;

use exitpath_recording::{KickInfo, KickPart, Machine, Outcome, Recording};

use crate::compare::of_means;
use crate::conditions::first_of_each_row;
use crate::table::{RowSummary, Verdict, net_mean, summarise};

pub use crate::compare::Finding;
pub use against::{Against, FastBus};
pub use trend::{Shape, Trend};

/// Counters that are no counts: of those the largest of all runs is told.
const FACTS: [&str; 4] = [
    // Whether what serves the guest shares its vCPU's CPU.
    "kick.same_cpu",
    "kick.fifo",
    "disk.iothreads",
    "disk.cpus",
];
/// Counters that bear witness, each summed over a row's runs.
const WITNESSES: [&str; 6] = [
    "kick.taken",
    "kick.wakeups",
    "kick.sleeps",
    "disk.requested",
    "disk.completed",
    "disk.wakeups",
];
/// Instructions of a virtual second in the lab.
pub const VIRTUAL_SECOND: f64 = 1e9;
/// Ratios this close to 1 say that there is no difference.
const SAME: f64 = 0.05;

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

/// What an I/O thread each brings over one shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Disks.
    pub disks: u32,
    /// Requests per second with a thread each over those with one for all.
    pub each_to_shared: f64,
    /// Its 95 % interval over blocks, on a host with more than one.
    pub ci95: Option<(f64, f64)>,
    /// What that says: the same is 1, but for 5 %.
    pub finding: Finding,
}

/// All tables of `exitpath kick`. One that was not asked for is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Kicks {
    /// Kicks by their ways.
    pub kicks: Vec<Kicked>,
    /// What ioeventfds save.
    pub against: Vec<Against>,
    /// Whether KVM's fast MMIO bus was taken, by what it saves; `None` where that was not measured.
    pub fast_bus: Option<FastBus>,
    /// One kick with more and more ioeventfds.
    pub scaling: Vec<Line>,
    /// What that says.
    pub trends: Vec<Trend>,
    /// Disks.
    pub disks: Vec<Line>,
    /// What that says.
    pub ratios: Vec<Ratio>,
    /// From the device to the guest.
    pub completions: Vec<Line>,
    /// Rows that are there to go wrong.
    pub checks: Vec<Line>,
}

impl Kicks {
    /// Every line of every table.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.kicks
            .iter()
            .flat_map(Kicked::lines)
            .chain(&self.scaling)
            .chain(&self.disks)
            .chain(&self.completions)
            .chain(&self.checks)
    }
}

/// The tables of a recording. Rows that are no part of `exitpath kick` are left out.
pub fn kicks(recording: &Recording) -> Kicks {
    let recording = &*first_of_each_row(recording);
    let mut lines: Vec<Line> = Vec::new();
    for summary in summarise(recording) {
        if let Some(info) = summary.row.kick.clone() {
            lines.push(line(recording, summary, info));
        }
    }
    let mut take = |part: KickPart| -> Vec<Line> {
        lines
            .extract_if(.., |line| line.info.part == part)
            .collect()
    };
    let (mut waited, mut wakeup) = (take(KickPart::Waited), take(KickPart::Wakeup));
    let kicks = take(KickPart::Cost).into_iter().map(|cost| Kicked {
        waited: named(&mut waited, &cost.info.how),
        wakeup: named(&mut wakeup, &cost.info.how),
        cost,
    });
    let kicks: Vec<Kicked> = kicks.collect();
    let (scaling, disks) = (take(KickPart::Scaling), take(KickPart::Disks));
    Kicks {
        against: against::of_user_exits(recording, &kicks),
        fast_bus: against::fast_bus(recording, &kicks),
        kicks,
        trends: trend::trends(recording, &scaling),
        ratios: ratios(recording, &disks),
        scaling,
        disks,
        completions: take(KickPart::Completion),
        checks: take(KickPart::Check),
    }
}

fn named(lines: &mut Vec<Line>, how: &str) -> Option<Line> {
    let at = lines.iter().position(|line| line.info.how == how)?;
    Some(lines.remove(at))
}

fn line(recording: &Recording, summary: RowSummary, info: KickInfo) -> Line {
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

fn ratios(recording: &Recording, lines: &[Line]) -> Vec<Ratio> {
    let mut disks: Vec<u32> = lines.iter().filter_map(|line| line.info.disks).collect();
    disks.sort_unstable();
    disks.dedup();
    let of = |disks, how: &str| {
        let mut lines = lines.iter();
        lines.find(|line| {
            let usable = line.summary.verdict < Verdict::Void;
            usable && line.info.disks == Some(disks) && line.info.how == how
        })
    };
    disks
        .into_iter()
        .filter_map(|disks| ratio(recording, disks, of(disks, "each")?, of(disks, "shared")?))
        .collect()
}

fn ratio(recording: &Recording, disks: u32, each: &Line, shared: &Line) -> Option<Ratio> {
    if recording.manifest.machine == Machine::Lab {
        let each_to_shared = each.value?.value / shared.value?.value;
        return Some(Ratio {
            disks,
            each_to_shared,
            ci95: None,
            finding: Finding::exact(each_to_shared, 1.0, SAME),
        });
    }
    // As many requests in both, so that more ticks are fewer requests in a second.
    let ratios = within_blocks(recording, shared, each, |shared, each| shared / each);
    let (interval, finding) = of_means(&ratios, 1.0, SAME);
    Some(Ratio {
        disks,
        each_to_shared: crate::stats::mean(&ratios).ok()?,
        ci95: interval.map(|interval| (interval.lo, interval.hi)),
        finding,
    })
}

/// The ticks of one operation in each block of a host's recording.
fn by_block(recording: &Recording, line: &Line) -> BTreeMap<u32, f64> {
    let name = &line.summary.row.name;
    let runs = recording.runs.iter();
    let done = runs.filter(|run| run.row == *name && run.outcome == Outcome::Done);
    done.filter_map(|run| Some((run.block, net_mean(run)?)))
        .collect()
}

/// What `of` makes of the ticks of two lines in each block that has both, where that is finite.
fn within_blocks(
    recording: &Recording,
    one: &Line,
    other: &Line,
    of: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let (one, other) = (by_block(recording, one), by_block(recording, other));
    let both = one
        .iter()
        .filter_map(|(block, one)| Some(of(*one, *other.get(block)?)));
    both.filter(|value| value.is_finite()).collect()
}
