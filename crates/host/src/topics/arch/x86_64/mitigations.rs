//! Which mitigations work on the path of an exit, and the words by which the kernel says so.
//!
//! Sources: `Documentation/admin-guide/hw-vuln/`, `Documentation/admin-guide/kernel-parameters.txt`,
//! `arch/x86/kernel/cpu/bugs.c`.

/// Boot parameters that change what mitigations do on entries and exits.
pub(crate) const PARAMETERS: &[&str] = &[
    "mitigations",
    "gather_data_sampling",
    "indirect_target_selection",
    "kvm-intel.vmentry_l1d_flush",
    "l1tf",
    "mds",
    "mmio_stale_data",
    "nopti",
    "nospectre_v1",
    "nospectre_v2",
    "pti",
    "reg_file_data_sampling",
    "retbleed",
    "spec_rstack_overflow",
    "spec_store_bypass_disable",
    "spectre_bhi",
    "spectre_v2",
    "spectre_v2_user",
    "srbds",
    "tsa",
    "tsx_async_abort",
    "vmscape",
];

/// A vulnerability whose mitigation works on the way into or out of a guest: the file, what the
/// mitigation does there, the parameter that switches it.
pub(crate) const ON_THE_PATH: &[(&str, &str, &str)] = &[
    (
        "indirect_target_selection",
        "indirect jumps and returns on the path go through thunks",
        "indirect_target_selection=off",
    ),
    (
        "l1tf",
        "the L1 data cache may be flushed on entry",
        "l1tf=off",
    ),
    (
        "mds",
        "CPU buffers are cleared on entry and on the way to user space",
        "mds=off",
    ),
    (
        "meltdown",
        "page tables are switched on the way to user space and back",
        "nopti",
    ),
    (
        "mmio_stale_data",
        "CPU buffers may be cleared on entry",
        "mmio_stale_data=off",
    ),
    (
        "reg_file_data_sampling",
        "CPU buffers are cleared on entry and on the way to user space",
        "reg_file_data_sampling=off",
    ),
    (
        "retbleed",
        "returns and the entry from a guest are guarded",
        "retbleed=off",
    ),
    (
        "spec_rstack_overflow",
        "returns are guarded, or branch prediction is flushed on exit",
        "spec_rstack_overflow=off",
    ),
    (
        "spec_store_bypass",
        "SPEC_CTRL may be written on entry and exit",
        "spec_store_bypass_disable=off",
    ),
    (
        "spectre_v2",
        "on exit SPEC_CTRL may be written, the return buffer filled, the branch history cleared; indirect jumps are guarded",
        "spectre_v2=off",
    ),
    (
        "tsa",
        "CPU buffers are cleared on entry and on the way to user space",
        "tsa=off",
    ),
    (
        "tsx_async_abort",
        "CPU buffers are cleared on entry and on the way to user space",
        "tsx_async_abort=off",
    ),
    (
        "vmscape",
        "branch prediction is flushed before user space runs after a guest",
        "vmscape=off",
    ),
];

/// Whether something is done about it: a mitigation, or the half of one that the kernel calls
/// vulnerable all the same (`Vulnerable: Safe RET, no microcode`).
pub(crate) fn works(state: &str) -> bool {
    const HALVES: &[&str] = &[
        "Safe RET",
        "Clear CPU buffers",
        "etpoline",
        "IBRS",
        "LFENCE",
        "IBPB",
        "ntrained return",
    ];
    state.contains("Mitigation:")
        || state.starts_with("Vulnerable: ") && HALVES.iter().any(|half| state.contains(half))
}
