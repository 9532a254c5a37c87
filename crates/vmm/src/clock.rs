//! The guest's clock, and interrupts that are injected by hand.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr, kvm_interrupt};
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::{Error, Vcpu};

vmm_sys_util::ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
vmm_sys_util::ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

impl Vcpu {
    /// Makes the guest's clock the host's: no offset between their TSCs. Linux can since 5.16.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn share_clock(&self) -> Result<(), Error> {
        let offset = 0u64;
        let attribute = kvm_device_attr {
            group: KVM_VCPU_TSC_CTRL,
            attr: u64::from(KVM_VCPU_TSC_OFFSET),
            addr: &raw const offset as u64,
            ..Default::default()
        };
        // SAFETY: the structure is a valid `struct kvm_device_attr`, the attribute's value is the
        // 64-bit word it points to (Documentation/virt/kvm/devices/vcpu.rst), and both outlive the
        // call.
        match unsafe { ioctl_with_ref(&self.fd, KVM_SET_DEVICE_ATTR(), &attribute) } {
            0 => Ok(()),
            _ => Err(Error::Kvm {
                operation: "KVM_SET_DEVICE_ATTR of KVM_VCPU_TSC_OFFSET",
                source: std::io::Error::last_os_error(),
            }),
        }
    }

    /// Injects an external interrupt, in a VM whose interrupt controllers are the VMM's.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn inject(&self, vector: u8) -> Result<(), Error> {
        let interrupt = kvm_interrupt {
            irq: u32::from(vector),
        };
        // SAFETY: the structure is a valid `struct kvm_interrupt` that outlives the call.
        match unsafe { ioctl_with_ref(&self.fd, KVM_INTERRUPT(), &interrupt) } {
            0 => Ok(()),
            _ => Err(Error::Kvm {
                operation: "KVM_INTERRUPT",
                source: std::io::Error::last_os_error(),
            }),
        }
    }
}
