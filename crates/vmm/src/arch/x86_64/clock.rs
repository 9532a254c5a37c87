//! The guest's clock and the host's.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::{Error, Vcpu};

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
}

/// The host's clock as a guest reads it whose TSC has no offset.
pub fn clock() -> u64 {
    // SAFETY: every CPU that KVM runs on has RDTSC, and Linux allows it to user space unless a
    // process has asked otherwise for itself (PR_SET_TSC), which this one has not.
    unsafe { core::arch::x86_64::_rdtsc() }
}
