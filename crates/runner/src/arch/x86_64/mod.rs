//! x86-64: the markers that the lab's plugin looks for, NOPs on the bare CPU, names of exceptions.

mod exceptions;
pub(crate) mod marker;
mod nops;

pub(crate) use exceptions::{REFUSALS, exception};
pub(crate) use nops::{NOPS, native_ticks_per_nop};
