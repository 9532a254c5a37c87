//! The plugin that QEMU loads, and which QEMU takes which.
//!
//! Both objects are part of this program, so that an installed exitpath needs no other file. QEMU
//! opens them as files in memory.

use std::fs::File;

use crate::error::{Error, Result};
use crate::machine::qemu::program::Qemu;

/// For QEMU up to 8.x (plugin API 1).
static V1: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plugin-v1.so"));
/// For QEMU from 9.1 on (plugin API 3 and later).
static V3: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plugin-v3.so"));

/// What a plugin does besides supplying what the lab's CPU has of features that QEMU does not emulate: it is loaded for
/// either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// It records where the markers say so.
    Records,
    /// It ignores the markers: for telling what its presence alone does.
    Idles,
}

/// The object for this QEMU.
///
/// # Errors
/// [`Error::NoPlugin`] for a QEMU between the families.
pub(crate) fn bytes(qemu: &Qemu) -> Result<&'static [u8]> {
    match qemu.number {
        (..=8, _) => Ok(V1),
        (9, 0) => Err(Error::NoPlugin {
            qemu: qemu.version.clone(),
        }),
        _ => Ok(V3),
    }
}

/// The same, as a file in memory.
///
/// # Errors
/// As that.
pub(crate) fn object(qemu: &Qemu) -> Result<File> {
    crate::descriptors::sealed_file("plugin", bytes(qemu)?)
}
