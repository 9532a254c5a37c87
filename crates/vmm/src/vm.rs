//! A virtual machine: memory slots, in-kernel interrupt controllers, ioeventfds, vCPUs.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use exitpath_exits::catalogue::{Address, Ioeventfd};
use exitpath_exits::image::Image;
use exitpath_exits::layout::{SCRATCH, SCRATCH_SIZE};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::{Error, Kvm, Memory, Vcpu};

/// Slot number of the scratch memory.
const SCRATCH_SLOT: u32 = 1;
/// Where KVM may put its three-page TSS on Intel CPUs: below the APICs, in no slot of ours.
const KVM_TSS: usize = 0xfffb_d000;

/// What a VM is made of, apart from its image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Config<'a> {
    /// Number of vCPUs.
    pub vcpus: u8,
    /// ioeventfds to register.
    pub ioeventfds: &'a [Ioeventfd],
    /// Whether writes to the scratch slot are logged.
    pub log_scratch: bool,
}

/// A virtual machine whose vCPUs have been handed out.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    memory: Memory,
    log_scratch: bool,
    /// Kept open: KVM signals them, nobody reads.
    _eventfds: Vec<EventFd>,
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
        fd.create_irq_chip()
            .map_err(Error::kvm("KVM_CREATE_IRQCHIP"))?;

        let memory = Memory::new(image)?;
        for (slot, &(start, size, host)) in (0..).zip(&memory.slots()?) {
            let log = slot == SCRATCH_SLOT && config.log_scratch;
            set_slot(&fd, slot, start, size, host, log)?;
        }

        let mut eventfds = Vec::new();
        for wanted in config.ioeventfds {
            let eventfd =
                EventFd::new(libc::EFD_NONBLOCK).map_err(|_| Error::last_os("eventfd"))?;
            register(&fd, &eventfd, wanted)?;
            eventfds.push(eventfd);
        }

        let vcpus = (0..config.vcpus)
            .map(|index| {
                let entry = if index == 0 {
                    image.entry
                } else {
                    image.secondary_entry
                };
                Vcpu::new(&fd, index, entry, kvm.cpuid(), stop.clone())
            })
            .collect::<Result<_, _>>()?;
        let vm = Vm {
            fd,
            memory,
            log_scratch: config.log_scratch,
            _eventfds: eventfds,
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
    // SAFETY: the host range is a live mapping of at least `size` bytes owned by the VM's
    // `Memory`, which the `Vm` keeps as long as its descriptor.
    unsafe { fd.set_user_memory_region(region) }.map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))
}

/// Registers an ioeventfd. By the raw ioctl, because kvm-ioctls takes the length of the write from
/// the datamatch's type and so has no "this length, any value".
fn register(fd: &VmFd, eventfd: &EventFd, wanted: &Ioeventfd) -> Result<(), Error> {
    let (addr, bus) = match wanted.at {
        Address::Pio(port) => (
            u64::from(port),
            1 << kvm_bindings::kvm_ioeventfd_flag_nr_pio,
        ),
        Address::Mmio(address) => (address, 0),
    };
    let matching = match wanted.datamatch {
        Some(_) => 1 << kvm_bindings::kvm_ioeventfd_flag_nr_datamatch,
        None => 0,
    };
    let ioeventfd = kvm_bindings::kvm_ioeventfd {
        datamatch: wanted.datamatch.map_or(0, u64::from),
        addr,
        len: u32::from(wanted.length),
        fd: eventfd.as_raw_fd(),
        flags: bus | matching,
        ..Default::default()
    };
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

vmm_sys_util::ioctl_iow_nr!(
    KVM_IOEVENTFD,
    kvm_bindings::KVMIO,
    0x79,
    kvm_bindings::kvm_ioeventfd
);
