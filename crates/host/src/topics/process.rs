//! Programs that change the machine while it is measured, and other virtual machines.
//!
//! Source: `/proc/*/comm`, at most 15 characters of a program's name (proc_pid_comm(5)).

use std::collections::BTreeMap;

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::parse::count;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

/// Daemons by their `comm`, with what they do to a measurement and the unit that stops them.
const MEDDLERS: &[(&str, &str, &str)] = &[
    ("irqbalance", "moves interrupts between CPUs", "irqbalance"),
    (
        "thermald",
        "limits the clock rate by temperature",
        "thermald",
    ),
    (
        "tuned",
        "sets governor, C-states and sysctls by profile",
        "tuned",
    ),
    (
        "power-profiles-",
        "sets governor and energy preference",
        "power-profiles-daemon",
    ),
    ("auto-cpufreq", "sets governor and turbo", "auto-cpufreq"),
    ("tlp", "sets governor and energy preference", "tlp"),
    ("ksmtuned", "switches KSM on and off", "ksmtuned"),
    ("numad", "moves processes between NUMA nodes", "numad"),
];

/// How the `comm` of a VMM begins.
const VMMS: &[&str] = &[
    "qemu-",
    "kvm",
    "firecracker",
    "cloud-hyperviso",
    "crosvm",
    "VBoxHeadless",
    "vmware-vmx",
];

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[
        (
            "meddling-daemon",
            "a daemon that changes settings while measuring",
        ),
        ("other-guests", "VMMs that run already"),
    ],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let names = match names(machine.root) {
        Ok(names) => names,
        Err(unknown) => {
            let _ = out.record::<()>("process.meddlers", Err(unknown.clone()));
            return out.find_unknown("meddling-daemon", "processes", &unknown);
        }
    };
    let mut found = Vec::new();
    for (comm, does, unit) in MEDDLERS {
        if names.contains_key(*comm) {
            found.push(*unit);
            out.find(
                Finding::new(
                    "meddling-daemon",
                    unit,
                    Level::Note,
                    format!("{unit} runs: it {does}"),
                )
                .advice(format!("while measuring: sudo systemctl stop {unit}")),
            );
        }
    }
    out.fact("process.meddlers", json!(found));
    let vmms: u64 = names
        .iter()
        .filter(|(name, _)| VMMS.iter().any(|vmm| is_vmm(name, vmm)))
        .map(|(_, number)| number)
        .sum();
    out.fact("process.vmms", vmms);
    if vmms > 0 {
        let says = format!(
            "{} already running: what its guests do is in the figures",
            count(vmms, "VMM")
        );
        out.find(
            Finding::new("other-guests", "processes", Level::Note, says)
                .advice("stop or pause the other virtual machines while measuring"),
        );
    }
}

/// `kvm` is the whole name of a VMM, and the beginning of names of kernel threads (`kvm-pit/…`).
fn is_vmm(name: &str, vmm: &str) -> bool {
    if vmm == "kvm" {
        name == vmm
    } else {
        name.starts_with(vmm)
    }
}

/// The names of the processes that can be seen, and how many have each.
fn names(root: &Root) -> Result<BTreeMap<String, u64>, Unknown> {
    let mut names = BTreeMap::new();
    for (_, process) in root.numbered("/proc", "")? {
        // A process may be gone by now.
        if let Ok(name) = root.text(&format!("/proc/{process}/comm")) {
            *names.entry(name).or_insert(0) += 1;
        }
    }
    if names.is_empty() {
        return Err(Unknown::NotHere("/proc shows no process".to_owned()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery};

    #[test]
    fn daemons_of_a_laptop() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert_eq!(
            out.facts["process.meddlers"],
            json!(["irqbalance", "thermald"])
        );
        let advice = out
            .get("meddling-daemon", "thermald")
            .advice
            .clone()
            .unwrap();
        assert!(advice.ends_with("systemctl stop thermald"));
        assert!(!out.has("other-guests"));
    }

    #[test]
    fn other_guests() {
        let out = amd_server()
            .file("/proc/20/comm", "qemu-system-x86\n")
            .file("/proc/21/comm", "firecracker\n")
            .file("/proc/22/comm", "kvm-pit/20\n")
            .topic(&TOPIC);
        assert_eq!(out.facts["process.vmms"], json!(2));
        assert!(out.has("other-guests"));
    }

    #[test]
    fn no_processes() {
        let out = Tree::new().folder("/proc/12").topic(&TOPIC);
        assert!(
            out.get("meddling-daemon", "processes")
                .says
                .starts_with("unknown")
        );
    }
}
