//! The path of an exit: from a recorded stream of instructions to calls, phases and classes.
//!
//! [`trace_rows`] makes a [`RowPath`] of each window of a trace, in two walks. The first goes over
//! the whole window in order, keeps the stack of calls, and sorts rounds into variants
//! (`rounds`, `variants`); the second goes over one round and tells all of it (`tree`, `nodes`,
//! `row`). Both are the same code, `walk`, with another observer. What an instruction is by
//! itself is worked out once for a trace (`code`, of `functions` and [`arch`]).
//!
//! How counts hang together, in instructions per round:
//!
//! ```text
//! begun between the clock reads = bracket + total
//! begun − intercepted           = ticks of the guest's clock + residual
//! total = Σ phases = Σ functions.own = Σ tree.own = Σ instructions.times
//! value = total − baseline − delay
//! ```

pub mod arch;
mod code;
pub mod conditions;
pub mod diff;
mod error;
mod functions;
pub mod gate;
mod instructions;
mod known;
pub mod model;
mod nodes;
pub mod parts;
pub mod phases;
mod rounds;
mod row;
mod rows;
mod stack;
mod state;
mod threads;
mod traits;
mod tree;
mod turns;
mod variants;
mod walk;
pub mod without;

pub use arch::x86_64::classes;
pub use diff::{Incomparable, PathDiff, diff_paths};
pub use error::PathError;
pub use model::*;
pub use parts::{Part, Whose, parts};
pub use phases::{PhaseError, PhaseTable};
pub use rows::trace_rows;
pub use turns::{Turn, turns};
