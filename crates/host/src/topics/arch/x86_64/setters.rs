//! Options that set mitigations, and what the kernel says when they have.
//!
//! Sources: `Documentation/admin-guide/kernel-parameters.txt`, `Documentation/admin-guide/hw-vuln/`
//! (options and values); `arch/x86/kernel/cpu/bugs.c` (the words of the files). The table is cautious:
//! of an option or a value that is not here, nothing is expected.

/// An option that sets the mitigation of a vulnerability.
pub(crate) struct Setter {
    pub(crate) option: &'static str,
    /// The vulnerability's file.
    pub(crate) file: &'static str,
    /// Values after which a mitigation must work, with what the file must have (one of several, divided by `|`) where
    /// that is the same for all kernels. Of values that are not here nothing is expected.
    pub(crate) on: &'static [(&'static str, &'static str)],
    /// All values there are, where the kernel says nothing of others; else empty.
    pub(crate) all: &'static [&'static str],
}

const FULL: &[(&str, &str)] = &[("full", ""), ("full,nosmt", "")];
const FULL_OR_OFF: &[&str] = &["full", "full,nosmt", "off"];

pub(crate) const SETTERS: &[Setter] = &[
    Setter {
        option: "gather_data_sampling",
        file: "gather_data_sampling",
        on: &[("force", "")],
        all: &["off", "force"],
    },
    Setter {
        option: "indirect_target_selection",
        file: "indirect_target_selection",
        on: &[("on", ""), ("force", ""), ("stuff", "stuff")],
        all: &[],
    },
    Setter {
        option: "l1tf",
        file: "l1tf",
        on: &[
            ("full", ""),
            ("full,force", ""),
            ("flush", ""),
            ("flush,nosmt", ""),
        ],
        all: &[
            "full",
            "full,force",
            "flush",
            "flush,nosmt",
            "flush,nowarn",
            "off",
        ],
    },
    Setter {
        option: "mds",
        file: "mds",
        on: FULL,
        all: FULL_OR_OFF,
    },
    Setter {
        option: "mmio_stale_data",
        file: "mmio_stale_data",
        on: FULL,
        all: FULL_OR_OFF,
    },
    Setter {
        option: "tsx_async_abort",
        file: "tsx_async_abort",
        on: FULL,
        all: FULL_OR_OFF,
    },
    Setter {
        option: "reg_file_data_sampling",
        file: "reg_file_data_sampling",
        on: &[("on", "")],
        all: &["on", "off"],
    },
    Setter {
        option: "retbleed",
        file: "retbleed",
        on: &[
            ("force", ""),
            ("ibpb", "ibpb"),
            ("ibpb,nosmt", "ibpb"),
            ("unret", "untrained return"),
            ("unret,nosmt", "untrained return"),
            ("stuff", "stuffing"),
        ],
        all: &[],
    },
    Setter {
        option: "spec_rstack_overflow",
        file: "spec_rstack_overflow",
        on: &[
            ("safe-ret", "safe ret"),
            ("ibpb", "ibpb"),
            ("ibpb-vmexit", "ibpb on vmexit"),
        ],
        all: &[],
    },
    Setter {
        option: "spec_store_bypass_disable",
        file: "spec_store_bypass",
        on: &[("on", "disabled"), ("prctl", "prctl"), ("seccomp", "prctl")],
        all: &[],
    },
    Setter {
        option: "spectre_v2",
        file: "spectre_v2",
        on: &[
            ("on", ""),
            ("retpoline", "retpoline"),
            ("retpoline,generic", "retpoline"),
            ("retpoline,lfence", "lfence"),
            ("eibrs", "enhanced|eibrs"),
            ("eibrs,retpoline", "enhanced|eibrs"),
            ("eibrs,lfence", "enhanced|eibrs"),
            ("ibrs", "ibrs"),
        ],
        all: &[],
    },
    Setter {
        option: "srbds",
        file: "srbds",
        on: &[],
        all: &["off"],
    },
    Setter {
        option: "tsa",
        file: "tsa",
        on: &[("on", ""), ("user", ""), ("vm", "")],
        all: &[],
    },
    Setter {
        option: "vmscape",
        file: "vmscape",
        on: &[("force", ""), ("ibpb", "ibpb")],
        all: &[],
    },
    // Only for switching off: pti=on has an effect on CPUs that are not affected, too.
    Setter {
        option: "pti",
        file: "meltdown",
        on: &[],
        all: &[],
    },
];

/// Options without a value that switch a mitigation off, as an option with one does.
pub(crate) const SWITCHES: &[(&str, &str)] = &[("nopti", "pti"), ("nospectre_v2", "spectre_v2")];
