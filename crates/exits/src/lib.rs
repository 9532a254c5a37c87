//! The catalogue: each row's name, guest code, what it needs, and what it should do.
//!
//! [`ROWS`] is the one place that defines rows, with [`ladder::RUNGS`], [`kicks::KICKS`] and
//! [`kicks::SCALING`] for what other commands than `measure` ask for; [`Image`] turns one into the memory of a guest.
//! This crate knows nothing of KVM's file descriptors: it gives bytes, addresses and
//! expectations, and the `vmm` and `runner` crates do the rest.

// First, and in this order: `guest` is written in the macros of `program`, `kicks` in both's.
#[macro_use]
pub mod program;
#[macro_use]
mod guest;

pub mod bare;
pub mod catalogue;
pub mod image;
pub mod kicks;
pub mod ladder;
pub mod layout;
pub mod reasons;

pub use catalogue::{Group, Need, ROWS, Row, Scratch, default_rows, find, making, nearest};
pub use image::Image;
pub use program::Program;
