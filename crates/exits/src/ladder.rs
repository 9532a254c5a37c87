//! The ladder of `exitpath userspace`: one user exit, with layers of a VMM's user-space path
//! switched on.

use crate::catalogue::Row;

/// The rungs, in the order tables show them.
pub const RUNGS: &[Row] = &[];
