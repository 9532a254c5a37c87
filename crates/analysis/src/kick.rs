//! What a kick costs, how long its consumer takes to run, whether the number of ioeventfds matters,
//! what disks can do, and what it takes to tell the guest.
//!
//! A value is that of the table of exits ([`summarise`]): on a host the mean of the runs' means with its
//! interval over runs, in the lab the median, which is the value that nearly all samples have. Off the
//! consumer's time, too, comes the empty bracket; what that has more than the time is the clock's
//! second reading.

use std::collections::BTreeMap;

use exitpath_recording::{KickInfo, KickPart, Machine, Outcome, Recording};

use crate::stats::{self, Confidence};
use crate::table::{RowSummary, Verdict, net_mean, summarise};

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
/// Growth from the least to the largest number of ioeventfds, as a share of the first value, that is
/// still flat, on a host.
const FLAT: f64 = 0.02;
/// The same in the lab, in instructions: where buffers lie makes as many.
const FLAT_IN_LAB: f64 = 16.0;
/// Numbers of ioeventfds of which one can tell how a value grows.
const ENOUGH: usize = 4;
/// So much better one law has to fit than the other (residual sums of squares).
const BETTER: f64 = 1.5;
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

/// Whether the number of ioeventfds matters to one way of registering them.
#[derive(Debug, Clone, PartialEq)]
pub struct Trend {
    /// The way.
    pub how: String,
    /// The least and the largest number measured.
    pub eventfds: (u32, u32),
    /// Their values, in ticks.
    pub values: (f64, f64),
    /// What a doubling adds on average, in ticks.
    pub per_doubling: f64,
    /// What one more adds on average, in ticks.
    pub per_eventfd: f64,
    /// How it grows.
    pub shape: Shape,
}

/// How a value grows with the number of ioeventfds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Next to nothing is added.
    Flat,
    /// Each doubling adds about the same, as a binary search does: a + b·log n fits better.
    Logarithmic,
    /// It grows with their number: a + b·n fits better.
    Steeper,
    /// There are too few numbers to tell those two apart, it falls, or the interval of the first
    /// reaches that of the last.
    Unclear,
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
    /// What that says.
    pub finding: Finding,
}

/// What a ratio says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It is 1, but for 5 %.
    Same,
    /// It is more.
    More,
    /// It is less.
    Less,
    /// Its interval leaves that open, or there is none.
    Undecided,
}

/// All tables of `exitpath kick`. One that was not asked for is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Kicks {
    /// Kicks by their ways.
    pub kicks: Vec<Kicked>,
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
    let kicks = kicks.collect();
    let (scaling, disks) = (take(KickPart::Scaling), take(KickPart::Disks));
    Kicks {
        kicks,
        trends: trends(&scaling, recording.manifest.machine == Machine::Lab),
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

fn trends(lines: &[Line], lab: bool) -> Vec<Trend> {
    let mut ways: Vec<&str> = Vec::new();
    for line in lines {
        if !ways.contains(&line.info.how.as_str()) {
            ways.push(&line.info.how);
        }
    }
    ways.into_iter()
        .filter_map(|how| trend(lines, how, lab))
        .collect()
}

fn trend(lines: &[Line], how: &str, lab: bool) -> Option<Trend> {
    let of_way = lines.iter().filter(|line| line.info.how == how);
    let points = of_way.filter(|line| line.summary.verdict < Verdict::Void);
    let mut points: Vec<(u32, Estimate)> = points
        .filter_map(|line| Some((line.info.eventfds.filter(|&n| n > 0)?, line.value?)))
        .collect();
    points.sort_by_key(|&(eventfds, _)| eventfds);
    let (&(least, first_one), &(most, last_one)) = (points.first()?, points.last()?);
    if most <= least {
        return None;
    }
    let (first, last) = (first_one.value, last_one.value);
    let doublings = (f64::from(most) / f64::from(least)).log2();
    let per_doubling = (last - first) / doublings;
    let flat = if lab { FLAT_IN_LAB } else { FLAT * first.abs() };
    let reaches = match (first_one.ci95, last_one.ci95) {
        (Some((_, first_hi)), Some((last_lo, _))) => first_hi >= last_lo,
        // Without intervals a host's figures cannot be told apart.
        _ => !lab,
    };
    let shape = if (last - first).abs() <= flat {
        Shape::Flat
    } else if last < first || reaches || points.len() < ENOUGH {
        Shape::Unclear
    } else {
        let by_log = misfit(&points, f64::log2);
        let by_number = misfit(&points, |eventfds| eventfds);
        if by_log * BETTER < by_number {
            Shape::Logarithmic
        } else if by_number * BETTER < by_log {
            Shape::Steeper
        } else {
            Shape::Unclear
        }
    };
    Some(Trend {
        how: how.to_owned(),
        eventfds: (least, most),
        values: (first, last),
        per_doubling,
        per_eventfd: (last - first) / f64::from(most - least),
        shape,
    })
}

/// What a line through the points leaves over, by least squares: Σ (y − a − b·x)² with x = `of` the
/// number of ioeventfds.
fn misfit(points: &[(u32, Estimate)], of: impl Fn(f64) -> f64) -> f64 {
    let n = points.len() as f64;
    let xy = || {
        let points = points.iter();
        points.map(|(eventfds, estimate)| (of(f64::from(*eventfds)), estimate.value))
    };
    let (mean_x, mean_y) = xy().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x / n, sy + y / n));
    let sum = |of: fn(f64, f64) -> f64| xy().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (sum(|x, _| x * x), sum(|x, y| x * y), sum(|_, y| y * y));
    yy - xy * xy / xx
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

/// On a host within blocks, both measured close together.
fn ratio(recording: &Recording, disks: u32, each: &Line, shared: &Line) -> Option<Ratio> {
    if recording.manifest.machine == Machine::Lab {
        let each_to_shared = each.value?.value / shared.value?.value;
        return Some(Ratio {
            disks,
            each_to_shared,
            ci95: None,
            finding: Ratio::found(each_to_shared, each_to_shared),
        });
    }
    let ticks = |line: &Line| -> BTreeMap<u32, f64> {
        let name = &line.summary.row.name;
        let runs = recording.runs.iter();
        let done = runs.filter(|run| run.row == *name && run.outcome == Outcome::Done);
        done.filter_map(|run| Some((run.block, net_mean(run)?)))
            .collect()
    };
    let (each, shared) = (ticks(each), ticks(shared));
    // As many requests in both, so that more ticks are fewer requests in a second.
    let ratios: Vec<f64> = each
        .iter()
        .filter_map(|(block, each)| Some(shared.get(block)? / each))
        .filter(|ratio| ratio.is_finite())
        .collect();
    let interval = stats::mean_interval(&ratios, Confidence::P95).ok();
    let ci95 = interval.map(|interval| (interval.lo, interval.hi));
    Some(Ratio {
        disks,
        each_to_shared: stats::mean(&ratios).ok()?,
        ci95,
        finding: ci95.map_or(Finding::Undecided, |(lo, hi)| Ratio::found(lo, hi)),
    })
}

impl Ratio {
    /// What an interval from `lo` to `hi` says.
    fn found(lo: f64, hi: f64) -> Finding {
        if lo >= 1.0 - SAME && hi <= 1.0 + SAME {
            Finding::Same
        } else if lo > 1.0 {
            Finding::More
        } else if hi < 1.0 {
            Finding::Less
        } else {
            Finding::Undecided
        }
    }
}
