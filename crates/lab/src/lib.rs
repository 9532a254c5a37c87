//! Boots a kernel under QEMU and brings results out

pub mod apt;
pub mod boot;
pub mod bzimage;
pub mod cache;
mod complaint;
mod compression;
mod console;
pub mod deb;
pub mod debug_files;
pub mod descriptors;
pub mod error;
pub mod gdb;
pub mod init;
pub mod initramfs;
pub mod job;
mod kernel_files;
pub mod kernels;
mod libraries;
pub mod modules;
pub mod parameters;
pub mod plugin;
pub mod qemu;
mod silence;
mod sources;
pub mod stream;
mod versions;
pub mod vmm_files;
pub mod windows;
pub mod wire;

pub use error::{Error, Result};
