//! What depends on the architecture, a folder for each.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::clock;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Registers, begin, own_cpuid, syscall, trimmed_cpuid};
