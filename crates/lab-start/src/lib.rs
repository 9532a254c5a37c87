//! The first program of every lab, and what it is handed.
//!
//! A lab's kernel starts it as process 1, from an initramfs that has nothing else but modules. It mounts `/proc`, `/sys`
//! and `/dev`, loads the modules and stops the machine: there a snapshot is taken. What the lab is to do, and the
//! program that does it, are handed over afterwards ([`payload`]), so that neither is part of the snapshot. It unpacks
//! them and becomes the new `/init`.
//!
//! This library is that, what both sides know of it, and how a program inside is handed something; `main.rs` is the
//! program. There are no dependencies. A change here is a change of what is booted, and every snapshot is made anew.

pub mod firmware;
pub mod payload;
pub mod places;
pub mod system;
pub mod unpack;

/// What failed and why, in words.
pub type Failed = String;

/// Says what failed.
pub trait Step<T> {
    /// The value, or what failed and why.
    ///
    /// # Errors
    /// In words.
    fn step(self, what: &str) -> Result<T, Failed>;
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, what: &str) -> Result<T, Failed> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}
