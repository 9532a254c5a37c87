//! Simultaneous multithreading: whether a core is shared with another thread.
//!
//! Source: `/sys/devices/system/cpu/smt`, `topology/thread_siblings_list`
//! (`Documentation/ABI/testing/sysfs-devices-system-cpu`, `Documentation/admin-guide/cputopology.rst`).

use serde_json::json;

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::topic::Topic;

const FOLDER: &str = "/sys/devices/system/cpu";

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[("smt", "threads that share a core")],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let active = out.record("smt.active", root.switch(&format!("{FOLDER}/smt/active")));
    let control = out.record("smt.control", root.text(&format!("{FOLDER}/smt/control")));
    let siblings = out.record(
        "smt.siblings_of_cpu0",
        root.text(&format!("{FOLDER}/cpu0/topology/thread_siblings_list")),
    );
    out.fact(
        "smt.parameters",
        json!(machine.parameters(&["nosmt", "mitigations", "l1tf"])),
    );

    let finding = |level, says: &str| Finding::new("smt", "smt", level, says);
    match active {
        Err(unknown) => out.find_unknown("smt", "smt", &unknown),
        Ok(false) if machine.seems_virtual() => out.find(finding(
            Level::Note,
            "unknown: no threads share a core as this virtual machine sees it; what the hypervisor below puts on the other thread cannot be seen",
        )),
        Ok(false) => out.find(finding(Level::Good, "no two threads share a core")),
        Ok(true) => {
            let mut says = "threads share cores: what runs on a core's other thread slows the measured one".to_owned();
            if let Ok(siblings) = siblings {
                says.push_str(&format!(" (CPUs {siblings} are one core)"));
            }
            let advice = match control.as_deref() {
                Ok("on") => "keep the other thread idle, or switch it off: echo off | sudo tee /sys/devices/system/cpu/smt/control",
                _ => "keep the other thread idle, or boot with nosmt",
            };
            out.find(finding(Level::Warning, &says).advice(advice));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery, vm_guest};

    #[test]
    fn on_off_virtual_and_absent() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        let finding = out.get("smt", "smt");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.says.contains("CPUs 0,2"), "{}", finding.says);
        assert!(finding.advice.as_ref().unwrap().contains("echo off"));
        assert_eq!(
            amd_server().topic(&TOPIC).get("smt", "smt").level,
            Level::Good
        );
        assert_eq!(
            vm_guest().topic(&TOPIC).get("smt", "smt").level,
            Level::Note
        );
        let out = Tree::new()
            .file("/sys/devices/system/cpu/smt/active", "maybe")
            .topic(&TOPIC);
        assert!(out.get("smt", "smt").says.contains("maybe"));
    }
}
