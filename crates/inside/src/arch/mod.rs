//! What depends on the architecture, a folder for each: how init speaks to the machine.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{give_up, may_speak, power_off, speak};
