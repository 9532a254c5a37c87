//! Guest programs, and what surrounds them in a guest's memory: a folder for each architecture.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::{bare, image, program};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{guest, kick_guest, primitive_guest};
