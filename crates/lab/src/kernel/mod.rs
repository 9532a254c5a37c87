//! Kernels: archives and packages, images and what is in them, modules and their parameters.

pub mod apt;
mod at_hand;
pub mod bzimage;
mod compression;
pub mod deb;
pub mod debug_files;
mod kernel_files;
pub mod kernels;
pub mod modules;
pub mod parameters;
mod sources;
mod versions;
