//! x86-64 with SVM: instructions and their classes, the kernel's functions, and how one is made to return at
//! once.

pub mod classes;
pub(in crate::path) mod decode;
pub(in crate::path) mod traits;

use exitpath_recording::Exit;

/// The architecture, as recordings name it.
pub(in crate::path) const NAME: &str = "x86_64";
/// The built-in table of phases.
pub(in crate::path) const PHASES: &str = include_str!("phases.txt");

/// What the compiler leaves at the beginning of a traceable function, and ftrace makes of it: a
/// NOP of five bytes.
pub(in crate::path) const FTRACE_NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// Before it where the kernel has indirect branch tracking: `endbr64`, or a NOP in its place where nothing
/// calls the function by its address (`gen_endbr_poison` in arch/x86/include/asm/ibt.h: `nopw (%rax)`,
/// and `nopl -42(%rax)` from Linux 6.15 on).
pub(in crate::path) const LANDING_PADS: [[u8; 4]; 3] = [
    [0xf3, 0x0f, 0x1e, 0xfa],
    [0x66, 0x0f, 0x1f, 0x00],
    [0x0f, 0x1f, 0x40, 0xd6],
];
/// `ret`.
pub(in crate::path) const RETURN: [u8; 5] = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];
/// `xor eax, eax; ret`.
pub(in crate::path) const RETURN_0: [u8; 5] = [0x31, 0xc0, 0xc3, 0xcc, 0xcc];

/// Whether an exit came in the midst of an instruction, which has begun and is not executed then; `None` where the reason
/// does not tell.
pub(in crate::path) fn interrupted_an_instruction(exit: &Exit) -> Option<bool> {
    /// Of a fault's EXITINFO1: it was the fetch of an instruction, which has not begun.
    const OF_FETCH: u64 = 1 << 4;
    match exit.code {
        // INTR, NMI, SMI, INIT, VINTR: between two instructions.
        0x60..=0x64 => Some(false),
        // A nested page fault, and an intercepted one.
        0x400 | 0x4e => Some(exit.info1 & OF_FETCH == 0),
        // Accesses to CRn and DRn, and instructions but for a task switch, FERR_FREEZE and shutdown.
        0x00..=0x3f | 0x65..=0x7c | 0x80..=0x8e => Some(true),
        _ => None,
    }
}
