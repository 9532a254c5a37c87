//! Optional work that is switched without changing code or booting: settings of a machine, for root, and what a VM is made with or without,
//! for anybody. Each is one entry: what it is, how it is switched on and off, and by its kind what it needs.

use std::path::{Path, PathBuf};

use exitpath_recording::{Difference, KnobKind};
use exitpath_runner::Machine;
use exitpath_vmm::Kvm;

use crate::error::Result;
use crate::host::journal;

/// How a knob is switched.
#[derive(Debug, Clone, Copy)]
pub enum Switch {
    /// A file of the kernel's. It needs root.
    File {
        /// The file.
        path: &'static str,
        /// Its value with the knob off.
        off: &'static str,
        /// And with it on, where it may be switched on for the measurement; `None`: it is on, or there is nothing to be had.
        on: Option<&'static str>,
    },
    /// What a VM that usually has it is made without, where this KVM can.
    Without(fn(&mut Machine), fn(&Kvm) -> bool),
    /// What a VM that usually does not have it is made with.
    With(fn(&mut Machine), fn(&Kvm) -> bool),
}

/// A knob.
#[derive(Debug, Clone, Copy)]
pub struct SwitchKnob {
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

/// What is switched for a condition: settings of the machine, and how VMs differ from the usual one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    /// Files and what is in them.
    pub settings: Vec<(PathBuf, String)>,
    /// The VM.
    pub machine: Machine,
}

const fn file(path: &'static str, off: &'static str) -> Switch {
    Switch::File {
        path,
        off,
        on: None,
    }
}

/// All of them.
pub const SWITCH_KNOBS: &[SwitchKnob] = &[
    SwitchKnob {
        name: "irqchip",
        what: "interrupt controllers in the kernel: local APIC, I/O APIC, PIC",
        switch: Switch::Without(|machine| machine.without_irqchip = true, |_| true),
    },
    SwitchKnob {
        name: "guest-pmu",
        what: "a PMU for the guest",
        switch: Switch::Without(|machine| machine.without_pmu = true, Kvm::can_leave_pmu_out),
    },
    SwitchKnob {
        name: "full-cpuid",
        what: "leaves of CPUID that a 64-bit guest can do without",
        switch: Switch::Without(|machine| machine.trimmed_cpuid = true, |_| true),
    },
    SwitchKnob {
        name: "idle-exits",
        what: "exits for HLT, PAUSE and MWAIT",
        switch: Switch::Without(
            |machine| machine.without_idle_exits = true,
            Kvm::can_leave_idle_exits_out,
        ),
    },
    SwitchKnob {
        name: "msr-filter",
        what: "a filter of MSRs, which lets all through; a VM has it only where this knob is named",
        switch: Switch::With(|machine| machine.msr_filter = true, Kvm::can_filter_msrs),
    },
    SwitchKnob {
        name: "halt-polling",
        what: "KVM polls before a halted vCPU sleeps",
        switch: file("/sys/module/kvm/parameters/halt_poll_ns", "0"),
    },
    SwitchKnob {
        name: "kvm-tracepoints",
        what: "KVM's tracepoints into ftrace's buffer; where they are off, they are switched on if this knob is named",
        switch: Switch::File {
            path: "/sys/kernel/tracing/events/kvm/enable",
            off: "0",
            on: Some("1"),
        },
    },
    SwitchKnob {
        name: "function-tracing",
        what: "function tracing, where somebody uses it",
        switch: file("/proc/sys/kernel/ftrace_enabled", "0"),
    },
    SwitchKnob {
        name: "nmi-watchdog",
        what: "the watchdog against hard lockups, which takes a counter and NMIs",
        switch: file("/proc/sys/kernel/nmi_watchdog", "0"),
    },
    SwitchKnob {
        name: "numa-balancing",
        what: "pages are unmapped to see who uses them",
        switch: file("/proc/sys/kernel/numa_balancing", "0"),
    },
    SwitchKnob {
        name: "schedstats",
        what: "statistics of the scheduler",
        switch: file("/proc/sys/kernel/sched_schedstats", "0"),
    },
    SwitchKnob {
        name: "bpf-statistics",
        what: "run times of BPF programs",
        switch: file("/proc/sys/kernel/bpf_stats_enabled", "0"),
    },
    SwitchKnob {
        name: "same-page-merging",
        what: "equal pages are looked for and merged",
        switch: file("/sys/kernel/mm/ksm/run", "0"),
    },
    SwitchKnob {
        name: "huge-pages",
        what: "transparent huge pages are looked for",
        switch: file("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
    },
];

/// The knob of this name.
pub fn find(name: &str) -> Option<&'static SwitchKnob> {
    SWITCH_KNOBS.iter().find(|knob| knob.name == name)
}

