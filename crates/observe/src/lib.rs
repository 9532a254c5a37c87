//! Exits of live virtual machines, under any VMM: counted and timed in the kernel by BPF programs.
//!
//! [`Observer`] attaches the programs of `bpf/exits.bpf.c`, which keep sums and histograms per vCPU and exit reason, and reads these.
//! The programs are attached as long as it lives, and gone with the process however that ends.

mod btf;
mod error;
mod kernel;
mod layout;
mod observer;
mod processes;
mod sys;

pub use error::{Error, Result};
pub use observer::{Observer, Options};
pub use processes::{name, vcpus, vcpus_of};
