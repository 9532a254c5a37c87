//! The tables of rows, beside each other: of exits, of the VMM's layers, of notifications.

pub mod exits;
pub mod kicks;
pub mod ladder;
pub mod primitives;
