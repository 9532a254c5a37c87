//! All findings there are.

/// Every finding's `id` and what it looks at. An `id` keeps its meaning for good; scripts may rely on
/// it.
pub const FINDINGS: &[(&str, &str)] = &[
    (
        "clocksource",
        "which clock the kernel uses and how user space reads it",
    ),
    ("cpu-count", "how many CPUs are in use"),
    ("cpu-hybrid", "cores of two kinds in one machine"),
    ("cpu-model", "which CPU it is"),
    (
        "cpu-quota",
        "a control group's limit on this process's CPU time",
    ),
    ("frequency-governor", "by what policy the clock rate is set"),
    (
        "frequency-limit",
        "a maximum clock rate below the hardware's",
    ),
    (
        "frequency-preference",
        "the CPU's energy-performance preference",
    ),
    ("frequency-turbo", "turbo or boost"),
    (
        "guest-execution",
        "whether guests run on the CPU, by the calibration guest",
    ),
    (
        "guest-rdtsc",
        "whether reading the TSC in a guest makes an exit, by the calibration guest",
    ),
    (
        "hardware-pmu",
        "whether there are hardware performance counters",
    ),
    (
        "idle-states",
        "how long the deepest enabled C-state takes to leave",
    ),
    (
        "isolated-cpus",
        "CPUs on which the scheduler puts nothing else",
    ),
    ("kernel-config", "debugging options that weigh on exits"),
    ("kernel-preemption", "the kernel's preemption model"),
    ("kernel-release", "which kernel runs"),
    ("kernel-symbols", "whether the kernel shows its addresses"),
    ("kernel-taint", "a tainted kernel"),
    ("ksm", "merging of equal pages"),
    ("kvm-device", "whether /dev/kvm is there and may be opened"),
    ("kvm-module", "which KVM backend is in use"),
    (
        "kvm-parameter",
        "a parameter of a KVM module that changes what exits cost",
    ),
    ("load", "what else wants to run"),
    ("lockdown", "a kernel locked down for confidentiality"),
    (
        "meddling-daemon",
        "a daemon that changes settings while measuring",
    ),
    ("memory", "too little memory"),
    ("microcode-mixed", "CPUs with different microcode"),
    (
        "mitigation-on-path",
        "a mitigation that works on the way into or out of a guest",
    ),
    ("mitigations", "how many CPU vulnerabilities are mitigated"),
    (
        "mitigations-changed",
        "boot parameters that change mitigations",
    ),
    ("nested", "whether this machine is itself a guest"),
    ("nmi-watchdog", "the NMI watchdog"),
    (
        "nohz-full",
        "CPUs without a tick, and with context tracking",
    ),
    ("numa", "several NUMA nodes, pages moved between them"),
    ("observe-bpf", "whether BPF can be used to trace"),
    ("observe-ftrace", "whether tracefs can be read"),
    ("observe-perf", "whether perf may look into the kernel"),
    ("other-guests", "VMMs that run already"),
    (
        "parameter-without-effect",
        "a kernel parameter that did not come about",
    ),
    ("platform-profile", "the firmware's platform profile"),
    ("power-supply", "mains or battery"),
    ("smi", "whether system-management interrupts are counted"),
    ("smt", "threads that share a core"),
    ("steal", "time stolen by the hypervisor below"),
    ("thermal-throttle", "slowing down for heat"),
    ("transparent-hugepages", "transparent huge pages"),
    (
        "tsc-flags",
        "whether the TSC runs at one rate and does not stop",
    ),
    ("tsc-rejected", "a TSC that the kernel does not trust"),
];
