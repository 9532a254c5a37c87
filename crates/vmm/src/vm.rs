//! A virtual machine: memory slots, in-kernel interrupt controllers and the routes through them, vCPUs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_exits::Ioeventfd;
use exitpath_exits::image::Image;
use exitpath_exits::kicks::{Disks, Many};
use exitpath_exits::layout::{SCRATCH, SCRATCH_SIZE, TEST_VECTOR};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_MEM_LOG_DIRTY_PAGES,
    KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
    kvm_irqchip, kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use crate::{Error, Kvm, Memory, Vcpu, arch, configuration, ioeventfds};

/// Slot number of the scratch memory.
const SCRATCH_SLOT: u32 = 1;
/// Where KVM may put its three-page TSS on Intel CPUs: below the APICs, in no slot of ours.
const KVM_TSS: usize = 0xfffb_d000;

/// Where messages to APIC 0 go, for fixed delivery (Intel SDM vol. 3, 11.11).
pub(crate) const MSI_ADDRESS: u32 = 0xfee0_0000;
/// The interrupt line that an irqfd raises; any number will do once it is routed.
const IRQFD_GSI: u32 = 5;
/// The interrupt line of the rows that raise one: a pin of the I/O APIC.
pub(crate) const LINE_GSI: u32 = 5;

/// What a VM is made of, apart from its image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Config<'a> {
    /// Number of vCPUs.
    pub vcpus: u8,
    /// ioeventfds to register.
    pub ioeventfds: &'a [Ioeventfd],
    /// Whether the first ioeventfd's eventfd is an irqfd too: signalled, it interrupts the first
    /// vCPU with the test vector.
    pub irqfd: bool,
    /// Whether the guest uses the scratch slot; disks do in any case.
    pub scratch: bool,
    /// Whether writes to the scratch slot are logged.
    pub log_scratch: bool,
    /// Whether somebody waits for the ioeventfds' eventfds, so that reading one blocks.
    pub blocking: bool,
    /// Further ioeventfds, many of them.
    pub many: Option<Many>,
    /// Disks, each with a doorbell.
    pub disks: Option<Disks>,
    /// Whether a pin of the I/O APIC is set up to interrupt the first vCPU.
    pub line: bool,
    /// Whether the guest has no PMU, where KVM can leave it out.
    pub without_pmu: bool,
    /// Whether interrupt controllers are left to the VMM.
    pub without_irqchip: bool,
    /// Whether the guest's CPUID has only those leaves that a 64-bit guest cannot do without.
    pub trimmed_cpuid: bool,
    /// Whether HLT, PAUSE and MWAIT do not exit, as far as KVM can leave these exits out.
    pub without_idle_exits: bool,
    /// Whether accesses to MSRs go by a filter, which lets all through.
    pub msr_filter: bool,
}

/// A virtual machine whose vCPUs have been handed out.
#[derive(Debug)]
pub struct Vm {
    // Before the memory, so that it is closed first.
    pub(crate) fd: VmFd,
    memory: Memory,
    log_scratch: bool,
    /// Kept open: KVM signals them, and few are read.
    pub(crate) eventfds: Vec<EventFd>,
}

