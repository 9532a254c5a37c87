//! What a guest's kicks go to: eventfds, and the addresses at which KVM signals them.

use std::os::fd::{AsRawFd, RawFd};

use exitpath_exits::kicks::{Disks, Many};
use exitpath_exits::layout::port;
use exitpath_exits::{Address, Ioeventfd};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::Error;

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
        let at = Address::Pio(port::DOORBELL + 4 * disk);
        register_at(fd, eventfd.as_raw_fd(), at, 2, None)?;
        into.push(eventfd);
    }
    Ok(())
}

/// Registers a row's ioeventfd.
pub(crate) fn register(fd: &VmFd, eventfd: &EventFd, wanted: &Ioeventfd) -> Result<(), Error> {
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
fn register_at(
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
}
