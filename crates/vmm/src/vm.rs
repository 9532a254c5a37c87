//! A virtual machine: memory slots, in-kernel interrupt controllers, ioeventfds, vCPUs.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_exits::image::Image;
use exitpath_exits::kicks::{Disks, Many};
use exitpath_exits::layout::{SCRATCH, SCRATCH_SIZE, TEST_VECTOR};
use exitpath_exits::{Address, Ioeventfd};
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KVM_MEM_LOG_DIRTY_PAGES, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_msi, kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::{Error, Kvm, Memory, Vcpu, notify};

/// Slot number of the scratch memory.
const SCRATCH_SLOT: u32 = 1;
/// Where KVM may put its three-page TSS on Intel CPUs: below the APICs, in no slot of ours.
const KVM_TSS: usize = 0xfffb_d000;

/// Where messages to APIC 0 go, for fixed delivery (Intel SDM vol. 3, 11.11).
pub(crate) const MSI_ADDRESS: u32 = 0xfee0_0000;
/// The interrupt line that an irqfd raises; any number will do once it is routed.
const IRQFD_GSI: u32 = 5;

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
    /// Whether interrupt controllers are left to the VMM.
    pub without_irqchip: bool,
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

        let memory = Memory::new(image)?;
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
            let eventfd = notify::eventfd(flags)?;
            register(&fd, &eventfd, wanted)?;
            eventfds.push(eventfd);
        }
        if let Some(disks) = config.disks {
            notify::register_doorbells(&fd, disks, &mut eventfds)?;
        }
        if let Some(many) = config.many {
            notify::register_many(&fd, many, &mut eventfds)?;
        }
        if config.line {
            notify::route_line(&fd)?;
        }
        if let (true, Some(eventfd)) = (config.irqfd, eventfds.first()) {
            interrupt_by(&fd, eventfd)?;
        }

        let vcpus = (0..config.vcpus)
            .map(|index| {
                let entry = if index == 0 {
                    image.entry
                } else {
                    image.secondary_entry
                };
                Vcpu::new(&fd, index, entry, kvm.cpuid(), memory.clone(), stop.clone())
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

/// Makes an eventfd interrupt the first vCPU: an irqfd on a GSI that is routed to a message for
/// its APIC. The routes that KVM has by default (PIC and I/O APIC) go; no row has a device there.
fn interrupt_by(fd: &VmFd, eventfd: &EventFd) -> Result<(), Error> {
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
pub(crate) fn set_routes(fd: &VmFd, routes: &[kvm_irq_routing_entry]) -> Result<(), Error> {
    fd.set_gsi_routing(&table(routes)?)
        .map_err(Error::kvm("KVM_SET_GSI_ROUTING"))
}

fn table(routes: &[kvm_irq_routing_entry]) -> Result<KvmIrqRouting, Error> {
    KvmIrqRouting::from_entries(routes).map_err(|error| Error::Routing {
        routes: routes.len(),
        why: format!("{error:?}"),
    })
}

/// Registers a row's ioeventfd.
fn register(fd: &VmFd, eventfd: &EventFd, wanted: &Ioeventfd) -> Result<(), Error> {
    let datamatch = wanted.datamatch.map(u64::from);
    register_at(
        fd,
        eventfd.as_raw_fd(),
        wanted.at,
        u32::from(wanted.length),
        datamatch,
    )
}

/// Registers an ioeventfd. By the raw ioctl, because kvm-ioctls takes the length of the write from
/// the datamatch's type and so has no "this length, any value".
pub(crate) fn register_at(
    fd: &VmFd,
    eventfd: RawFd,
    at: Address,
    length: u32,
    datamatch: Option<u64>,
) -> Result<(), Error> {
    let ioeventfd = ioeventfd(eventfd, at, length, datamatch);
    // SAFETY: the structure is a valid `struct kvm_ioeventfd` that outlives the call.
    let result = unsafe { ioctl_with_ref(fd, KVM_IOEVENTFD(), &ioeventfd) };
    if result < 0 {
        return Err(Error::Kvm {
            operation: "KVM_IOEVENTFD",
            source: std::io::Error::last_os_error(),
        });
    }
    Ok(())
}

/// What KVM is told of it (Documentation/virt/kvm/api.rst, 4.59).
fn ioeventfd(
    fd: RawFd,
    at: Address,
    length: u32,
    datamatch: Option<u64>,
) -> kvm_bindings::kvm_ioeventfd {
    let (addr, bus) = match at {
        Address::Pio(port) => (
            u64::from(port),
            1 << kvm_bindings::kvm_ioeventfd_flag_nr_pio,
        ),
        Address::Mmio(address) => (address, 0),
    };
    let matching = match datamatch {
        Some(_) => 1 << kvm_bindings::kvm_ioeventfd_flag_nr_datamatch,
        None => 0,
    };
    kvm_bindings::kvm_ioeventfd {
        datamatch: datamatch.unwrap_or(0),
        addr,
        len: length,
        fd,
        flags: bus | matching,
        ..Default::default()
    }
}

vmm_sys_util::ioctl_iow_nr!(
    KVM_IOEVENTFD,
    kvm_bindings::KVMIO,
    0x79,
    kvm_bindings::kvm_ioeventfd
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ioeventfd_matches_by_bus_length_and_value() {
        let of = |at, length, datamatch| {
            let told = ioeventfd(7, at, length, datamatch);
            assert_eq!(told.fd, 7);
            (told.addr, told.len, told.datamatch, told.flags)
        };
        // linux/kvm.h: datamatch is bit 0, PIO bit 1.
        assert_eq!(of(Address::Pio(0x510), 1, None), (0x510, 1, 0, 2));
        assert_eq!(of(Address::Pio(0x510), 2, Some(0)), (0x510, 2, 0, 3));
        assert_eq!(
            of(Address::Mmio(0xfe00_0000), 0, None),
            (0xfe00_0000, 0, 0, 0)
        );
        assert_eq!(
            of(Address::Mmio(0xfe00_0000), 4, Some(9)),
            (0xfe00_0000, 4, 9, 1)
        );
    }

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
