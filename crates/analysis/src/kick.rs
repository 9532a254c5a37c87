//! What a kick costs, how long its consumer takes to run, whether the number of ioeventfds matters,
//! what disks can do, and what it takes to tell the guest.
//!
//! A value is that of the table of exits ([`summarise`]): on a host the mean of the runs' means with its
//! interval over runs, in the lab the median, which is the value that nearly all samples have. Rows
//! whose guest stores the consumer's time have no empty bracket to take off, and the table of exits
//! takes off what the guest stores as one, which is the bracket's own cost.

use std::collections::BTreeMap;

use exitpath_recording::{KickInfo, KickPart, Machine, Recording};

use crate::table::{RowSummary, Verdict, summarise};

/// Counter that is 1 where what serves the guest shares its vCPU's CPU.
const SAME_CPU: &str = "kick.same_cpu";
/// Counters that bear witness, each summed over a row's runs.
const WITNESSES: [&str; 6] = [
    "kick.taken",
    "kick.wakeups",
    SAME_CPU,
    "disk.requested",
    "disk.completed",
    "disk.wakeups",
];
/// Instructions of a virtual second in the lab.
pub const VIRTUAL_SECOND: f64 = 1e9;
/// Growth from the least to the largest number of ioeventfds, as a share of the first value, that is
/// still flat.
const FLAT: f64 = 0.02;
/// So many times the average doubling's growth, and the last doubling says that it is not the
/// logarithm that it grows by: a line's last doubling is half of all its growth.
const FASTER: f64 = 2.0;
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
    /// Each doubling adds about the same, as a binary search does.
    Logarithmic,
    /// The last doubling adds more than those before: it grows with their number.
    Steeper,
    /// There are too few numbers to tell the last two apart, or it falls.
    Unclear,
}

/// What an I/O thread each brings over one shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Disks.
    pub disks: u32,
    /// Requests per second with a thread each over those with one for all.
    pub each_to_shared: f64,
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
        let kicks = self.kicks.iter().flat_map(|kick| {
            [Some(&kick.cost), kick.waited.as_ref(), kick.wakeup.as_ref()]
                .into_iter()
                .flatten()
        });
        kicks
            .chain(&self.scaling)
            .chain(&self.disks)
            .chain(&self.completions)
            .chain(&self.checks)
    }
}

/// The tables of a recording. Rows that are no part of `exitpath kick` are left out.
pub fn kicks(recording: &Recording) -> Kicks {
    let mut parts: BTreeMap<u8, Vec<Line>> = BTreeMap::new();
    for summary in summarise(recording) {
        let Some(info) = summary.row.kick.clone() else {
            continue;
        };
        let key = key(info.part);
        parts
            .entry(key)
            .or_default()
            .push(line(recording, summary, info));
    }
    let mut take = |part| parts.remove(&key(part)).unwrap_or_default();
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
        trends: trends(&scaling),
        ratios: ratios(&disks),
        scaling,
        disks,
        completions: take(KickPart::Completion),
        checks: take(KickPart::Check),
    }
}

fn key(part: KickPart) -> u8 {
    part as u8
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
        for name in WITNESSES {
            if let Some(&value) = run.counters.get(name) {
                let sum = witness.entry(name.to_owned()).or_default();
                *sum = if name == SAME_CPU {
                    value.max(*sum)
                } else {
                    sum.saturating_add(value)
                };
            }
        }
    }
    // What does not mean what it says is not shown as if it did.
    let figures = summary
        .figures
        .filter(|_| summary.verdict != Verdict::Skipped);
    let lab = recording.manifest.machine == Machine::Lab;
    let ticks = figures.map(|figures| Estimate {
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

fn trends(lines: &[Line]) -> Vec<Trend> {
    let mut ways: Vec<&str> = Vec::new();
    for line in lines {
        if !ways.contains(&line.info.how.as_str()) {
            ways.push(&line.info.how);
        }
    }
    ways.into_iter()
        .filter_map(|how| trend(lines, how))
        .collect()
}

fn trend(lines: &[Line], how: &str) -> Option<Trend> {
    let of_way = lines.iter().filter(|line| line.info.how == how);
    let points = of_way.filter(|line| line.summary.verdict < Verdict::Void);
    let mut points: Vec<(u32, f64)> = points
        .filter_map(|line| Some((line.info.eventfds.filter(|&n| n > 0)?, line.value?.value)))
        .collect();
    points.sort_by_key(|&(eventfds, _)| eventfds);
    let (&(least, first), &(most, last)) = (points.first()?, points.last()?);
    if most <= least {
        return None;
    }
    let doublings = (f64::from(most) / f64::from(least)).log2();
    let per_doubling = (last - first) / doublings;
    let before = points.get(points.len().saturating_sub(2));
    let last_doubling = before
        .map(|&(eventfds, value)| (last - value) / (f64::from(most) / f64::from(eventfds)).log2());
    let shape = match last_doubling {
        _ if (last - first).abs() <= FLAT * first.abs() => Shape::Flat,
        Some(growth) if points.len() > 3 && last > first => {
            if growth > FASTER * per_doubling {
                Shape::Steeper
            } else {
                Shape::Logarithmic
            }
        }
        _ => Shape::Unclear,
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

fn ratios(lines: &[Line]) -> Vec<Ratio> {
    let rate = |disks, how: &str| {
        let found = lines
            .iter()
            .find(|line| line.info.disks == Some(disks) && line.info.how == how)
            .filter(|line| line.summary.verdict < Verdict::Void)?;
        found
            .value
            .map(|rate| rate.value)
            .filter(|&rate| rate > 0.0)
    };
    let mut disks: Vec<u32> = lines.iter().filter_map(|line| line.info.disks).collect();
    disks.sort_unstable();
    disks.dedup();
    disks
        .into_iter()
        .filter_map(|disks| {
            Some(Ratio {
                disks,
                each_to_shared: rate(disks, "each")? / rate(disks, "shared")?,
            })
        })
        .collect()
}

impl Ratio {
    /// Whether it makes no difference.
    pub fn is_one(self) -> bool {
        (self.each_to_shared - 1.0).abs() <= SAME
    }
}
