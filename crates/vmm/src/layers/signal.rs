//! How a signal gets a vCPU's thread out of `KVM_RUN` without being lost.

use std::os::fd::AsRawFd;
use std::ptr;

use kvm_bindings::{KVMIO, kvm_run, kvm_signal_mask};
use kvm_ioctls::VcpuFd;

use crate::{Error, kick};

vmm_sys_util::ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);

/// `struct kvm_signal_mask` with the kernel's set of 64 signals.
#[repr(C)]
struct SignalMask {
    length: u32,
    set: [u8; 8],
}

/// Blocks the signal that [`kick`] sends on this thread, but for `KVM_RUN`.
pub(super) fn mask(fd: &VcpuFd) -> Result<(), Error> {
    // SAFETY: a zeroed set is an empty one, and all calls fill or read at most its size.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, kick::signal());
        if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
            return Err(Error::last_os("pthread_sigmask"));
        }
    }
    let mask = SignalMask {
        length: 8,
        set: [0; 8],
    };
    // SAFETY: the structure is a valid `struct kvm_signal_mask` of the length it states.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_SIGNAL_MASK() as _, &raw const mask) };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::Kvm {
            operation: "KVM_SET_SIGNAL_MASK",
            source: std::io::Error::last_os_error(),
        })
    }
}

/// Takes a signal that has interrupted `KVM_RUN` and is blocked since.
#[cold]
pub(super) fn take() {
    // SAFETY: a zeroed set is an empty one; with no time to wait the call returns at once.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, kick::signal());
        let at_once: libc::timespec = std::mem::zeroed();
        libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const at_once);
    }
}

/// From now on the signal makes `KVM_RUN` on this page return at once, even if it comes just
/// before the call; until [`forget`].
///
/// # Safety
/// The page must stay until then.
pub(super) unsafe fn request_by(run: *mut kvm_run) {
    // SAFETY: the caller's.
    unsafe { kick::set_on_signal(&raw mut (*run).immediate_exit) };
}

/// The page goes.
pub(super) fn forget() {
    // SAFETY: null is never written to.
    unsafe { kick::set_on_signal(ptr::null_mut()) };
}
