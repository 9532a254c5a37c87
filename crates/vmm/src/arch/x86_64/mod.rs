//! x86-64: how a vCPU begins, its registers, the clock, system calls in line.

mod begin;
mod clock;
mod registers;
mod syscall;

pub(crate) use begin::{begin, own_cpuid, trimmed_cpuid};
pub use clock::clock;
pub(crate) use registers::Registers;
pub(crate) use syscall::syscall;
