//! The TSC: whether the kernel offers it as a clock, and whether it runs at one rate and does not stop.
//!
//! Sources: the TSC flags of `/proc/cpuinfo`; `/sys/devices/system/clocksource/clocksource0`;
//! `Documentation/virt/kvm/x86/timekeeping.rst`.

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::root::Unknown;
use crate::topic::Topic;
use crate::topics::clock::CLOCKSOURCE;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        (
            "tsc-flags",
            "whether the TSC runs at one rate and does not stop",
        ),
        ("tsc-rejected", "a TSC that the kernel does not trust"),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    rejected(machine, out);
    flags(machine, out);
}

fn rejected(machine: &Machine<'_>, out: &mut Examination) {
    let is_there = machine.cpu.as_ref().is_ok_and(|cpu| cpu.has("tsc"));
    let available = machine
        .root
        .text(&format!("{CLOCKSOURCE}/available_clocksource"));
    let is_offered = available.map(|list| list.split_whitespace().any(|name| name == "tsc"));
    if is_there && is_offered == Ok(false) {
        out.find(
            Finding::new("tsc-rejected", "tsc", Level::Warning, "the kernel does not offer the TSC as a clocksource: it found it unstable, or was told so")
                .advice("dmesg | grep -i tsc says why; until then compare no time stamps of different CPUs"),
        );
    }
}

/// `constant_tsc`: the rate does not follow the CPU's clock. `nonstop_tsc`: it runs on in C-states
/// (CPUID 0x80000007, EDX bit 8).
fn flags(machine: &Machine<'_>, out: &mut Examination) {
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
    fn trusted() {
        for tree in [intel_laptop_on_battery(), sandbox()] {
            let out = tree.topic(&TOPIC);
            assert_eq!(out.worst(), Level::Good, "{:#?}", out.findings);
        }
    }

    #[test]
    fn rejected_unless_it_is_offered() {
        assert!(amd_server().topic(&TOPIC).has("tsc-rejected"));
        let available = format!("{CLOCKSOURCE}/available_clocksource");
        let offers = amd_server().file(&available, "tsc hpet\n");
        assert!(!offers.topic(&TOPIC).has("tsc-rejected"));
        let says_nothing = amd_server().without(&available);
        assert!(!says_nothing.topic(&TOPIC).has("tsc-rejected"));
    }

    #[test]
    fn a_tsc_that_may_stop() {
        let out = vm_guest().topic(&TOPIC);
        let finding = out.get("tsc-flags", "tsc");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.says.contains("nonstop_tsc") && !finding.says.contains("constant_tsc"));
    }

    #[test]
    fn absent() {
        let out = Tree::new().topic(&TOPIC);
        assert_eq!(out.unknown_facts().count(), 1);
        assert_eq!(out.worst(), Level::Note);
    }
}
