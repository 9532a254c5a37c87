//! Optional work of a host that can be switched off while it runs, and of a VM's configuration: detect, set, restore, and what it needs.

use std::path::Path;

use exitpath_runner::Machine;
use exitpath_vmm::Kvm;

use super::journal;
use crate::error::Result;

/// What is switched.
#[derive(Debug, Clone, Copy)]
pub enum Switch {
    /// A file, which is off with this value. It needs root.
    File(&'static str, &'static str),
    /// A VM that is made without it, where this KVM can. It needs nothing.
    Vm(fn(&mut Machine), fn(&Kvm) -> bool),
}

/// A knob.
#[derive(Debug, Clone, Copy)]
pub struct HostKnob {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// How it is switched.
    pub switch: Switch,
}

/// Whether a knob can be switched off here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is on, and can be switched off.
    On,
    /// It is off, or not there.
    Absent,
    /// It is on, and cannot be: why.
    Locked(String),
}

/// All of them.
pub const HOST_KNOBS: &[HostKnob] = &[
    HostKnob {
        name: "irqchip",
        what: "interrupt controllers in the kernel: local APIC, I/O APIC, PIC",
        switch: Switch::Vm(|machine| machine.without_irqchip = true, |_| true),
    },
    HostKnob {
        name: "guest-pmu",
        what: "a PMU for the guest",
        switch: Switch::Vm(|machine| machine.without_pmu = true, Kvm::can_leave_pmu_out),
    },
    HostKnob {
        name: "halt-polling",
        what: "KVM polls before a halted vCPU sleeps",
        switch: Switch::File("/sys/module/kvm/parameters/halt_poll_ns", "0"),
    },
    HostKnob {
        name: "kvm-tracepoints",
        what: "KVM's tracepoints, where somebody has them on",
        switch: Switch::File("/sys/kernel/tracing/events/kvm/enable", "0"),
    },
    HostKnob {
        name: "function-tracing",
        what: "function tracing, where somebody uses it",
        switch: Switch::File("/proc/sys/kernel/ftrace_enabled", "0"),
    },
    HostKnob {
        name: "nmi-watchdog",
        what: "the watchdog against hard lockups, which takes a counter and NMIs",
        switch: Switch::File("/proc/sys/kernel/nmi_watchdog", "0"),
    },
    HostKnob {
        name: "numa-balancing",
        what: "pages are unmapped to see who uses them",
        switch: Switch::File("/proc/sys/kernel/numa_balancing", "0"),
    },
    HostKnob {
        name: "schedstats",
        what: "statistics of the scheduler",
        switch: Switch::File("/proc/sys/kernel/sched_schedstats", "0"),
    },
    HostKnob {
        name: "bpf-statistics",
        what: "run times of BPF programs",
        switch: Switch::File("/proc/sys/kernel/bpf_stats_enabled", "0"),
    },
    HostKnob {
        name: "same-page-merging",
        what: "equal pages are looked for and merged",
        switch: Switch::File("/sys/kernel/mm/ksm/run", "0"),
    },
    HostKnob {
        name: "huge-pages",
        what: "transparent huge pages are looked for",
        switch: Switch::File("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
    },
];

impl HostKnob {
    /// Whether it can be switched off on this machine.
    ///
    /// # Errors
    /// Where its KVM cannot be used.
    pub fn state_here(&self) -> Result<State> {
        Ok(self.state(&Kvm::open()?))
    }

    fn state(&self, kvm: &Kvm) -> State {
        let (file, off) = match self.switch {
            Switch::Vm(_, can) if can(kvm) => return State::On,
            Switch::Vm(..) => return State::Absent,
            Switch::File(file, off) => (Path::new(file), off),
        };
        let Ok(value) = journal::read(file) else {
            return State::Absent;
        };
        if value == off || value == "N" {
            return State::Absent;
        }
        // What it is already changes nothing, and shows whether it may be written.
        match journal::write(file, &value) {
            Ok(()) => State::On,
            Err(error) => State::Locked(error.to_string()),
        }
    }

    /// What is changed, in words.
    pub fn change(&self) -> String {
        match self.switch {
            Switch::File(file, off) => format!("{file} = {off}"),
            Switch::Vm(..) => "the VM is made without it".to_owned(),
        }
    }
}
