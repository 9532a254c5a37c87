//! Clocks: which one the kernel uses, whether reading it needs a system call, and whether the TSC
//! can be trusted.
//!
//! Sources: `/sys/devices/system/clocksource/clocksource0`
//! (`Documentation/ABI/testing/sysfs-devices-system-clocksource`); the TSC flags of `/proc/cpuinfo`;
//! `Documentation/virt/kvm/x86/timekeeping.rst`.

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::root::Unknown;

const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";

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

pub(crate) fn examine(machine: &Machine<'_>, out: &mut Examination) {
    clocksource(machine, out);
    tsc_flags(machine, out);
}

fn clocksource(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let current = out.record(
        "clock.clocksource",
        root.text(&format!("{FOLDER}/current_clocksource")),
    );
    let available = root.text(&format!("{FOLDER}/available_clocksource"));
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
            Ok(true) => format!("echo tsc | sudo tee {FOLDER}/current_clocksource"),
            _ => "the kernel has rejected the TSC; dmesg | grep -i -e tsc -e clocksource says why"
                .to_owned(),
        });
    }
    out.find(finding);

    let x86 = machine.cpu.as_ref().is_ok_and(|cpu| cpu.has("tsc"));
    if x86 && tsc_available == Ok(false) {
        out.find(
            Finding::new("tsc-rejected", "tsc", Level::Warning, "the kernel does not offer the TSC as a clocksource: it found it unstable, or was told so")
                .advice("dmesg | grep -i tsc says why; until then compare no time stamps of different CPUs"),
        );
    }
}

/// `constant_tsc`: the rate does not follow the CPU's clock. `nonstop_tsc`: it runs on in C-states
/// (CPUID 0x80000007, EDX bit 8).
fn tsc_flags(machine: &Machine<'_>, out: &mut Examination) {
    const WANTED: &[&str] = &["constant_tsc", "nonstop_tsc"];
    const OTHERS: &[&str] = &[
        "rdtscp",
        "tsc_known_freq",
        "tsc_reliable",
        "tsc_adjust",
        "tsc_scale",
        "tsc_deadline_timer",
    ];
    let cpu = match &machine.cpu {
        Ok(cpu) if cpu.has("tsc") => cpu,
        Ok(_) => {
            let none = Unknown::NotHere("/proc/cpuinfo shows no TSC".to_owned());
            let _ = out.record::<()>("clock.tsc_flags", Err(none.clone()));
            return out.find_unknown("tsc-flags", "tsc", &none);
        }
        Err(unknown) => {
            let _ = out.record::<()>("clock.tsc_flags", Err(unknown.clone()));
            return out.find_unknown("tsc-flags", "tsc", unknown);
        }
    };
    let present: Vec<&str> = WANTED
        .iter()
        .chain(OTHERS)
        .copied()
        .filter(|flag| cpu.has(flag))
        .collect();
    out.fact("clock.tsc_flags", json!(present));
    let missing: Vec<&str> = WANTED
        .iter()
        .copied()
        .filter(|flag| !cpu.has(flag))
        .collect();
    out.find(if missing.is_empty() {
        let says = "the TSC runs at one rate and does not stop (constant_tsc, nonstop_tsc)";
        Finding::new("tsc-flags", "tsc", Level::Good, says)
    } else {
        let says = format!("the CPU does not claim {}: the TSC may change its rate or stop when idle", missing.join(" nor "));
        Finding::new("tsc-flags", "tsc", Level::Warning, says).advice(
            "in a virtual machine have the CPU passed through with invariant TSC (QEMU: -cpu host,migratable=no,+invtsc)",
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, sandbox, vm_guest};

    #[test]
    fn tsc_is_good() {
        for tree in [intel_laptop_on_battery(), sandbox()] {
            let out = tree.topic(examine);
            assert_eq!(out.worst(), Level::Good, "{:#?}", out.findings);
            assert_eq!(out.facts["clock.read_by"], json!("vdso"));
        }
    }

    #[test]
    fn a_server_that_lost_its_tsc() {
        let out = amd_server().topic(examine);
        let finding = out.get("clocksource", "clocksource");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.advice.as_ref().unwrap().contains("rejected"));
        assert!(out.has("tsc-rejected"));
        let out = amd_server()
            .file(&format!("{FOLDER}/available_clocksource"), "tsc hpet\n")
            .topic(examine);
        assert!(
            out.get("clocksource", "clocksource")
                .advice
                .as_ref()
                .unwrap()
                .starts_with("echo tsc")
        );
        assert!(!out.has("tsc-rejected"));
    }

    #[test]
    fn kvm_clock_and_a_tsc_that_may_stop() {
        let out = vm_guest().topic(examine);
        assert_eq!(out.get("clocksource", "clocksource").level, Level::Good);
        let finding = out.get("tsc-flags", "tsc");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.says.contains("nonstop_tsc") && !finding.says.contains("constant_tsc"));
    }

    #[test]
    fn unheard_of_and_absent() {
        let out = Tree::new().topic(examine);
        assert!(out.unknown_facts().count() >= 3);
        assert_eq!(out.worst(), Level::Note);
        let out = amd_server()
            .file(&format!("{FOLDER}/current_clocksource"), "sundial")
            .topic(examine);
        assert_eq!(out.get("clocksource", "clocksource").level, Level::Note);
        assert!(out.unknown_facts().any(|(key, _)| key == "clock.read_by"));
    }
}
