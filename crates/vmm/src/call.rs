//! System calls in line, so that a path shows what libc adds.

use kvm_bindings::KVMIO;

use crate::arch::syscall;

vmm_sys_util::ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);

/// An ioctl's number that is none of KVM's.
const NOT_KVMS: usize = 0x5678;

/// An ioctl; what it returns, errors as negative numbers.
///
/// # Safety
/// As for the ioctl.
#[inline(always)]
pub(crate) unsafe fn ioctl(fd: i32, request: usize, argument: usize) -> isize {
    // SAFETY: the caller's.
    unsafe { syscall(libc::SYS_ioctl, fd as usize, request, argument) }
}

/// `KVM_RUN`.
///
/// # Safety
/// `fd` is a vCPU's.
#[inline(always)]
pub(crate) unsafe fn run(fd: i32) -> isize {
    // SAFETY: KVM_RUN takes no argument.
    unsafe { ioctl(fd, KVM_RUN() as usize, 0) }
}

/// `KVM_RUN` by libc.
///
/// # Safety
/// `fd` is a vCPU's.
#[inline(always)]
pub(crate) unsafe fn run_by_libc(fd: i32) -> isize {
    // SAFETY: KVM_RUN takes no argument.
    let result = unsafe { libc::ioctl(fd, KVM_RUN() as _, 0) };
    if result < 0 {
        return -(std::io::Error::last_os_error().raw_os_error().unwrap_or(0) as isize);
    }
    result as isize
}

/// Into the kernel and back.
#[inline(always)]
pub(crate) fn getppid() {
    // SAFETY: getppid takes nothing and cannot fail.
    unsafe { syscall(libc::SYS_getppid, 0, 0, 0) };
}

/// An ioctl that KVM refuses by its type.
///
/// # Safety
/// `fd` is a vCPU's.
#[inline(always)]
pub(crate) unsafe fn refused(fd: i32) {
    // SAFETY: KVM looks at the type of a request before anything else.
    unsafe { ioctl(fd, NOT_KVMS, 0) };
}
