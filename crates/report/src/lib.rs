//! Renders analysis results as terminal text and as JSON.
//!
//! [`json`] is the promised machine-readable form, [`text`] the table a person reads. Neither
//! computes: both show a [`RowSummary`](exitpath_analysis::table::RowSummary) as it is.

#![forbid(unsafe_code)]

pub mod json;
pub mod text;
