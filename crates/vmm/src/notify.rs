//! What a VMM does to tell its guest of something.

use exitpath_exits::kicks::Handler;
use exitpath_exits::layout::TEST_VECTOR;
use kvm_bindings::{KVMIO, kvm_interrupt, kvm_msi};
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::vm::{LINE_GSI, MSI_ADDRESS};
use crate::{Error, Vcpu, Vm};

vmm_sys_util::ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);

impl Vm {
    /// Answers a kick as the row's handler does. `Stamp` is left to the caller.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn answer(&self, vcpu: &Vcpu, handler: Handler) -> Result<(), Error> {
        match handler {
            Handler::Nothing | Handler::Stamp => Ok(()),
            Handler::Irqfd => match self.eventfds.first() {
                Some(eventfd) => eventfd
                    .write(1)
                    .map_err(|_| Error::last_os("write to an eventfd")),
                None => Ok(()),
            },
            Handler::IrqLine => {
                for level in [true, false] {
                    self.fd
                        .set_irq_line(LINE_GSI, level)
                        .map_err(Error::kvm("KVM_IRQ_LINE"))?;
                }
                Ok(())
            }
            Handler::SignalMsi => {
                let message = kvm_msi {
                    address_lo: MSI_ADDRESS,
                    data: u32::from(TEST_VECTOR),
                    ..Default::default()
                };
                self.fd
                    .signal_msi(message)
                    .map(drop)
                    .map_err(Error::kvm("KVM_SIGNAL_MSI"))
            }
            Handler::Interrupt => vcpu.inject(TEST_VECTOR),
        }
    }
}

impl Vcpu {
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
