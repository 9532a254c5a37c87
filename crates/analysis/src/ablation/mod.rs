//! What optional work costs: where it is, which combinations of it are switched off, and what comes of their values.

pub mod code;
pub mod design;
pub mod effects;
pub mod knobs;
pub mod summary;
pub mod table;
