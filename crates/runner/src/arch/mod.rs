//! What depends on the architecture, a folder for each.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{NOPS, REFUSALS, exception, marker, native_ticks_per_nop};