impl SwitchKnob {
    /// Whether it can be switched off on this machine, where it is switched on first if it is `named`.
    ///
    /// # Errors
    /// Where its KVM cannot be used.
    pub fn state_here(&self, named: bool) -> Result<State> {
        Ok(self.state(&Kvm::open()?, named))
    }

    fn state(&self, kvm: &Kvm, named: bool) -> State {
        let (path, off, on) = match self.switch {
            Switch::With(_, can) if named && can(kvm) => return State::On,
            Switch::Without(_, can) if can(kvm) => return State::On,
            Switch::With(..) | Switch::Without(..) => return State::Absent,
            Switch::File { path, off, on } => (Path::new(path), off, on.filter(|_| named)),
        };
        let Ok(value) = journal::read(path) else {
            return State::Absent;
        };
        if on.is_none() && (value == off || value == "N") {
            return State::Absent;
        }
        // What it is already changes nothing, and shows whether it may be written.
        match journal::write(path, &value) {
            Ok(()) => State::On,
            Err(error) => State::Locked(error.to_string()),
        }
    }

    /// How it is switched.
    pub fn kind(&self) -> KnobKind {
        match self.switch {
            Switch::File { .. } => KnobKind::Setting,
            Switch::Without(..) | Switch::With(..) => KnobKind::Vm,
        }
    }

    /// Switches it off, and says how that is told.
    pub fn switch_off(&self, switches: &mut Switches) -> Difference {
        let changes = match self.switch {
            Switch::File { path, off, .. } => switches.set(path, off),
            Switch::Without(without, _) => {
                without(&mut switches.machine);
                "the VM is made without it".to_owned()
            }
            Switch::With(..) => "the VM is made without it, as usual".to_owned(),
        };
        Difference::Off {
            knob: self.name.to_owned(),
            kind: self.kind(),
            changes: vec![changes],
        }
    }

    /// Leaves it on, as it is where it was named or not; if that is a change, how it is told.
    pub fn leave_on(&self, named: bool, switches: &mut Switches) -> Option<Difference> {
        let changes = match self.switch {
            Switch::With(with, _) if named => {
                with(&mut switches.machine);
                "the VM is made with it".to_owned()
            }
            Switch::File {
                path, on: Some(on), ..
            } if named => switches.set(path, on),
            Switch::File { .. } | Switch::Without(..) | Switch::With(..) => return None,
        };
        Some(Difference::On {
            knob: self.name.to_owned(),
            changes: vec![changes],
        })
    }
}

impl Switches {
    fn set(&mut self, path: &str, value: &str) -> String {
        self.settings.push((PathBuf::from(path), value.to_owned()));
        format!("{path} = {value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vm_usually_does_not_have_is_put_on_only_where_it_is_named() {
        let filter = find("msr-filter").expect("a knob");
        let mut switches = Switches::default();
        assert_eq!(filter.leave_on(false, &mut switches), None);
        assert!(!switches.machine.msr_filter);
        assert!(filter.leave_on(true, &mut switches).is_some());
        assert!(switches.machine.msr_filter);
    }

    #[test]
    fn a_setting_is_written_for_off_and_left_alone_for_on_unless_it_is_named() {
        let tracepoints = find("kvm-tracepoints").expect("a knob");
        let mut switches = Switches::default();
        assert_eq!(tracepoints.leave_on(false, &mut switches), None);
        assert_eq!(switches, Switches::default());
        let path = PathBuf::from("/sys/kernel/tracing/events/kvm/enable");
        let told = tracepoints.leave_on(true, &mut switches);
        assert_eq!(switches.settings, [(path.clone(), "1".to_owned())]);
        let words = "/sys/kernel/tracing/events/kvm/enable = 1".to_owned();
        let on = Difference::On {
            knob: "kvm-tracepoints".to_owned(),
            changes: vec![words],
        };
        assert_eq!(told, Some(on));
        let mut switches = Switches::default();
        let told = tracepoints.switch_off(&mut switches);
        assert_eq!(switches.settings, [(path, "0".to_owned())]);
        assert!(matches!(
            told,
            Difference::Off {
                kind: KnobKind::Setting,
                ..
            }
        ));
    }

    #[test]
    fn each_has_a_name_of_its_own() {
        for knob in SWITCH_KNOBS {
            let same = SWITCH_KNOBS.iter().filter(|other| other.name == knob.name);
            assert_eq!(same.count(), 1, "{}", knob.name);
        }
    }
}
