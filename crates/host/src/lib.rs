//! What this machine can be trusted for: the facts behind `exitpath doctor`.
//!
//! [`examine`] looks at one machine and returns an [`Examination`]: *facts* (machine-readable,
//! written into every recording) and *findings* (what a person should know before believing a
//! time measured here, and what to do about it). [`noise_snapshot`] is the small, cheap part of it
//! that is taken before and after every run.
//!
//! What this crate promises:
//!
//! - Everything is read through a [`Root`], a folder prefix, so that any machine can be examined
//!   from a copy of its `/proc`, `/sys` and `/dev`, and every probe is tested that way.
//! - What cannot be read is said to be [`Unknown`], with the reason. A fact that is unknown has the
//!   value `{"unknown": "reason"}`; it is never left out. See [`Examination::unknown_facts`].
//! - Malformed files make unknown facts, never a panic.
//! - Whether guests run on the CPU is told by a calibration guest ([`GuestCheck`]), which somebody
//!   else runs, and never by a module's name.
//!
//! What it must never do: print, change a setting, start a process, or run a guest.
//!
//! Which finding looks at what, [`findings`] tells.

#![forbid(unsafe_code)]

mod calibration;
mod finding;
mod machine;
mod noise;
mod placement;
mod reading;
#[cfg(test)]
mod testing;
mod topic;
mod topics;

pub use calibration::{GuestCheck, GuestOutcome};
pub use finding::{Examination, Finding, Level, unknown_reason};
pub use noise::{NoiseSnapshot, noise_difference, noise_snapshot, noise_snapshot_on};
pub use placement::choose_cpus;
pub use reading::cmdline;
pub use reading::root::{Root, Unknown};
pub use topics::effects::KernelSays;
pub use topics::kvm::{to_have_kvm, to_open_kvm};
pub use topics::steal::steal_ticks;

use machine::Machine;
use topics::TOPICS;

/// Looks at the machine under `root` and says what a measurement on it can be trusted for.
///
/// `guest` is what the calibration guest said; without it the examination says that nobody has
/// checked whether guests run on the CPU.
///
/// Reads files only, a few hundred small ones. It takes milliseconds, but reading `/proc/cpuinfo`
/// interrupts the other CPUs, so do not call it while something is being measured;
/// [`noise_snapshot`] is for that.
pub fn examine(root: &Root, guest: Option<&GuestCheck>) -> Examination {
    let machine = Machine::read(root, guest);
    let mut out = Examination::default();
    for topic in TOPICS {
        (topic.examine)(&machine, &mut out);
    }
    out
}

/// Every finding's `id` and what it looks at, topic by topic. An `id` keeps its meaning for good; scripts
/// may rely on it.
pub fn findings() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOPICS.iter().flat_map(|topic| topic.findings).copied()
}

#[cfg(test)]
mod tests;
