//! How a machine's files are read.

pub(crate) mod capabilities;
pub mod cmdline;
pub(crate) mod cpuinfo;
pub(crate) mod kconfig;
pub(crate) mod parse;
pub(crate) mod root;
pub(crate) mod stat;
