//! Boots a kernel under QEMU and brings results out

pub mod apt;
pub mod boot;
pub mod bzimage;
pub mod cache;
mod compression;
pub mod deb;
pub mod error;
pub mod init;
pub mod initramfs;
pub mod job;
mod kernel_files;
pub mod kernels;
mod libraries;
pub mod modules;
pub mod qemu;
mod sources;
mod versions;
pub mod wire;

pub use error::{Error, Result};
