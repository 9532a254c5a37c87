//! What is so on one architecture alone: a folder for each.
//!
//! Files of a machine are read as data, whatever the machine is that reads them, so nothing here is
//! compiled conditionally; on a machine of another architecture these topics say what is not there.

pub(crate) mod x86_64;
