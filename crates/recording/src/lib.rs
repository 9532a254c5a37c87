//! What a recording says, as plain data: whole enough that every analysis and every report is made from it
//! alone, on any machine and at any later time. [`model`] says what each part means, [`names`] what facts and
//! counters are called, [`trace`] what is kept of executed instructions. [`Recording::under`] gives what was measured under one
//! of several conditions.
//!
//! This crate computes nothing and reads no file: `exitpath-store` writes recordings to disk and reads them.

#![forbid(unsafe_code)]

mod conditions;
pub mod live;
pub mod model;
pub mod names;
pub mod trace;

pub use model::*;
pub use names::{counter, fact};
pub use trace::{
    Block, Exit, Instruction, Location, Part, Path, Segment, Space, Symbol, Trace, Window,
};
