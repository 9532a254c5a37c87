//! The NMI watchdog: a non-maskable interrupt on every CPU every ten seconds or so of work, and one
//! hardware counter less.
//!
//! Source: `/proc/sys/kernel/nmi_watchdog` (`Documentation/admin-guide/sysctl/kernel.rst`,
//! `lockup-watchdogs.rst`).

use crate::finding::{Examination, Finding, Level};
use crate::machine::Machine;
use crate::topic::Topic;

pub(crate) const TOPIC: Topic = Topic {
    examine,
    findings: &[("nmi-watchdog", "the NMI watchdog")],
};

fn examine(machine: &Machine<'_>, out: &mut Examination) {
    let root = machine.root;
    let _ = out.record(
        "watchdog.soft",
        root.switch("/proc/sys/kernel/soft_watchdog"),
    );
    match out.record("watchdog.nmi", root.switch("/proc/sys/kernel/nmi_watchdog")) {
        Ok(false) => {
            let says = "the NMI watchdog is off";
            out.find(Finding::new("nmi-watchdog", "watchdog", Level::Good, says));
        }
        Ok(true) => out.find(
            Finding::new("nmi-watchdog", "watchdog", Level::Warning, "the NMI watchdog interrupts every CPU now and then, and occupies a hardware counter")
                .advice("sudo sysctl kernel.nmi_watchdog=0"),
        ),
        Err(unknown) => out.find_unknown("nmi-watchdog", "watchdog", &unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tree, amd_server, intel_laptop_on_battery};

    #[test]
    fn on_off_and_absent() {
        let level = |tree: Tree| tree.topic(&TOPIC).get("nmi-watchdog", "watchdog").level;
        assert_eq!(level(intel_laptop_on_battery()), Level::Warning);
        assert_eq!(level(amd_server()), Level::Good);
        assert_eq!(level(Tree::new()), Level::Note);
    }
}
