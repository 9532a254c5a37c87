//! System calls in line, so that a path shows what libc adds.

use kvm_bindings::KVMIO;

vmm_sys_util::ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);

/// An ioctl's number that is none of KVM's.
const NOT_KVMS: usize = 0x5678;

/// A system call of three arguments by SYSCALL; what it returns, errors as negative numbers.
///
/// # Safety
/// As for the system call.
#[inline(always)]
pub(super) unsafe fn syscall(
    number: libc::c_long,
    first: usize,
    second: usize,
    third: usize,
) -> isize {
    let result;
    // SAFETY: the caller's. SYSCALL clobbers rcx and r11; memory counts as touched.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// An ioctl; what it returns, errors as negative numbers.
///
/// # Safety
/// As for the ioctl.
#[inline(always)]
pub(super) unsafe fn ioctl(fd: i32, request: usize, argument: usize) -> isize {
    // SAFETY: the caller's.
    unsafe { syscall(libc::SYS_ioctl, fd as usize, request, argument) }
}

/// `KVM_RUN`.
///
/// # Safety
/// `fd` is a vCPU's.
#[inline(always)]
pub(super) unsafe fn run(fd: i32) -> isize {
    // SAFETY: KVM_RUN takes no argument.
    unsafe { ioctl(fd, KVM_RUN() as usize, 0) }
}

/// `KVM_RUN` by libc.
///
/// # Safety
/// `fd` is a vCPU's.
#[inline(always)]
pub(super) unsafe fn run_by_libc(fd: i32) -> isize {
    // SAFETY: KVM_RUN takes no argument.
    let result = unsafe { libc::ioctl(fd, KVM_RUN() as _, 0) };
    if result < 0 {
        return -(std::io::Error::last_os_error().raw_os_error().unwrap_or(0) as isize);
    }
    result as isize
}

/// Into the kernel and back.
#[inline(always)]
pub(super) fn getppid() {
    // SAFETY: getppid takes nothing and cannot fail.
    unsafe { syscall(libc::SYS_getppid, 0, 0, 0) };
}

/// An ioctl that KVM refuses by its type.
///
/// # Safety
/// `fd` is a vCPU's.
#[inline(always)]
pub(super) unsafe fn refused(fd: i32) {
    // SAFETY: KVM looks at the type of a request before anything else.
    unsafe { ioctl(fd, NOT_KVMS, 0) };
}
