//! Pure statistics and summaries over recordings.
//!
//! [`table`] turns a recording into the table of exits, [`stats`] and [`compare`] are the
//! statistics under it. Nothing here reads a file or a clock, or uses unsafe code.

#![forbid(unsafe_code)]

pub mod compare;
pub mod path;
pub mod stats;
pub mod table;
pub mod vmexit;
