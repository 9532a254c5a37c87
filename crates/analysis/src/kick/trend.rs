//! Whether the number of ioeventfds matters, and how.

use exitpath_recording::{Machine, Recording};

use super::lines::{Estimate, Line, by_block, within_blocks};
use crate::compare::{Finding, of_means};
use crate::stats::{Bootstrap, Confidence};
use crate::table::Verdict;

/// Growth from the least to the largest number of ioeventfds, as a share of the first value, that is
/// still flat, on a host.
const FLAT: f64 = 0.02;
/// The same in the lab, in instructions: where buffers lie makes as many.
const FLAT_IN_LAB: f64 = 16.0;
/// Numbers of ioeventfds of which one can tell how a value grows.
const ENOUGH: usize = 4;
/// So much better one law has to fit than the other (residual sums of squares).
const BETTER: f64 = 1.5;
/// What no law leaves over less than, in ticks squared: rounding.
const ROUNDING: f64 = 1e-9;
/// Seed of the resamples by which a host's laws are told apart.
const SEED: u64 = 1;

/// Whether the number of ioeventfds matters to one way of registering them.
#[derive(Debug, Clone, PartialEq)]
pub struct Trend {
    /// The way.
    pub how: String,
    /// The least and the largest number measured.
    pub eventfds: (u32, u32),
    /// Their values, in ticks.
    pub values: (f64, f64),
    /// The difference of the two, in ticks; on a host the mean within blocks, with its interval.
    pub difference: Estimate,
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
    /// Next to nothing is added: at most 2 % on a host, 16 instructions in the lab.
    Flat,
    /// Each doubling adds about the same, as a binary search does: a + b·log n fits better.
    Logarithmic,
    /// It grows with their number: a + b·n fits better.
    Steeper,
    /// It is not flat, but there are too few numbers to tell those two apart, both fit alike, or it
    /// falls.
    Unclear,
    /// On a host, the interval of the difference leaves open whether it is flat.
    Undecided {
        /// Runs of each row to measure more before asking again.
        needs_runs: usize,
    },
}

/// One number of ioeventfds.
#[derive(Clone, Copy)]
struct Point<'a> {
    eventfds: u32,
    value: f64,
    line: &'a Line,
}

pub(super) fn trends(recording: &Recording, lines: &[Line]) -> Vec<Trend> {
    let mut ways: Vec<&str> = Vec::new();
    for line in lines {
        if !ways.contains(&line.info.how.as_str()) {
            ways.push(&line.info.how);
        }
    }
    ways.into_iter()
        .filter_map(|how| trend(recording, lines, how))
        .collect()
}

fn trend(recording: &Recording, lines: &[Line], how: &str) -> Option<Trend> {
    let of_way = lines.iter().filter(|line| line.info.how == how);
    let usable = of_way.filter(|line| line.summary.verdict < Verdict::Void);
    let mut points: Vec<Point<'_>> = usable
        .filter_map(|line| {
            Some(Point {
                eventfds: line.info.eventfds.filter(|&n| n > 0)?,
                value: line.value?.value,
                line,
            })
        })
        .collect();
    points.sort_by_key(|point| point.eventfds);
    let (first, last) = (points.first()?, points.last()?);
    if last.eventfds <= first.eventfds {
        return None;
    }
    let (difference, shape) = match recording.manifest.machine {
        Machine::Lab => in_lab(&points, last.value - first.value),
        Machine::Host => on_host(recording, &points, first, last),
    };
    let doublings = (f64::from(last.eventfds) / f64::from(first.eventfds)).log2();
    Some(Trend {
        how: how.to_owned(),
        eventfds: (first.eventfds, last.eventfds),
        values: (first.value, last.value),
        difference,
        per_doubling: difference.value / doublings,
        per_eventfd: difference.value / f64::from(last.eventfds - first.eventfds),
        shape,
    })
}

