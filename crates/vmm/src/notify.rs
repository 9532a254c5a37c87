//! What a VMM does to tell its guest of something, and what a guest's kicks go to.

use std::os::fd::AsRawFd;

use exitpath_exits::kicks::{Disks, Handler, Many};
use exitpath_exits::layout::{TEST_VECTOR, port};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVMIO, kvm_interrupt, kvm_irq_routing_entry,
    kvm_irq_routing_irqchip, kvm_irqchip, kvm_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::vm::{MSI_ADDRESS, register_at, set_routes};
use crate::{Error, Vcpu, Vm};

vmm_sys_util::ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);

/// The interrupt line of the rows that raise one: a pin of the I/O APIC.
const LINE_GSI: u32 = 5;

/// Opens an eventfd.
pub(crate) fn eventfd(flags: i32) -> Result<EventFd, Error> {
    EventFd::new(flags).map_err(|error| Error::from_files("eventfd", error))
}

/// Another descriptor of an eventfd.
pub(crate) fn another(eventfd: &EventFd) -> Result<EventFd, Error> {
    let another = eventfd.try_clone();
    another.map_err(|error| Error::from_files("dup of an eventfd", error))
}

/// Registers many ioeventfds, each with an eventfd of its own.
pub(crate) fn register_many(fd: &VmFd, many: Many, into: &mut Vec<EventFd>) -> Result<(), Error> {
    crate::files::allow(u64::from(many.count))?;
    for index in 0..many.count {
        let eventfd = eventfd(libc::EFD_NONBLOCK)?;
        let (at, datamatch) = many.ioeventfd(index);
        register_at(fd, eventfd.as_raw_fd(), at, 2, datamatch)?;
        into.push(eventfd);
    }
    Ok(())
}

/// Registers the doorbell of each disk: an eventfd whose reader blocks.
pub(crate) fn register_doorbells(
    fd: &VmFd,
    disks: Disks,
    into: &mut Vec<EventFd>,
) -> Result<(), Error> {
    for disk in 0..disks.count as u16 {
        let eventfd = eventfd(0)?;
        let at = exitpath_exits::Address::Pio(port::DOORBELL + 4 * disk);
        register_at(fd, eventfd.as_raw_fd(), at, 2, None)?;
        into.push(eventfd);
    }
    Ok(())
}

/// Lets one pin of the I/O APIC be [`LINE_GSI`], and interrupt the first vCPU with the test vector,
/// edge triggered. Other routes go: no row has a device there.
pub(crate) fn route_line(fd: &VmFd) -> Result<(), Error> {
    let mut route = kvm_irq_routing_entry {
        gsi: LINE_GSI,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    route.u.irqchip = kvm_irq_routing_irqchip {
        irqchip: KVM_IRQCHIP_IOAPIC,
        pin: LINE_GSI,
    };
    set_routes(fd, &[route])?;
    let mut chip = kvm_irqchip {
        chip_id: KVM_IRQCHIP_IOAPIC,
        ..Default::default()
    };
    fd.get_irqchip(&mut chip)
        .map_err(Error::kvm("KVM_GET_IRQCHIP"))?;
    // SAFETY: the chip asked for is the I/O APIC, so that is the union's member. An entry of its
    // table is a vector in the low byte and zeros for: fixed, physical, edge, not masked, to APIC 0
    // (Intel 82093AA, 3.2.4).
    unsafe {
        chip.chip.ioapic.redirtbl[LINE_GSI as usize].bits = u64::from(TEST_VECTOR);
    }
    fd.set_irqchip(&chip).map_err(Error::kvm("KVM_SET_IRQCHIP"))
}

impl Vm {
    /// Another descriptor of the eventfd at this position: of the row's ioeventfds, then of the
    /// doorbells of its disks.
    ///
    /// # Errors
    /// [`Error::Unexpected`] where there is none, or the process may open no more.
    pub fn eventfd(&self, index: usize) -> Result<EventFd, Error> {
        let eventfd = self.eventfds.get(index).ok_or_else(|| Error::Unexpected {
            reason: format!("a row without an eventfd {index} asked for it"),
        })?;
        another(eventfd)
    }

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
