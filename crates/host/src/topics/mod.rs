//! What the examination looks at: a file for each topic, and the list of them.
//!
//! A new topic is a file here (`watchdog.rs` is a short one) with its `TOPIC`: what it reads and which findings
//! it has. Its `mod` line and its place in [`TOPICS`] make it part of the examination; without the place the
//! compiler says that nobody uses it. One for one architecture stands in that one's folder, in `arch`.

pub(crate) mod arch;
mod cgroup;
pub(crate) mod clock;
mod cpu;
pub(crate) mod effects;
mod frequency;
mod guest;
mod idle;
mod isolation;
mod kernel;
pub(crate) mod kvm;
pub(crate) mod load;
mod memory;
mod mitigations;
mod nested;
mod observability;
mod power;
mod process;
mod smt;
pub(crate) mod steal;
pub(crate) mod thermal;
mod watchdog;

use crate::topic::Topic;
use arch::x86_64::{smi, tsc};

/// In the order a person wants to read them: can it run guests at all, is time told rightly, then
/// what makes times differ, then what can be observed.
pub(crate) const TOPICS: &[Topic] = &[
    guest::TOPIC,
    kvm::TOPIC,
    nested::TOPIC,
    clock::TOPIC,
    tsc::TOPIC,
    cpu::TOPIC,
    smt::TOPIC,
    kernel::TOPIC,
    mitigations::TOPIC,
    effects::TOPIC,
    power::TOPIC,
    frequency::TOPIC,
    idle::TOPIC,
    thermal::TOPIC,
    steal::TOPIC,
    cgroup::TOPIC,
    load::TOPIC,
    isolation::TOPIC,
    process::TOPIC,
    watchdog::TOPIC,
    smi::TOPIC,
    memory::TOPIC,
    observability::TOPIC,
];
