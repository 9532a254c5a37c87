//! The program as its users meet it: real labs, this machine's KVM where there is one, bad input.

mod ablate;
mod assists;
mod attach;
mod bad_input;
mod common;
mod conditions;
mod dead_labs;
mod host;
mod host_vmm;
mod image;
mod kick;
mod lab;
mod options;
mod shared_root;
mod snapshots;
mod trace;
mod userspace;
mod vmm;
