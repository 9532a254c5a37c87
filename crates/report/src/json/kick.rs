//! Notifications as one JSON object.

use std::collections::BTreeMap;

use exitpath_analysis::kick::{
    Against, Estimate, FastBus, Finding, Kicked, Kicks, Line, Ratio, Shape, Trend,
};
use exitpath_recording::{Environment, Machine, Manifest};
use serde::Serialize;

use super::{render, verdict};

/// The whole object. Figures are nanoseconds on a host and instructions in the lab; null where there
/// is none.
#[derive(Debug, Serialize)]
pub struct Kick<'a> {
    /// `host` or `lab`.
    pub machine: Machine,
    /// `ns` or `instructions`.
    pub unit: &'static str,
    /// What `requests_per_second` counts by: `second`, or `10^9 instructions`.
    pub requests_per: &'static str,
    /// What it was measured on.
    pub environment: &'a Environment,
    /// One object per way of kicking.
    pub kicks: Vec<KickObject<'a>>,
    /// What ioeventfds save, one object per bus.
    pub against: Vec<AgainstObject<'a>>,
    /// Whether KVM's fast MMIO bus was taken, by what it saves; null where that was not measured.
    pub fast_mmio_bus: Option<FastBusObject<'a>>,
    /// One object per way and number of ioeventfds.
    pub scaling: Vec<ScalingObject<'a>>,
    /// What more ioeventfds cost, one object per way.
    pub trends: Vec<TrendObject<'a>>,
    /// One object per number of disks and kind of I/O threads.
    pub disks: Vec<DisksObject<'a>>,
    /// A thread each against one for all, one object per number of disks.
    pub ratios: Vec<RatioObject>,
    /// One object per way of telling the guest.
    pub completions: Vec<CompletionObject<'a>>,
    /// Rows that are there to go wrong; usually none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CompletionObject<'a>>,
    /// Warnings with advice.
    pub warnings: &'a [String],
    /// The recording's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
}

/// How a row was measured.
#[derive(Debug, Serialize)]
pub(super) struct Facts<'a> {
    /// The row's name, for `exitpath trace`.
    pub row: &'a str,
    /// Samples behind the value.
    pub n: u64,
    /// Runs, or seeds.
    pub runs: u32,
    /// Exits per operation by KVM's statistics.
    pub exits_per_op: Option<f64>,
    /// Returns of `KVM_RUN` per operation.
    pub userspace_exits_per_op: Option<f64>,
    /// What the threads that served the guest counted, all runs together.
    pub witness: &'a BTreeMap<String, i64>,
    /// `clean`, `usable`, `void` or `skipped`.
    pub verdict: &'static str,
    /// What a reader should know.
    pub notes: &'a [String],
}

/// A kick.
#[derive(Debug, Serialize)]
pub struct KickObject<'a> {
    /// The way.
    pub how: &'a str,
    /// What it costs the guest while nobody waits.
    pub value: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub ci95: Option<[f64; 2]>,
    /// What it costs while a consumer waits; null for a user exit.
    pub value_waited: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub value_waited_ci95: Option<[f64; 2]>,
    /// From the kick until the consumer runs.
    pub consumer_wakeup: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub consumer_wakeup_ci95: Option<[f64; 2]>,
    #[serde(flatten)]
    facts: Facts<'a>,
    waited: Option<Facts<'a>>,
    wakeup: Option<Facts<'a>>,
}

/// A kick by one way against a kick by another.
#[derive(Debug, Serialize)]
pub struct AgainstObject<'a> {
    /// The way.
    pub how: &'a str,
    /// The other one.
    pub to: &'a str,
    /// What the first costs as a share of the second.
    pub share: f64,
    /// Its 95 % interval over blocks; null in the lab.
    pub ci95: Option<[f64; 2]>,
}

/// Whether KVM's fast MMIO bus was taken.
#[derive(Debug, Serialize)]
pub struct FastBusObject<'a> {
    /// Null where that is undecided.
    pub taken: Option<bool>,
    #[serde(flatten)]
    against: AgainstObject<'a>,
}

