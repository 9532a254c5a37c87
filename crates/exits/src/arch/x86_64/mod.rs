//! x86-64: the guest programs of all rows, the frame around them, descriptor and page tables, and the image
//! that other VMMs boot.

// First, and in this order: `guest` is written in the macros of `program`, `kick_guest` in both's.
#[macro_use]
pub mod program;
#[macro_use]
pub(crate) mod guest;
pub(crate) mod kick_guest;
pub(crate) mod primitive_guest;

pub mod bare;
pub mod image;
