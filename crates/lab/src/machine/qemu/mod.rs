//! QEMU's TCG with counted time (`-icount`) and emulated SVM, of which the plugin supplies what QEMU lacks: one instruction is one
//! tick of the guest's TSC.

pub mod boot;
mod child;
mod complaint;
mod console;
pub mod cpu;
pub mod gdb;
mod lab;
mod monitor;
pub mod plugin;
pub mod program;
mod silence;

use exitpath_recording::kind;

use super::Abilities;
use crate::arch::x86_64;

/// What this machine can do with such a QEMU.
pub fn abilities(qemu: &program::Qemu) -> Abilities {
    Abilities {
        kind: kind::SVM,
        arch: x86_64::NAME,
        counted_time: true,
        seeds: true,
        most_cpus: if qemu.boots_two_cpus() { MOST_CPUS } else { 1 },
        kvm_module: x86_64::KVM_MODULE,
        amd: true,
    }
}

/// CPUs of a lab, at most.
const MOST_CPUS: u32 = 8;
