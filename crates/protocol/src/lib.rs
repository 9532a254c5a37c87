//! What is asked of the program inside a lab, and what it answers: plain data that both sides compile in.
//!
//! [`job`] is what its init does, as a file in the initramfs; [`wire`] is how results come out. [`BUILD`] tells
//! whether two programs were built from the same sources: one from inside that was not would measure something else.

#![forbid(unsafe_code)]

/// Name of the symbol of a function that every run executes once, before it counts anything: where a lab's
/// machine can be stopped when everything is loaded. The program inside is linked to its address.
pub const READY_SYMBOL: &str = "exitpath_arm";

/// Name of the symbol of a function that a run in steps executes before each step and behind it.
pub const STEP_SYMBOL: &str = "exitpath_step";

pub mod job;
pub mod wire;

/// What the sources of all that runs inside a lab, and how they are compiled, hash to. The program inside has it
/// in its bytes, behind [`MARK`].
pub const BUILD: &str = env!("EXITPATH_SOURCES");
/// What stands before [`BUILD`] in the program inside.
pub const MARK: &str = "exitpath-inside built from ";
