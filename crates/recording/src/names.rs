//! Names of facts and counters that more than one place knows: who records and who reads takes them from
//! here, so that a typo is an error of the compiler and not a check that never fires.
//!
//! KVM's own statistics have the names that KVM gives them (`KVM_GET_STATS_FD`); ours say whose they
//! are: `vmm.…` of the thread that runs a vCPU, `host.…` of its machine, `kick.…` and `disk.…` of what serves
//! a guest, `guest.…` of what KVM tells the guest, `phase.…` of rows in which several vCPUs exit at once.

/// Facts: keys of [`Environment::facts`](crate::Environment::facts) and [`Condition::facts`](crate::Condition::facts).
pub mod fact {
    /// The boots that a recording of the lab is made of: an array of objects.
    pub const BOOTS: &str = "lab.boots";
    /// How often the ways of exits execute each primitive, by its name and the row's.
    pub const PRIMITIVES_USED: &str = "primitives.used";
    /// How the kernel was entered.
    pub const ENTERED: &str = "lab.entered";
    /// Where the kernel is from.
    pub const KERNEL_ORIGIN: &str = "lab.kernel_origin";
    /// Features of the lab's CPU that exitpath supplies to the emulator from outside, by QEMU's names: an array. A
    /// recording without it is of a CPU as QEMU emulates it.
    pub const CPU_SUPPLIED: &str = "lab.cpu_supplied";
    /// Features of the lab's CPU whose registers can be written without an effect, by QEMU's names: an array.
    pub const CPU_WITHOUT_EFFECT: &str = "lab.cpu_without_effect";
    /// What modules say of their parameters.
    pub const MODULES: &str = "lab.modules";
    /// Why the reasons of exits are not known, in words; a recording that knows them has none, nor has one
    /// from before they were recorded.
    pub const EXITS_UNREAD: &str = "lab.exit_reasons_unknown";
    /// What of the command line did not come about, a line each.
    pub const WITHOUT_EFFECT: &str = "kernel.without_effect";
    /// The kernel's release.
    pub const KERNEL_RELEASE: &str = "kernel.release";
    /// Its command line.
    pub const KERNEL_CMDLINE: &str = "kernel.cmdline";
    /// Its preemption model.
    pub const KERNEL_PREEMPTION: &str = "kernel.preemption";
    /// What it says of the CPU's vulnerabilities.
    pub const VULNERABILITIES: &str = "mitigations.vulnerabilities";
    /// The CPU's brand.
    pub const CPU_MODEL_NAME: &str = "cpu.model_name";
    /// The bugs that the kernel ascribes to the CPU.
    pub const CPU_BUGS: &str = "cpu.bugs";
    /// Whether guests run on the CPU, where a calibration guest told.
    pub const GUESTS_ON_CPU: &str = "guests_run_on_cpu";
    /// CPUs that vCPUs were bound to, the first one's first.
    pub const VCPU_CPUS: &str = "vcpu.cpus";
    /// The command of another VMM, as it was started.
    pub const VMM_COMMAND: &str = "vmm.command";
    /// Its version, where it says one.
    pub const VMM_VERSION: &str = "vmm.version";
    /// Whether the addresses of its process were randomised.
    pub const VMM_ADDRESSES_RANDOMISED: &str = "vmm.addresses_randomised";
    /// What kvm-unit-tests' vmexit said of each row, in ticks: in recordings up to version 3, which had no
    /// conditions.
    pub const VMEXIT_TICKS: &str = "vmexit.ticks";
    /// The file of that test, as SHA-256.
    pub const VMEXIT_FILE: &str = "vmexit.sha256";
}

/// Counters: keys of [`Run::counters`](crate::Run::counters).
pub mod counter {
    /// KVM's: exits of the guest.
    pub const EXITS: &str = "exits";
    /// KVM's: exits for an access to a port that user space answers.
    pub const IO_EXITS: &str = "io_exits";
    /// KVM's: exits for MMIO that user space answers.
    pub const MMIO_EXITS: &str = "mmio_exits";
    /// KVM's: exits that external interrupts forced.
    pub const IRQ_EXITS: &str = "irq_exits";
    /// KVM's: returns from a guest's state to the host's.
    pub const HOST_STATE_RELOAD: &str = "host_state_reload";
    /// KVM's: time in which a vCPU was blocked in HLT, not polling, in ns.
    pub const HALT_WAIT_NS: &str = "halt_wait_ns";
    /// KVM's: preemptions of a vCPU of which its guest was told.
    pub const PREEMPTION_REPORTED: &str = "preemption_reported";
    /// KVM's: other preemptions.
    pub const PREEMPTION_OTHER: &str = "preemption_other";

