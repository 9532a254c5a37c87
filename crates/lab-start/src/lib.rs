//! The first program of every lab, and what it is handed.
//!
//! A lab's kernel starts it as process 1, from an initramfs that has nothing else but modules. It mounts `/proc`, `/sys`
//! and `/dev`, loads the modules and stops the machine: there a snapshot is taken. What the lab is to do, and the
//! program that does it, are handed over afterwards ([`payload`]), so that neither is part of the snapshot. It unpacks
//! them and becomes the new `/init`.
//!
//! This library is what the outside knows of it; the program is `main.rs`, without dependencies. A change of it is
//! a change of what was booted, and every snapshot is made anew.

#![forbid(unsafe_code)]

pub mod payload;
pub mod places;
