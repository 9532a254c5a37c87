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
mod lines;
mod trend;

use exitpath_recording::{KickPart, Machine, Recording};

use crate::compare::of_means;
use crate::conditions::first_of_each_row;
use crate::table::{Verdict, summarise};
use lines::{line, within_blocks};

pub use crate::compare::Finding;
pub use against::{Against, FastBus};
pub use lines::{Estimate, Kicked, Line, VIRTUAL_SECOND};
pub use trend::{Shape, Trend};

/// Ratios this close to 1 say that there is no difference.
const SAME: f64 = 0.05;

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
