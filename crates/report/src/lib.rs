//! Renders analysis results as terminal text, JSON, flame graphs and timelines.
//!
//! [`json`] is the promised machine-readable form and [`text`] what a person reads, each of the
//! table of exits ([`RowSummary`](exitpath_analysis::table::RowSummary)), of a traced path
//! ([`RowPath`](exitpath_analysis::path::RowPath)) and of what differs between two traces
//! ([`PathDiff`](exitpath_analysis::path::diff::PathDiff)). [`flame`] and [`perfetto`] draw a path,
//! [`markdown`] is a difference for a pull request. None of them computes: all show what the
//! analysis found, as it is.

#![forbid(unsafe_code)]

mod calls;
mod error;
pub mod flame;
mod format;
pub mod json;
mod layout;
pub mod markdown;
pub mod perfetto;
mod reasons;
pub mod text;
pub mod words;

pub use error::Error;
pub use layout::{Style, Text};
