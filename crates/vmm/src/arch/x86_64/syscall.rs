//! System calls in line.

/// A system call of three arguments by SYSCALL; what it returns, errors as negative numbers.
///
/// # Safety
/// As for the system call.
#[inline(always)]
pub(crate) unsafe fn syscall(
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
