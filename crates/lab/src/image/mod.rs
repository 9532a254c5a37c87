//! What a lab is made of inside: what it boots from, the program inside, other programs with the files that they need.

pub mod initramfs;
pub mod inside;
mod libraries;
pub(crate) mod payload;
pub(crate) mod start;
pub mod vmm_files;
