//! Machines: something that boots a kernel with an initramfs, brings results out, and can record instructions.
//!
//! What a machine can do is data ([`Abilities`]), so that who plans for it need not know which it is. There
//! is one so far, QEMU with emulated SVM ([`qemu`]).

pub mod qemu;

/// What a machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// The kind, as recordings name it.
    pub kind: &'static str,
    /// Architecture of its kernels, as recordings name it (`uname -m`).
    pub arch: &'static str,
    /// Whether its clock counts instructions, so that figures are exact.
    pub counted_time: bool,
    /// Whether two boots with one seed are identical.
    pub seeds: bool,
    /// CPUs that it boots with counted time, at most.
    pub most_cpus: u32,
    /// The modules of KVM, the last one first to be named by who loads them.
    pub kvm_module: &'static str,
    /// Whether KVM runs guests as on a CPU of AMD.
    pub amd: bool,
}
