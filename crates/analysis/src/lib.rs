//! Pure statistics and summaries over recordings.
//!
//! [`table`] turns a recording into the table of exits, [`userspace`] one of the ladder into what
//! each layer of a VMM costs, [`stats`] and [`compare`] are the
//! statistics under it. Nothing here reads a file or a clock, or uses unsafe code.

#![forbid(unsafe_code)]

pub mod ablation;
pub mod compare;
mod conditions;
pub mod kick;
pub mod live;
pub mod nothing;
pub mod path;
pub mod primitives;
pub mod stats;
pub mod table;
pub mod userspace;
pub mod vmexit;
