//! What keeps KVM's own code the same from a lab's first row to its last.
//!
//! KVM asks whether a vCPU's local APIC is enabled by software only while there is a vCPU whose APIC is not: a static
//! key (`apic_sw_disabled`), which counts those vCPUs, and which KVM switches off a second after the last of them enabled its own
//! (`jump_label_rate_limit`). Every row begins with such a vCPU. So the questions were there in all rows, but for one row
//! in each second of the lab's time, in the midst of which they went away: `irqfd_loopback` took 21 instructions less from then on
//! (`kvm_arch_vcpu_ioctl_run` 12, `apic_has_pending_timer` 6, `__apic_accept_irq` 3). Which row that was, chance decided.

use exitpath_vmm::Error;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

/// A vCPU that never runs, so that its APIC stays as it was reset: disabled by software.
///
/// It has no memory of the VMM's: where that lies is a part of what is counted.
#[derive(Debug)]
pub struct Steady {
    _vcpu: VcpuFd,
    _vm: VmFd,
}

impl Steady {
    /// Makes that vCPU: for a lab, where instructions are counted. As long as it is there the key stays on.
    ///
    /// # Errors
    /// Where KVM refuses it.
    pub fn new() -> Result<Steady, Error> {
        let vm = Kvm::new()
            .and_then(|kvm| kvm.create_vm())
            .map_err(Error::kvm("KVM_CREATE_VM"))?;
        vm.create_irq_chip()
            .map_err(Error::kvm("KVM_CREATE_IRQCHIP"))?;
        let vcpu = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        Ok(Steady {
            _vcpu: vcpu,
            _vm: vm,
        })
    }
}
