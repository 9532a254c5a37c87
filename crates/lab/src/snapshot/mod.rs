//! Machines that have booted: kept in the cache, so that the next lab of the same kind does not boot again.
//!
//! A snapshot is one file: the machine's memory as it is, which a machine maps and changes for itself alone, so that
//! nothing is read that is not needed; behind it what its devices and CPUs were like, and a header with checksums.
//! It is whole or not there, and what is damaged is booted anew.

mod file;
mod key;
mod store;

pub use file::About;
pub(crate) use file::Snapshot;
pub(crate) use key::Key;
pub use store::{Kept, Snapshots};
