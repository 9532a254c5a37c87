//! Clocks: which one the kernel uses, and whether reading it needs a system call.
//!
//! Source: `/sys/devices/system/clocksource/clocksource0`
//! (`Documentation/ABI/testing/sysfs-devices-system-clocksource`).

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::root::Unknown;
use crate::topic::Topic;

/// The folder of the kernel's clocks.
pub(crate) const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0";

/// How user space reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// In the vDSO: tens of nanoseconds.
    Vdso,
    /// In the vDSO as long as the hypervisor says that its TSC is stable, else by a system call.
    VdsoIfStable,
    /// A system call, and a device read in it: a microsecond, and in a guest an exit.
    Device,
    Unknown,
}

/// By the clocksource's name; those with a vDSO are the ones that set `vdso_clock_mode` in the
/// kernel's drivers (tsc, pvclock, hyperv_timer; on arm64 the architected counter).
fn reading(clocksource: &str) -> Reading {
    match clocksource {
        "tsc" | "tsc-early" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" => Reading::Vdso,
        "kvm-clock" | "xen" => Reading::VdsoIfStable,
        "hpet" | "acpi_pm" | "refined-jiffies" | "jiffies" | "pit" | "hyperv_clocksource_msr" => {
            Reading::Device
        }
        _ => Reading::Unknown,
    }
}

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[(
        "clocksource",
        "which clock the kernel uses and how user space reads it",
    )],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let current = out.record(
        "clock.clocksource",
        root.text(&format!("{CLOCKSOURCE}/current_clocksource")),
    );
    let available = root.text(&format!("{CLOCKSOURCE}/available_clocksource"));
    let available = available.map(|list| {
        list.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<String>>()
    });
    let available = out.record("clock.available", available);
    let asked = machine.parameters(&["clocksource", "tsc", "notsc", "nohpet"]);
    out.fact("clock.parameters", json!(asked));

    let current = match current {
        Ok(current) => current,
        Err(unknown) => return out.find_unknown("clocksource", "clocksource", &unknown),
    };
    let (read, level, says) = match reading(&current) {
        Reading::Vdso => (
            "vdso",
            Level::Good,
            "is read in user space, without a system call",
        ),
        Reading::VdsoIfStable => (
            "vdso-if-stable",
            Level::Good,
            "is read in user space as long as the hypervisor below calls its TSC stable",
        ),
        Reading::Device => (
            "system-call",
            Level::Warning,
            "is read by a system call from a device: each host-side time stamp takes a microsecond or so",
        ),
        Reading::Unknown => (
            "unknown",
            Level::Note,
            "is one that exitpath knows nothing about",
        ),
    };
    if reading(&current) == Reading::Unknown {
        let reason = format!("how the clocksource {current} is read is not known");
        let _ = out.record::<()>("clock.read_by", Err(Unknown::NotHere(reason)));
    } else {
        out.fact("clock.read_by", read);
    }
    let tsc_available = available
        .as_ref()
        .map(|list| list.iter().any(|name| name == "tsc"));
    let mut finding = Finding::new(
        "clocksource",
        "clocksource",
        level,
        format!("the clocksource {current} {says}"),
    );
    if level == Level::Warning {
        finding = finding.advice(match tsc_available {
            Ok(true) => format!("echo tsc | sudo tee {CLOCKSOURCE}/current_clocksource"),
            _ => "the kernel has rejected the TSC; dmesg | grep -i -e tsc -e clocksource says why"
                .to_owned(),
        });
    }
    out.find(finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, sandbox, vm_guest};

    #[test]
    fn tsc_is_good() {
        for tree in [intel_laptop_on_battery(), sandbox()] {
            let out = tree.topic(&TOPIC);
            assert_eq!(out.worst(), Level::Good, "{:#?}", out.findings);
            assert_eq!(out.facts["clock.read_by"], json!("vdso"));
        }
    }

    #[test]
    fn a_server_that_lost_its_tsc() {
        let out = amd_server().topic(&TOPIC);
        let finding = out.get("clocksource", "clocksource");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.advice.as_ref().unwrap().contains("rejected"));
        let out = amd_server()
            .file(
                &format!("{CLOCKSOURCE}/available_clocksource"),
                "tsc hpet\n",
            )
            .topic(&TOPIC);
        assert!(
            out.get("clocksource", "clocksource")
                .advice
                .as_ref()
                .unwrap()
                .starts_with("echo tsc")
        );
    }

    #[test]
    fn kvm_clock() {
        let out = vm_guest().topic(&TOPIC);
        assert_eq!(out.get("clocksource", "clocksource").level, Level::Good);
    }

    #[test]
    fn unheard_of_and_absent() {
        let out = Tree::new().topic(&TOPIC);
        assert!(out.unknown_facts().count() >= 2);
        assert_eq!(out.worst(), Level::Note);
        let out = amd_server()
            .file(&format!("{CLOCKSOURCE}/current_clocksource"), "sundial")
            .topic(&TOPIC);
        assert_eq!(out.get("clocksource", "clocksource").level, Level::Note);
        assert!(out.unknown_facts().any(|(key, _)| key == "clock.read_by"));
    }
}
