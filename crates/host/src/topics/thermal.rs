//! Whether the CPU has been slowed down because it was too hot.
//!
//! Source: `/sys/devices/system/cpu/cpu*/thermal_throttle`, Intel only
//! (`Documentation/ABI/testing/sysfs-devices-system-cpu`); counts since boot.

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::reading::parse::count;
use crate::reading::root::{Root, Unknown};
use crate::topic::Topic;

/// Throttle events since boot, cores and packages, added up over all CPUs.
///
/// Each CPU of a package counts the package's events, so this is no number of events, but it grows
/// exactly when something is throttled.
pub(crate) fn throttle_count(root: &Root) -> Result<u64, Unknown> {
    let folder = "/sys/devices/system/cpu";
    let mut sum = 0u64;
    let (mut counted, mut absent) = (false, None);
    let number_if_there = |path: &str| match root.number::<u64>(path) {
        Err(unknown) if unknown.is_absent() => Ok(Err(unknown)),
        Err(unknown) => Err(unknown),
        Ok(number) => Ok(Ok(number)),
    };
    for (_, cpu) in root.numbered(folder, "cpu")? {
        let throttle = format!("{folder}/{cpu}/thermal_throttle");
        // A CPU that is switched off has no counts, and not every model has a package sensor.
        match number_if_there(&format!("{throttle}/core_throttle_count"))? {
            Ok(core) => {
                sum = sum.saturating_add(core);
                counted = true;
            }
            Err(unknown) => drop(absent.get_or_insert(unknown)),
        }
        if let Ok(package) = number_if_there(&format!("{throttle}/package_throttle_count"))? {
            sum = sum.saturating_add(package);
        }
    }
    match absent {
        _ if counted => Ok(sum),
        Some(absent) => Err(absent),
        None => Err(Unknown::NotHere(format!("{folder} lists no CPU"))),
    }
}

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[("thermal-throttle", "slowing down for heat")],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    match out.record("thermal.throttle_count", throttle_count(machine.root)) {
        Ok(0) => out.find(Finding::new(
            "thermal-throttle",
            "thermal",
            Level::Good,
            "never throttled since boot",
        )),
        Ok(number) => out.find(
            Finding::new(
                "thermal-throttle",
                "thermal",
                Level::Note,
                format!("slowed down for heat since boot ({} added up over CPUs and packages)", count(number, "event")),
            )
            .advice("set aside the runs in which the count grows; if they are many, cool the machine or switch turbo off"),
        ),
        Err(unknown) if unknown.is_absent() => {
            let says = "unknown: the kernel counts thermal throttling on Intel CPUs only, and not in virtual machines";
            out.find(Finding::new("thermal-throttle", "thermal", Level::Note, says));
        }
        Err(unknown) => out.find_unknown("thermal-throttle", "thermal", &unknown),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery};

    #[test]
    fn added_up_over_cpus() {
        let out = intel_laptop_on_battery().topic(&TOPIC);
        assert_eq!(out.facts["thermal.throttle_count"], json!(4 * (12 + 30)));
        assert_eq!(out.get("thermal-throttle", "thermal").level, Level::Note);
    }

    #[test]
    fn amd_absent_and_nonsense() {
        let out = amd_server().topic(&TOPIC);
        assert!(
            out.get("thermal-throttle", "thermal")
                .says
                .contains("Intel")
        );
        assert!(throttle_count(&Tree::new().root()).is_err());
        let path = "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count";
        assert!(throttle_count(&Tree::new().file(path, "-1").root()).is_err());
        let offline = "/sys/devices/system/cpu/cpu1/topology/x";
        let tree = Tree::new().file(path, "3\n").file(offline, "");
        assert_eq!(throttle_count(&tree.root()), Ok(3));
    }
}