/// A number of ioeventfds.
#[derive(Debug, Serialize)]
pub struct ScalingObject<'a> {
    /// How many are registered.
    pub eventfds: Option<u32>,
    /// Where.
    pub how: &'a str,
    /// What the kick of the last one costs.
    pub value: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub ci95: Option<[f64; 2]>,
    #[serde(flatten)]
    facts: Facts<'a>,
}

/// What more ioeventfds cost.
#[derive(Debug, Serialize)]
pub struct TrendObject<'a> {
    /// Where they are registered.
    pub how: &'a str,
    /// The least and the largest number measured.
    pub eventfds: [u32; 2],
    /// What the largest number costs more than the least.
    pub difference: Option<f64>,
    /// Its 95 % interval over blocks; null in the lab.
    pub difference_ci95: Option<[f64; 2]>,
    /// What a doubling adds on average.
    pub per_doubling: Option<f64>,
    /// What one more adds on average.
    pub per_eventfd: Option<f64>,
    /// `flat` (but for 2 % on a host), `logarithmic`, `steeper`, `unclear`, or on a host `undecided`.
    pub shape: &'static str,
    /// Runs of each row to measure more, where it is undecided.
    pub needs_runs: Option<usize>,
}

/// Disks.
#[derive(Debug, Serialize)]
pub struct DisksObject<'a> {
    /// How many.
    pub disks: Option<u32>,
    /// `shared` or `each`.
    pub iothreads: &'a str,
    /// Requests on all disks together.
    pub requests_per_second: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub ci95: Option<[f64; 2]>,
    #[serde(flatten)]
    facts: Facts<'a>,
}

/// A thread each against one for all.
#[derive(Debug, Serialize)]
pub struct RatioObject {
    /// Disks.
    pub disks: u32,
    /// Requests per second with a thread each over those with one for all.
    pub each_to_shared: f64,
    /// Its 95 % interval over blocks; null in the lab.
    pub ci95: Option<[f64; 2]>,
    /// `same` (but for 5 %), `more`, `less` or `undecided`.
    pub finding: &'static str,
    /// Runs of each row to measure more, where it is undecided.
    pub needs_runs: Option<usize>,
}

/// A way of telling the guest.
#[derive(Debug, Serialize)]
pub struct CompletionObject<'a> {
    /// The way.
    pub how: &'a str,
    /// From the guest's port write until its handler has returned, the end of interrupt included.
    pub value: Option<f64>,
    /// Its 95 % interval; null in the lab.
    pub ci95: Option<[f64; 2]>,
    #[serde(flatten)]
    facts: Facts<'a>,
}

fn facts(line: &Line) -> Facts<'_> {
    let summary = &line.summary;
    Facts {
        row: &summary.row.name,
        n: summary.samples,
        runs: summary.runs,
        exits_per_op: summary.exits_per_op,
        userspace_exits_per_op: summary.userspace_exits_per_op,
        witness: &line.witness,
        verdict: verdict(summary.verdict),
        notes: &summary.notes,
    }
}

