//! The lab: boots a kernel under an emulator with an initramfs, brings results out, and records instructions.
//!
//! In the order in which data flows: [`kernel`] finds kernels and their modules, [`image`] puts together what
//! the kernel unpacks as its root file system, [`machine`] boots both and reads what comes out, [`stream`] makes
//! paths of the instructions that were recorded. [`arch`] has what depends on the architecture.

pub mod arch;
pub mod cache;
pub mod descriptors;
pub mod error;
mod hex;
pub mod image;
pub mod kernel;
pub mod machine;
pub mod snapshot;
pub mod stream;

pub use error::{Error, Result};
pub use image::inside::{inside, inside_file, ready_address, step_address};

// The modules that others use most, by a shorter name.
pub use image::{initramfs, vmm_files};
pub use kernel::{bzimage, deb, debug_files, kernels, modules, parameters};
pub use machine::qemu::{boot, cpu, gdb, plugin, program as qemu};
pub use stream::windows;
