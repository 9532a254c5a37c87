//! The path of an exit: from a recorded stream of instructions to calls, phases and classes.

pub mod model;

pub use model::*;