    /// The guest's TSC frequency in kHz, as KVM reports it.
    pub const GUEST_TSC_KHZ: &str = "guest.tsc_khz";

    /// Context switches of the vCPU's thread that it did not ask for.
    pub const INVOLUNTARY_SWITCHES: &str = "vmm.involuntary_switches";
    /// Those that it asked for.
    pub const VOLUNTARY_SWITCHES: &str = "vmm.voluntary_switches";
    /// Its page faults that needed no I/O.
    pub const MINOR_FAULTS: &str = "vmm.minor_faults";
    /// Those that did.
    pub const MAJOR_FAULTS: &str = "vmm.major_faults";
    /// How often `KVM_RUN` was called by another thread than the time before.
    pub const THREAD_CHANGES: &str = "vmm.thread_changes";
    /// Calls of `KVM_RUN` by the first of two threads that do so in turn.
    pub const CALLS_BY_THREAD_1: &str = "vmm.calls_by_thread_1";
    /// By the second.
    pub const CALLS_BY_THREAD_2: &str = "vmm.calls_by_thread_2";

    /// Port writes of all vCPUs in a phase in which the first one makes a number of them in a row.
    pub const PHASE_PORT_WRITES: &str = "phase.port_writes";
    /// How long that took by CLOCK_MONOTONIC, in ns; in the lab virtual ones.
    pub const PHASE_NS: &str = "phase.ns";

    /// Whether a consumer or an I/O thread shares the vCPU's CPU: 1 or 0.
    pub const KICK_SAME_CPU: &str = "kick.same_cpu";
    /// Whether a consumer takes its CPU over when it is woken (SCHED_FIFO): 1 or 0.
    pub const KICK_FIFO: &str = "kick.fifo";
    /// Kicks that their consumer took.
    pub const KICK_TAKEN: &str = "kick.taken";
    /// How often it was woken.
    pub const KICK_WAKEUPS: &str = "kick.wakeups";
    /// How often it slept.
    pub const KICK_SLEEPS: &str = "kick.sleeps";
    /// I/O threads.
    pub const DISK_IOTHREADS: &str = "disk.iothreads";
    /// CPUs that they have.
    pub const DISK_CPUS: &str = "disk.cpus";
    /// Requests made, of all disks together.
    pub const DISK_REQUESTED: &str = "disk.requested";
    /// Requests completed.
    pub const DISK_COMPLETED: &str = "disk.completed";
    /// How often I/O threads were woken.
    pub const DISK_WAKEUPS: &str = "disk.wakeups";

    /// What kvm-unit-tests' vmexit says an operation takes, in ticks.
    pub const VMEXIT_TICKS: &str = "vmexit.ticks";

    /// Time stolen from all CPUs, in 1/100 s.
    pub const STEAL_TICKS: &str = "host.steal_ticks";
    /// Time stolen from the CPU that ran the guest, in 1/100 s.
    pub const CPU_STEAL_TICKS: &str = "host.cpu_steal_ticks";
    /// Interrupts of all CPUs.
    pub const INTERRUPTS: &str = "host.interrupts";
    /// Interrupts of the CPU that ran the guest, its timer's included.
    pub const CPU_INTERRUPTS: &str = "host.cpu_interrupts";
    /// Of these, non-maskable ones.
    pub const CPU_NMIS: &str = "host.cpu_nmis";
    /// Context switches of all CPUs.
    pub const CONTEXT_SWITCHES: &str = "host.context_switches";
    /// Processes and threads made.
    pub const FORKS: &str = "host.forks";
    /// Time in which some task waited for a CPU, in µs.
    pub const CPU_PRESSURE_US: &str = "host.cpu_pressure_us";
    /// System-management interrupts of one CPU.
    pub const SMI: &str = "host.smi";
    /// Throttle events, over CPUs and packages.
    pub const THERMAL_THROTTLE: &str = "host.thermal_throttle";
}
