//! The initramfs: the program inside, and other programs with the files that they need.

pub mod initramfs;
pub mod inside;
mod libraries;
pub mod vmm_files;
