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
//! Which finding looks at what is listed in [`FINDINGS`].

#![forbid(unsafe_code)]

mod catalogue;
mod cgroup;
mod clock;
pub mod cmdline;
mod cpu;
mod effects;
mod finding;
mod frequency;
mod guest;
mod idle;
mod isolation;
mod kconfig;
mod kernel;
mod kvm;
mod load;
mod machine;
mod memory;
mod mitigations;
mod nested;
mod noise;
mod observability;
mod parse;
mod permission;
mod placement;
mod power;
mod process;
mod root;
mod smi;
mod smt;
mod stat;
mod steal;
#[cfg(test)]
mod testing;
mod thermal;
mod watchdog;

pub use catalogue::FINDINGS;
pub use effects::KernelSays;
pub use finding::{Examination, Finding, Level, unknown_reason};
pub use guest::{GuestCheck, GuestOutcome};
pub use kvm::to_have_kvm;
pub use noise::{NoiseSnapshot, noise_difference, noise_snapshot, noise_snapshot_on};
pub use permission::to_open_kvm;
pub use placement::choose_cpus;
pub use root::{Root, Unknown};
pub use steal::steal_ticks;

use machine::Machine;

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
        topic(&machine, &mut out);
    }
    out
}

/// One topic of the examination: reads what it needs and adds its facts and findings.
type Topic = fn(&Machine<'_>, &mut Examination);

/// In the order a person wants to read them: can it run guests at all, is time told rightly, then
/// what makes times differ, then what can be observed.
const TOPICS: &[Topic] = &[
    guest::examine,
    kvm::examine,
    nested::examine,
    clock::examine,
    cpu::examine,
    smt::examine,
    kernel::examine,
    mitigations::examine,
    effects::examine,
    power::examine,
    frequency::examine,
    idle::examine,
    thermal::examine,
    steal::examine,
    cgroup::examine,
    load::examine,
    isolation::examine,
    process::examine,
    watchdog::examine,
    smi::examine,
    memory::examine,
    observability::examine,
];

#[cfg(test)]
mod tests;
