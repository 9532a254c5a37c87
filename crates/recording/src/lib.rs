//! The one format everything is written to and read from.
//!
//! See [`model`] for what a recording says.

#![forbid(unsafe_code)]

pub mod model;

pub use model::*;
