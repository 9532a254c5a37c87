//! A small VMM on rust-vmm's kvm-ioctls and kvm-bindings.
//!
//! [`Kvm`] is `/dev/kvm`, [`Vm`] a virtual machine made from a catalogue row's image, [`Vcpu`] one
//! virtual CPU with the loop around `KVM_RUN`, [`Devices`] what answers in user space. [`Model`] is
//! what the rungs of the ladder have in its place. This crate
//! neither measures nor prints: guests take their own timestamps, and the `runner` crate asks
//! for them and reads the counters.

mod arch;
mod call;
mod configuration;
mod consumer;
mod devices;
pub mod disk;
mod error;
pub mod files;
mod ioeventfds;
pub mod kick;
mod kvm;
mod layers;
mod memory;
mod notify;
mod stats;
mod vcpu;
mod vm;

pub use arch::clock;
pub use consumer::{Consumer, Taken, ThreadPlacement};
pub use devices::Devices;
pub use error::Error;
pub use kvm::Kvm;
pub use layers::Model;
pub use memory::Memory;
pub use stats::Stats;
pub use vcpu::{Stop, Vcpu};
pub use vm::{Config, Vm};