/// The tables of a recording.
pub fn kick<'a>(manifest: &'a Manifest, kicks: &'a Kicks, recording: Option<String>) -> Kick<'a> {
    let host = manifest.machine == Machine::Host;
    let factor = if host {
        manifest.environment.nanoseconds_per_tick()
    } else {
        Some(1.0)
    };
    let of = |line: &Line| value(line.value, factor);
    let ends = |line: &Line| interval(line.value, factor);
    let kicked = |kick: &'a Kicked| KickObject {
        how: &kick.cost.info.how,
        value: of(&kick.cost),
        ci95: ends(&kick.cost),
        value_waited: kick.waited.as_ref().and_then(of),
        value_waited_ci95: kick.waited.as_ref().and_then(ends),
        consumer_wakeup: kick.wakeup.as_ref().and_then(of),
        consumer_wakeup_ci95: kick.wakeup.as_ref().and_then(ends),
        facts: Facts {
            verdict: verdict(kick.verdict()),
            ..facts(&kick.cost)
        },
        waited: kick.waited.as_ref().map(facts),
        wakeup: kick.wakeup.as_ref().map(facts),
    };
    let trend = |trend: &'a Trend| TrendObject {
        how: &trend.how,
        eventfds: [trend.eventfds.0, trend.eventfds.1],
        difference: value(Some(trend.difference), factor),
        difference_ci95: interval(Some(trend.difference), factor),
        per_doubling: factor.map(|factor| trend.per_doubling * factor),
        per_eventfd: factor.map(|factor| trend.per_eventfd * factor),
        shape: shape(trend.shape),
        needs_runs: match trend.shape {
            Shape::Undecided { needs_runs } => Some(needs_runs),
            _ => None,
        },
    };
    let completion = |line: &'a Line| CompletionObject {
        how: &line.info.how,
        value: of(line),
        ci95: ends(line),
        facts: facts(line),
    };
    let disks = |line: &'a Line| DisksObject {
        disks: line.info.disks,
        iothreads: &line.info.how,
        requests_per_second: value(line.value, Some(1.0)),
        ci95: interval(line.value, Some(1.0)),
        facts: facts(line),
    };
    let scaling = |line: &'a Line| ScalingObject {
        eventfds: line.info.eventfds,
        how: &line.info.how,
        value: of(line),
        ci95: ends(line),
        facts: facts(line),
    };
    let ratio = |ratio: &Ratio| RatioObject {
        disks: ratio.disks,
        each_to_shared: ratio.each_to_shared,
        ci95: ratio.ci95.map(<[f64; 2]>::from),
        finding: match ratio.finding {
            Finding::Same => "same",
            Finding::More => "more",
            Finding::Less => "less",
            Finding::Undecided { .. } => "undecided",
        },
        needs_runs: match ratio.finding {
            Finding::Undecided { needs_blocks } => Some(needs_blocks),
            _ => None,
        },
    };
    Kick {
        machine: manifest.machine,
        unit: if host { "ns" } else { "instructions" },
        requests_per: if host { "second" } else { "10^9 instructions" },
        environment: &manifest.environment,
        kicks: kicks.kicks.iter().map(kicked).collect(),
        against: kicks.against.iter().map(against).collect(),
        fast_mmio_bus: kicks.fast_bus.as_ref().map(fast_bus),
        scaling: kicks.scaling.iter().map(scaling).collect(),
        trends: kicks.trends.iter().map(trend).collect(),
        disks: kicks.disks.iter().map(disks).collect(),
        ratios: kicks.ratios.iter().map(ratio).collect(),
        completions: kicks.completions.iter().map(completion).collect(),
        checks: kicks.checks.iter().map(completion).collect(),
        warnings: &manifest.warnings,
        recording,
    }
}

fn against(against: &Against) -> AgainstObject<'_> {
    AgainstObject {
        how: &against.how,
        to: &against.to,
        share: against.share,
        ci95: against.ci95.map(<[f64; 2]>::from),
    }
}

fn fast_bus(fast: &FastBus) -> FastBusObject<'_> {
    FastBusObject {
        taken: fast.taken,
        against: against(&fast.against),
    }
}

fn shape(shape: Shape) -> &'static str {
    match shape {
        Shape::Flat => "flat",
        Shape::Logarithmic => "logarithmic",
        Shape::Steeper => "steeper",
        Shape::Unclear => "unclear",
        Shape::Undecided { .. } => "undecided",
    }
}

fn value(estimate: Option<Estimate>, factor: Option<f64>) -> Option<f64> {
    Some(estimate?.value * factor?)
}

fn interval(estimate: Option<Estimate>, factor: Option<f64>) -> Option<[f64; 2]> {
    let factor = factor?;
    let (lo, hi) = estimate?.ci95?;
    Some([lo * factor, hi * factor])
}

impl Kick<'_> {
    /// The object as text, one line per field.
    pub fn render(&self) -> String {
        render(self)
    }
}