impl Vm {
    /// Makes a VM and its vCPUs, ready to run. Setting `stop` and sending the vCPUs' threads
    /// [`crate::kick`]'s signal makes them return.
    ///
    /// # Errors
    /// Where KVM refuses any part of it.
    pub fn new(
        kvm: &Kvm,
        image: &Image,
        config: Config<'_>,
        stop: &Arc<AtomicBool>,
    ) -> Result<(Vm, Vec<Vcpu>), Error> {
        let fd = kvm
            .device()
            .create_vm()
            .map_err(Error::kvm("KVM_CREATE_VM"))?;
        // Intel only; other KVMs refuse it or take no notice.
        let _ = fd.set_tss_address(KVM_TSS);
        if !config.without_irqchip {
            fd.create_irq_chip()
                .map_err(Error::kvm("KVM_CREATE_IRQCHIP"))?;
        }

        if config.without_pmu {
            configuration::leave_pmu_out(kvm, &fd)?;
        }
        if config.without_idle_exits {
            configuration::leave_idle_exits_out(kvm, &fd)?;
        }
        if config.msr_filter {
            configuration::filter_msrs(kvm, &fd)?;
        }
        let memory = Memory::new(image, config.scratch || config.disks.is_some())?;
        for (slot, &(start, size, host)) in (0..).zip(&memory.slots()?) {
            let log = slot == SCRATCH_SLOT && config.log_scratch;
            set_slot(&fd, slot, start, size, host, log)?;
        }

        let mut eventfds = Vec::new();
        for wanted in config.ioeventfds {
            let flags = if config.blocking {
                0
            } else {
                libc::EFD_NONBLOCK
            };
            let eventfd = ioeventfds::eventfd(flags)?;
            ioeventfds::register(&fd, &eventfd, wanted)?;
            eventfds.push(eventfd);
        }
        if let Some(disks) = config.disks {
            ioeventfds::register_doorbells(&fd, disks, &mut eventfds)?;
        }
        if let Some(many) = config.many {
            ioeventfds::register_many(&fd, many, &mut eventfds)?;
        }
        if config.line {
            route_line(&fd)?;
        }
        if let (true, Some(eventfd)) = (config.irqfd, eventfds.first()) {
            interrupt_by(&fd, eventfd)?;
        }

        let cpuid = match config.trimmed_cpuid {
            true => arch::trimmed_cpuid(kvm.cpuid()),
            false => kvm.cpuid().clone(),
        };
        let vcpus = (0..config.vcpus)
            .map(|index| {
                let entry = if index == 0 {
                    image.entry
                } else {
                    image.secondary_entry
                };
                Vcpu::new(&fd, index, entry, &cpuid, memory.clone(), stop.clone())
            })
            .collect::<Result<_, _>>()?;
        let vm = Vm {
            fd,
            memory,
            log_scratch: config.log_scratch,
            eventfds,
        };
        Ok((vm, vcpus))
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Another descriptor of the eventfd at this position: of the row's ioeventfds, then of the
    /// doorbells of its disks.
    ///
    /// # Errors
    /// [`Error::Unexpected`] where there is none, or the process may open no more.
    pub fn eventfd(&self, index: usize) -> Result<EventFd, Error> {
        let eventfd = self.eventfds.get(index).ok_or_else(|| Error::Unexpected {
            reason: format!("a row without an eventfd {index} asked for it"),
        })?;
        ioeventfds::another(eventfd)
    }

    /// Removes and adds the scratch slot: KVM maps none of its pages any more, the host all.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn unmap_scratch(&self) -> Result<(), Error> {
        let (_, _, host) = self.memory.slots()?[SCRATCH_SLOT as usize];
        set_slot(&self.fd, SCRATCH_SLOT, SCRATCH, 0, host, false)?;
        set_slot(
            &self.fd,
            SCRATCH_SLOT,
            SCRATCH,
            SCRATCH_SIZE,
            host,
            self.log_scratch,
        )
    }

    /// Fetches the scratch slot's dirty log, which makes every page of it clean. Gives the number
    /// of pages that were dirty.
    ///
    /// # Errors
    /// Where KVM refuses.
    pub fn clean_scratch(&self) -> Result<u64, Error> {
        let log = self
            .fd
            .get_dirty_log(SCRATCH_SLOT, SCRATCH_SIZE as usize)
            .map_err(Error::kvm("KVM_GET_DIRTY_LOG"))?;
        Ok(log.iter().map(|word| u64::from(word.count_ones())).sum())
    }
}

fn set_slot(
    fd: &VmFd,
    slot: u32,
    start: u64,
    size: u64,
    host: u64,
    log: bool,
) -> Result<(), Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: if log { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
        guest_phys_addr: start,
        memory_size: size,
        userspace_addr: host,
    };
    // SAFETY: the host range is a live mapping of at least `size` bytes of the VM's `Memory`. The
    // `Vm` and each `Vcpu` hold that memory longer than their descriptors, and KVM forgets the
    // slots when the last of these is closed.
    unsafe { fd.set_user_memory_region(region) }.map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))
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

/// Makes an eventfd interrupt the first vCPU: an irqfd on a GSI that is routed to a message for
/// its APIC. The routes that KVM has by default (PIC and I/O APIC) go; no row has a device there.
pub(crate) fn interrupt_by(fd: &VmFd, eventfd: &EventFd) -> Result<(), Error> {
    let mut route = kvm_irq_routing_entry {
        gsi: IRQFD_GSI,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    // Fixed delivery, edge triggered, to APIC 0 (Intel SDM vol. 3, 11.11).
    route.u.msi = kvm_irq_routing_msi {
        address_lo: MSI_ADDRESS,
        data: u32::from(TEST_VECTOR),
        ..Default::default()
    };
    set_routes(fd, &[route])?;
    fd.register_irqfd(eventfd, IRQFD_GSI)
        .map_err(Error::kvm("KVM_IRQFD"))
}

/// Makes these the VM's interrupt routes.
fn set_routes(fd: &VmFd, routes: &[kvm_irq_routing_entry]) -> Result<(), Error> {
    fd.set_gsi_routing(&table(routes)?)
        .map_err(Error::kvm("KVM_SET_GSI_ROUTING"))
}

fn table(routes: &[kvm_irq_routing_entry]) -> Result<KvmIrqRouting, Error> {
    KvmIrqRouting::from_entries(routes).map_err(|error| Error::Routing {
        routes: routes.len(),
        why: format!("{error:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_cannot_be_made_are_no_matter_of_memory() {
        let route = kvm_irq_routing_entry::default();
        assert!(table(&[route]).is_ok());
        let error = table(&vec![route; 1 << 16]).expect_err("more than KVM's most");
        assert!(matches!(error, Error::Routing { routes: 65_536, .. }));
        let words = error.to_string();
        assert!(words.contains("65536 interrupt routes"), "{words}");
        assert!(!words.contains("memory"), "{words}");
    }
}
