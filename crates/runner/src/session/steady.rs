//! What keeps KVM's own code the same from a lab's first row to its last.
//!
//! KVM asks whether a vCPU's local APIC is enabled by software only while there is a vCPU whose APIC is not: a static
//! key (`apic_sw_disabled`), which counts those vCPUs, and which KVM switches off a second after the last of them enabled its own
//! (`jump_label_rate_limit`). Every row begins with such a vCPU. So the questions were there in all rows, but for one row
//! in each second of the lab's time, in the midst of which they went away: `tscdeadline` took 51 instructions less then,
//! `irqfd_loopback` 21 (`kvm_arch_vcpu_ioctl_run`, `__apic_accept_irq`, `apic_has_pending_timer`). Which row that was, chance decided.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_exits::{Image, find};
use exitpath_vmm::{Config, Error, Kvm, Vcpu, Vm};

/// A vCPU that never runs, so that its APIC stays as it was reset: disabled by software.
#[derive(Debug)]
pub struct Steady {
    _vm: Vm,
    _vcpus: Vec<Vcpu>,
}

impl Steady {
    /// Makes that vCPU: for a lab, where instructions are counted. As long as it is there the key stays on.
    ///
    /// # Errors
    /// Where KVM refuses a VM.
    pub fn new(kvm: &Kvm) -> Result<Steady, Error> {
        let row = find("empty").expect("the catalogue has it");
        let config = Config {
            vcpus: 1,
            ..Config::default()
        };
        let image = Image::new(&row.program(kvm.is_amd()));
        let (vm, vcpus) = Vm::new(kvm, &image, config, &Arc::new(AtomicBool::new(false)))?;
        Ok(Steady {
            _vm: vm,
            _vcpus: vcpus,
        })
    }
}
