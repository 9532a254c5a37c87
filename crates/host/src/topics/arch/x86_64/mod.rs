//! x86: its own topics, and tables for the topics that every architecture has.

pub(crate) mod kvm;
pub(crate) mod mitigations;
pub(crate) mod setters;
pub(crate) mod smi;
pub(crate) mod tsc;

/// Flags of `/proc/cpuinfo` that say what a hypervisor can use.
pub(crate) const VIRTUALIZATION: &[&str] = &[
    "vmx",
    "svm",
    "npt",
    "nrip_save",
    "avic",
    "x2avic",
    "vgif",
    "vnmi",
    "v_vmsave_vmload",
    "v_spec_ctrl",
    "tsc_scale",
    "v_tsc_aux",
    "decodeassists",
    "flushbyasid",
    "pausefilter",
    "pfthreshold",
    "vmcb_clean",
    "ibrs",
    "ibpb",
    "ibrs_enhanced",
    "md_clear",
    "flush_l1d",
];