fn in_lab(points: &[Point<'_>], difference: f64) -> (Estimate, Shape) {
    let exact = Estimate {
        value: difference,
        ci95: None,
    };
    let shape = match Finding::exact(difference, 0.0, FLAT_IN_LAB) {
        Finding::Same => Shape::Flat,
        Finding::More if points.len() >= ENOUGH => {
            let numbers: Vec<u32> = points.iter().map(|point| point.eventfds).collect();
            let values: Vec<f64> = points.iter().map(|point| point.value).collect();
            let law = law(&numbers, &values);
            by_law(law, law)
        }
        _ => Shape::Unclear,
    };
    (exact, shape)
}

fn on_host(
    recording: &Recording,
    points: &[Point<'_>],
    first: &Point<'_>,
    last: &Point<'_>,
) -> (Estimate, Shape) {
    let differences = within_blocks(recording, last.line, first.line, |last, first| last - first);
    let (interval, finding) = of_means(&differences, 0.0, FLAT * first.value.abs());
    let difference = Estimate {
        value: interval.map_or(last.value - first.value, |interval| interval.mean),
        ci95: interval.map(|interval| (interval.lo, interval.hi)),
    };
    let shape = match finding {
        Finding::Same => Shape::Flat,
        Finding::More if points.len() >= ENOUGH => law_on_host(recording, points),
        Finding::More | Finding::Less => Shape::Unclear,
        Finding::Undecided { needs_blocks } => Shape::Undecided {
            needs_runs: needs_blocks,
        },
    };
    (difference, shape)
}

/// The law that holds in (nearly) all resamples of the blocks in which every number was measured.
fn law_on_host(recording: &Recording, points: &[Point<'_>]) -> Shape {
    let numbers: Vec<u32> = points.iter().map(|point| point.eventfds).collect();
    let of_points: Vec<_> = points
        .iter()
        .map(|point| by_block(recording, point.line))
        .collect();
    let blocks: Vec<Vec<f64>> = of_points[0]
        .keys()
        .filter_map(|block| {
            let values = of_points
                .iter()
                .map(|of_point| of_point.get(block).copied());
            values.collect()
        })
        .collect();
    let of_means = |blocks: &mut [Vec<f64>]| {
        let mean = |at| blocks.iter().map(|block| block[at]).sum::<f64>() / blocks.len() as f64;
        let values: Vec<f64> = (0..numbers.len()).map(mean).collect();
        law(&numbers, &values)
    };
    let told = Bootstrap::seeded(SEED).interval(&blocks, of_means, Confidence::P95);
    told.map_or(Shape::Unclear, |interval| by_law(interval.lo, interval.hi))
}

/// How much worse a + b·log n fits than a + b·n does: the logarithm of the ratio of what they leave over.
fn law(numbers: &[u32], values: &[f64]) -> f64 {
    let by_log = misfit(numbers, values, f64::log2);
    let by_number = misfit(numbers, values, |eventfds| eventfds);
    (by_log.max(ROUNDING) / by_number.max(ROUNDING)).ln()
}

/// What [`law`] between `lo` and `hi` says.
fn by_law(lo: f64, hi: f64) -> Shape {
    if hi < -BETTER.ln() {
        Shape::Logarithmic
    } else if lo > BETTER.ln() {
        Shape::Steeper
    } else {
        Shape::Unclear
    }
}

/// What a line through the points leaves over, by least squares: Σ (y − a − b·x)² with x = `of` the
/// number of ioeventfds.
fn misfit(numbers: &[u32], values: &[f64], of: impl Fn(f64) -> f64) -> f64 {
    let n = numbers.len() as f64;
    let xy = || std::iter::zip(numbers, values).map(|(&x, &y)| (of(f64::from(x)), y));
    let (mean_x, mean_y) = xy().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x / n, sy + y / n));
    let sum = |of: fn(f64, f64) -> f64| xy().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (sum(|x, _| x * x), sum(|x, y| x * y), sum(|_, y| y * y));
    yy - xy * xy / xx
}
