//! The notifications of `exitpath kick`: a guest tells a device, a device tells a guest.

use crate::catalogue::Row;

/// The kicks and completions, in the order tables show them.
pub const KICKS: &[Row] = &[];
