//! The catalogue: each row's name, guest code, what it needs, and what it should do.
//!
//! [`row`] says what a row is; [`tables`] define all of them: [`ROWS`] is the table of exits,
//! [`ladder::RUNGS`], [`kicks::KICKS`], [`kicks::SCALING`] and [`primitives::PRIMITIVES`] are what other commands than `measure` ask for;
//! [`catalogue`] finds them. [`Image`] turns one into the memory of a guest; [`arch`] has the guest code.
//! This crate knows nothing of KVM's file descriptors: it gives bytes, addresses and
//! expectations, and the `vmm` and `runner` crates do the rest.

pub mod arch;
pub mod catalogue;
pub mod layout;
pub mod reasons;
pub mod row;
pub mod tables;

pub use arch::image::Image;
pub use arch::program::Program;
pub use arch::{bare, image};
pub use catalogue::{default_rows, find, making, nearest};
pub use row::{Address, Group, Ioeventfd, Need, Row, Scratch};
pub use tables::exits::ROWS;

/// Rungs, and what the VMM does on each.
pub mod ladder {
    pub use crate::row::rung::*;
    pub use crate::tables::ladder::*;
}

/// Primitives, and what they are used for.
pub mod primitives {
    pub use crate::tables::primitives::*;
}

/// Kicks, and what the VMM does for each.
pub mod kicks {
    pub use crate::row::kick::*;
    pub use crate::tables::kicks::*;
}
