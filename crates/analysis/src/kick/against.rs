//! One way of kicking against another: what an ioeventfd saves, and whether the fast MMIO bus was taken.

use exitpath_recording::{Machine, Recording};

use super::lines::{Kicked, Line, within_blocks};
use crate::stats::{self, Confidence};
use crate::table::Verdict;

/// The fast bus spares decoding the instruction, which is most of an MMIO exit: a kick that took it costs
/// less than this share of one that did not.
const FAST: f64 = 0.8;

/// A kick by one way against a kick by another, while nobody waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Against {
    /// The way.
    pub how: String,
    /// The other one.
    pub to: String,
    /// What both cost, in ticks.
    pub values: (f64, f64),
    /// The first as a share of the second; on a host the mean of the shares within blocks.
    pub share: f64,
    /// Its 95 % interval over blocks; `None` in the lab and for a single block.
    pub ci95: Option<(f64, f64)>,
}

/// Whether KVM's fast MMIO bus was taken, which an ioeventfd of length 0 is for.
#[derive(Debug, Clone, PartialEq)]
pub struct FastBus {
    /// An ioeventfd of length 0 against one with a length.
    pub against: Against,
    /// Whether it was; `None` where the interval leaves that open, or on a host there is none.
    pub taken: Option<bool>,
}

pub(super) fn of_user_exits(recording: &Recording, kicks: &[Kicked]) -> Vec<Against> {
    let of_bus = |bus| {
        let wildcard = format!("{bus}, ioeventfd wildcard");
        against(recording, kicks, &wildcard, &format!("{bus}, user exit"))
    };
    ["PIO", "MMIO"].into_iter().filter_map(of_bus).collect()
}

pub(super) fn fast_bus(recording: &Recording, kicks: &[Kicked]) -> Option<FastBus> {
    let (any, some) = ("MMIO, ioeventfd of length 0", "MMIO, ioeventfd wildcard");
    let against = against(recording, kicks, any, some)?;
    let ends = match recording.manifest.machine {
        Machine::Lab => Some((against.share, against.share)),
        Machine::Host => against.ci95,
    };
    let taken = match ends {
        Some((_, hi)) if hi < FAST => Some(true),
        Some((lo, _)) if lo >= FAST => Some(false),
        _ => None,
    };
    Some(FastBus { against, taken })
}

fn against(recording: &Recording, kicks: &[Kicked], how: &str, to: &str) -> Option<Against> {
    let cost = |how: &str| -> Option<&Line> {
        let mut costs = kicks.iter().map(|kick| &kick.cost);
        costs.find(|cost| cost.info.how == how && cost.summary.verdict < Verdict::Void)
    };
    let (one, other) = (cost(how)?, cost(to)?);
    let values = (one.value?.value, other.value?.value);
    let (mut share, mut ci95) = (values.0 / values.1, None);
    if recording.manifest.machine == Machine::Host {
        let shares = within_blocks(recording, one, other, |one, other| one / other);
        let interval = stats::mean_interval(&shares, Confidence::P95).ok();
        share = stats::mean(&shares).unwrap_or(share);
        ci95 = interval.map(|interval| (interval.lo, interval.hi));
    }
    share.is_finite().then(|| Against {
        how: how.to_owned(),
        to: to.to_owned(),
        values,
        share,
        ci95,
    })
}
